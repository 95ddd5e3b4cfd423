"""Creative writing at the paper's scale: the briefs of four of Crownelius' data sets, marked by a judge model.

Known of the paper [D]: 5,120 prompts of crownelius' Creative-Writing series (the four below), 2,560 reference answers
resampled from Qwen3-235B-A22B-Instruct-2507, 50 prompts for validation. Those resampled answers are not public: the
references here are the data sets' own responses. Ours: the judge, its rubric, the test split.

Schemas. `instruction` and `response` in KimiK2.5-600x and `response` in Gemini3Pro-2700x are confirmed by public code that
reads them. Assumed: that the others hold a brief in `instruction` or `prompt` and a `response`. Where they do not, loading
says which columns there are.

The reward is a choice of the profile, never a fallback in the middle of a run, since the two scales cannot be compared
within a group of completions: `judge`, or `similarity` with the reference, which needs no model and is easily gamed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from crossdomain import chat, provenance
from crossdomain.domains.base import Item
from crossdomain.domains.hub import DataSet, HubDomain, Row, Task, text
from crossdomain.judge import Case, Judge

COLUMNS = ("instruction", "prompt", "response")


class CreativeWriting(HubDomain):
    """A brief → a text that a judge marks from 0 to 1 against a rubric, with a reference to compare it with."""

    title = "CW"
    sources = tuple(
        DataSet(f"Crownelius/Creative-Writing-{name}", COLUMNS)
        for name in ("Sonnet4.6-800x", "Gemini3Pro-2700x", "Reasoning-KimiK2.5-600x", "Qwen3.5Plus-2000x")
    )
    sizes = {"test": 300, "dev": 50}  # noqa: RUF012  # a ClassVar of HubDomain

    def read(self, row: Row, source: DataSet) -> Task:
        brief = text(row, "instruction", "prompt")
        target = json.dumps({"brief": brief, "reference": text(row, "response")}, ensure_ascii=False)
        return Task(Item(brief, target), (source.name,))

    def determinants(self) -> dict[str, Any]:
        settings = self.settings
        how: dict[str, Any] = {"reward": settings.writing_reward}
        if settings.writing_reward == "judge":
            how |= {"judge": settings.judge_model, "judging": provenance.code_fingerprint("crossdomain.judge")}
        return super().determinants() | how

    def score(self, response: str, target: str) -> float:
        return self.reward([""], [response], [target])[0]

    def reward(
        self, prompts: Sequence[str], completions: Sequence[str], target: Sequence[str], **_: Any
    ) -> list[float]:
        """The marks of all completions, asked for side by side; one without an answer gets 0 and is not shown."""
        cases = []
        for completion, wanted in zip(completions, target, strict=True):
            known = json.loads(wanted)
            cases.append(Case(known["brief"], known["reference"], chat.answer(completion)))
        written = [case for case in cases if case.response]
        if self.settings.writing_reward == "judge":
            marks = iter(self._judge.marks(written))
        else:
            marks = iter([similarity(case.response, case.reference) for case in written])
        return [next(marks) if case.response else 0.0 for case in cases]

    @cached_property
    def _judge(self) -> Judge:
        judge = Judge(self.settings.judge_url, self.settings.judge_model)
        judge.check()
        return judge


def similarity(response: str, reference: str) -> float:
    """How much wording two texts share, in [0, 1]: the mean of the F1 of their words and that of their pairs of words.

    These are ROUGE-1 and ROUGE-2 (Lin, 2004), case aside.

    >>> similarity("the red fox", "The red fox.")
    1.0
    >>> similarity("the red fox", "a blue whale")
    0.0
    """
    return (_overlap(response, reference, 1) + _overlap(response, reference, 2)) / 2


def _overlap(response: str, reference: str, n: int) -> float:
    said, wanted = _ngrams(response, n), _ngrams(reference, n)
    total = said.total() + wanted.total()
    return 2 * (said & wanted).total() / total if total else 0.0


def _ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))
