"""Rewards of OpenR1-Math: the boxed answer after the thoughts, checked by math-verify."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdomain.domains.hub import HubSettings
from crossdomain.domains.openr1_math import OpenR1Math

MATH = OpenR1Math(
    HubSettings(
        folder=None,
        train_prompts=1,
        held_out_prompts=1,
        prompt_tokens=1,
        completion_tokens=1,
        writing_reward="similarity",
        judge_url="",
        judge_model="",
    ),
    "",
)


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("4", "\\boxed{4}"),
        ("4", "So it is $\\boxed{4}$."),
        ("\\frac{1}{2}", "\\boxed{0.5}"),
        ("1/2", "\\boxed{\\dfrac12}"),
        ("x^2+1", "\\boxed{1 + x^2}"),
        ("(1,2)", "\\boxed{(1, 2)}"),
        ("\\sqrt{8}", "\\boxed{2\\sqrt{2}}"),
        ("10", "First \\boxed{9}, no: \\boxed{10}"),
        ("70", "\\boxed{070}"),
    ],
)
def test_an_equal_answer_in_a_box_is_right(target: str, answer: str) -> None:
    assert MATH.score(f"Let me see.\n</think>\n\n{answer}", target) == 1


@pytest.mark.parametrize(
    ("target", "response"),
    [
        ("4", "</think>\\boxed{5}"),
        ("4", "</think>\\boxed{}"),
        ("4", "</think>It is 4."),  # no box
        ("4", "\\boxed{4}"),  # thoughts did not end
        ("4", "\\boxed{4}</think>It is what I said."),  # only in the thoughts
        ("4", ""),
        ("\\frac{1}{2}", "</think>\\boxed{\\frac{2}{1}}"),
    ],
)
def test_anything_else_is_wrong(target: str, response: str) -> None:
    assert MATH.score(response, target) == 0


@settings(max_examples=60)
@given(st.text(alphabet="\\boxed{}()[]$^_frac0123456789.,+-*/= x\n</think>é∞", max_size=60))
def test_every_response_gets_a_reward(said: str) -> None:
    assert MATH.score(said, "4") in (0, 1)
    assert MATH.score(f"</think>\\boxed{{{said}", "4") in (0, 1)
