"""Math for a real language model."""

from __future__ import annotations

import pytest

from crossdomain.domains.worded_arithmetic import WordedArithmetic

DOMAIN = WordedArithmetic()


def test_targets_are_right_and_the_response_begins_with_the_problem() -> None:
    for split in ("train", "dev", "test"):
        for item in DOMAIN.items(split):
            first, sign, second, equals = item.prefill.split(" ")
            assert item.prompt.endswith(f": {item.prefill}")
            assert equals == "="
            assert int(item.target) == (int(first) + int(second) if sign == "+" else int(first) - int(second))


@pytest.mark.parametrize("response", [" 77", " 77\n", " 77 \n\n"])
def test_the_answer_and_the_end_of_the_line_are_right(response: str) -> None:
    assert DOMAIN.score(response, "77") == 1


@pytest.mark.parametrize(
    "response", ["", "77", "  77", " -77", " 7", " 777", " 077", " 77.", " 77\n5", " ٧٧", " seventy-seven"]
)
def test_other_responses_are_wrong(response: str) -> None:
    assert DOMAIN.score(response, "77") == 0


def test_the_one_answer_is_right() -> None:
    for item in DOMAIN.items("dev"):
        assert DOMAIN.score(DOMAIN.answer(item), item.target) == 1


def test_render_shows_problem_response_and_verdict() -> None:
    item = DOMAIN.items("dev")[0]
    assert DOMAIN.render(item, f" {item.target}\n") == f"{item.prefill} {item.target}   (right)"
    assert DOMAIN.render(item, "no") == f"{item.prefill} no   (wrong, {item.target} expected)"
