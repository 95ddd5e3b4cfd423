"""QA at the paper's scale: multiple-choice questions of SuperGPQA, and of MMLU-Pro as a second test set.

Known of the paper [D]: 5,120 prompts of SuperGPQA, stratified by subfield and difficulty; 50 for validation; 2,141 others
and 1,203 of MMLU-Pro for the test. Ours: that the held-out sets are stratified alike (MMLU-Pro by category), the wording.

Schemas. m-a-p/SuperGPQA: one file with `uuid`, `question`, `options` (4 to 10), `answer`, `answer_letter`, `discipline`,
`field`, `subfield`, `difficulty` (easy, middle, hard) and `is_calculation`, confirmed by public code that reads it.
TIGER-Lab/MMLU-Pro: `question`, `options`, `answer` (a letter), `category` and others, confirmed on its card.
"""

from __future__ import annotations

import re
from string import ascii_uppercase

from crossdomain import chat
from crossdomain.domains.base import Item
from crossdomain.domains.hub import DataSet, HubDomain, Row, RowError, Task, text

INSTRUCTION = (
    "One of these options is right. Think about it, then end with a line of the form `Answer: X`, X its letter."
)
GIVEN = re.compile(r"answer\s*(?:is)?\s*:?[\s*`$(]*(?:\\boxed\{)?\s*([A-J])(?![a-z0-9])", re.IGNORECASE | re.ASCII)


class SuperGPQA(HubDomain):
    """A question with up to ten options → the letter of the right one; the last that is given counts."""

    title = "QA"
    sources = (DataSet("m-a-p/SuperGPQA", ("question", "options", "answer_letter", "subfield", "difficulty")),)
    apart = {"mmlupro": DataSet("TIGER-Lab/MMLU-Pro", ("question", "options", "answer", "category"), "test")}  # noqa: RUF012
    sizes = {"test": 2141, "dev": 50, "mmlupro": 1203}  # noqa: RUF012

    @property
    def extra_tests(self) -> tuple[str, ...]:
        return ("mmlupro",)

    def read(self, row: Row, source: DataSet) -> Task | None:
        options = row.get("options")
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise RowError("options is no list of texts")
        letters = ascii_uppercase[: len(options)]
        letter = text(row, "answer_letter", "answer")
        if not 2 <= len(options) <= 10 or len(letter) != 1 or letter not in letters:
            raise RowError(f"{len(options)} options and the answer {letter[:20]!r}")
        stratum = (
            (text(row, "subfield"), text(row, "difficulty")) if source in self.sources else (text(row, "category"),)
        )
        listed = "\n".join(f"{name}) {option}" for name, option in zip(letters, options, strict=True))
        return Task(Item(f"{text(row, 'question')}\n\n{listed}\n\n{INSTRUCTION}", letter), stratum)

    def score(self, response: str, target: str) -> float:
        given = GIVEN.findall(chat.answer(response))
        return float(bool(given) and given[-1].upper() == target)
