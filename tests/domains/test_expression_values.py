"""Code with the surface of Math."""

from __future__ import annotations

import re

from crossdomain.domains.expression_values import ExpressionValues
from crossdomain.domains.worded_arithmetic import WordedArithmetic

DOMAIN = ExpressionValues()
ASKED = re.compile(r"State the value of the following Python expression: ((max|min)\(([0-9]+), ([0-9]+)\))")


def test_targets_are_right_and_the_response_begins_with_the_expression() -> None:
    for split in ("train", "dev", "test"):
        for item in DOMAIN.items(split):
            match = ASKED.fullmatch(item.prompt)
            assert match
            expression, name, *operands = match.groups()
            smaller, larger = sorted(map(int, operands))
            assert item.prefill == f"{expression} ="
            assert item.target == str(larger if name == "max" else smaller)


def test_neither_place_nor_function_gives_the_answer_away() -> None:
    for split, least in (("train", 0.45), ("dev", 0.35), ("test", 0.4)):
        found = [
            (item.target == re.findall(r"[0-9]+", item.prompt)[0], "max" in item.prompt) for item in DOMAIN.items(split)
        ]
        for column in zip(*found, strict=True):
            assert least < sum(column) / len(column) < 1 - least


def test_operands_are_those_of_math() -> None:
    def operands(domain: WordedArithmetic) -> set[frozenset[str]]:
        items = [item for split in ("train", "dev", "test") for item in domain.items(split)]
        return {frozenset(re.findall(r"[0-9]+", item.prefill)) for item in items}

    assert operands(DOMAIN) == operands(WordedArithmetic())


def test_the_value_alone_is_right() -> None:
    responses = (" 47\n", " 47", " 47, since 47 > 6", " 6", " forty-seven", "")
    assert [DOMAIN.score(response, "47") for response in responses] == [1, 1, 0, 0, 0, 0]
