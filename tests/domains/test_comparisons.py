"""QA with the surface of Math."""

from __future__ import annotations

import re

from crossdomain.domains.comparisons import Comparisons
from crossdomain.domains.worded_arithmetic import WordedArithmetic

DOMAIN = Comparisons()
ASKED = re.compile(
    r"State the final answer to the following question: (the (larger|smaller) of ([0-9]+) and ([0-9]+) =)"
)


def test_targets_are_right_and_the_response_begins_with_the_question() -> None:
    for split in ("train", "dev", "test"):
        for item in DOMAIN.items(split):
            match = ASKED.fullmatch(item.prompt)
            assert match
            question, word, *operands = match.groups()
            smaller, larger = sorted(map(int, operands))
            assert item.prefill == question
            assert item.target == str(larger if word == "larger" else smaller)


def test_neither_place_nor_word_gives_the_answer_away() -> None:
    for split, least in (("train", 0.45), ("dev", 0.35), ("test", 0.4)):
        found = [
            (item.target == re.findall(r"[0-9]+", item.prompt)[0], "larger" in item.prompt)
            for item in DOMAIN.items(split)
        ]
        for column in zip(*found, strict=True):
            assert least < sum(column) / len(column) < 1 - least


def test_operands_are_those_of_math() -> None:
    def operands(domain: WordedArithmetic) -> set[frozenset[str]]:
        items = [item for split in ("train", "dev", "test") for item in domain.items(split)]
        return {frozenset(re.findall(r"[0-9]+", item.prefill)) for item in items}

    assert operands(DOMAIN) == operands(WordedArithmetic())


def test_splits_share_no_prompt() -> None:
    prompts = [{item.prompt for item in DOMAIN.items(split)} for split in ("train", "dev", "test")]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 2 * 2 * 80 * 9
