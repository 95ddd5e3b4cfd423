"""Math at the paper's scale: problems of OpenR1-Math, answers checked by math-verify.

Known of the paper [D]: 5,120 prompts of OpenR1-Math; AIME25's 30 problems for validation. Ours: which rows (word problems
whose answer math-verify has confirmed in a generation of the data set's own), the 500 of the test split, the instruction.

Schemas. open-r1/OpenR1-Math-220k: columns and configurations confirmed on its card. math-ai/aime25: 30 rows with `problem`,
`answer` and `id`, confirmed by public code that reads it; whether an answer is text or number is not, so both are read.
"""

from __future__ import annotations

from typing import Any

from math_verify import parse, verify

from crossdomain import chat, provenance
from crossdomain.domains.base import Item
from crossdomain.domains.hub import DataSet, HubDomain, Row, RowError, Task, text

INSTRUCTION = "Reason step by step, and give the final answer within \\boxed{}."


class OpenR1Math(HubDomain):
    """A problem → an answer in a box, the last one counts, that math-verify finds equal to the right one."""

    title = "Math"
    sources = (
        DataSet("open-r1/OpenR1-Math-220k", ("problem", "answer", "question_type", "correctness_math_verify"), "train"),
    )
    apart = {"dev": DataSet("math-ai/aime25", ("problem", "answer"), "test")}  # noqa: RUF012  # a ClassVar of HubDomain
    sizes = {"test": 500, "dev": 30}  # noqa: RUF012

    def read(self, row: Row, source: DataSet) -> Task | None:
        if source in self.sources:
            confirmed = row.get("correctness_math_verify")
            if confirmed is None and row.get("question_type") is None:
                raise RowError("neither question_type nor correctness_math_verify")
            if row.get("question_type") != "math-word-problem" or not any(confirmed or ()):
                return None
        answer = row.get("answer")
        right = str(answer) if isinstance(answer, int | float) else text(row, "answer")
        return Task(Item(f"{text(row, 'problem')}\n\n{INSTRUCTION}", right))

    def determinants(self) -> dict[str, Any]:
        return super().determinants() | provenance.versions(("math-verify",))

    def score(self, response: str, target: str) -> float:
        _, boxed, said = chat.answer(response).rpartition("\\boxed")
        return float(bool(boxed) and verify(parse(f"\\boxed{{{target}}}"), parse(boxed + said)))
