"""Math for the tiny model."""

from __future__ import annotations

import pytest

from crossdomain.domains import Item
from crossdomain.domains.arithmetic import Arithmetic

DOMAIN = Arithmetic()


def test_targets_are_the_result_with_the_least_significant_digit_first() -> None:
    for split in ("train", "dev", "test"):
        for item in DOMAIN.items(split):
            first, sign, second = item.prompt[:2], item.prompt[2], item.prompt[3:5]
            result = int(first) + int(second) if sign == "+" else int(first) - int(second)
            assert item.prompt == f"{first}{sign}{second}="
            assert item.target == f"{result:03d}"[::-1]


def test_both_signs_are_in_every_split() -> None:
    for split in ("train", "dev", "test"):
        assert {item.prompt[2] for item in DOMAIN.items(split)} == {"+", "-"}


@pytest.mark.parametrize("response", ["66", "6610", "166", " 661", "661 ", "٦61"])
def test_only_the_exact_target_is_right(response: str) -> None:
    assert DOMAIN.score("661", "661") == 1
    assert DOMAIN.score(response, "661") == 0


def test_render_turns_the_digits_around() -> None:
    item = Item("71+95=", "661")
    assert DOMAIN.render(item, "661") == "71+95= 166   (right)"
    assert DOMAIN.render(item, "561") == "71+95= 165   (wrong, 166 expected)"
