"""Rewards of creative writing: a judge's marks, or similarity with the reference where that was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdomain.domains.creative_writing import CreativeWriting, similarity
from crossdomain.domains.hub import HubSettings
from crossdomain.judge import Case, JudgeError

TARGET = json.dumps({"brief": "Write about a fox.", "reference": "A red fox sleeps."})


def domain(**changes: Any) -> CreativeWriting:
    settings: dict[str, Any] = {
        "folder": None,
        "train_prompts": 1,
        "held_out_prompts": 1,
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "writing_reward": "similarity",
        "judge_url": "http://127.0.0.1:9/v1",
        "judge_model": "judge",
    }
    return CreativeWriting(HubSettings(**(settings | changes)), "")


def test_similarity_in_closed_form() -> None:
    # Words: 3 shared of 4 and 5: F1 6/9. Pairs: "a red", "red fox" shared of 3 and 4: F1 4/7.
    assert similarity("A red fox sleeps", "a red fox is here") == pytest.approx((6 / 9 + 4 / 7) / 2)


@given(st.text(max_size=60), st.text(max_size=60))
def test_similarity_is_symmetric_and_in_0_to_1(one: str, other: str) -> None:
    assert 0 <= similarity(one, other) <= 1
    assert similarity(one, other) == similarity(other, one)


def test_what_follows_the_thoughts_is_compared_with_the_reference() -> None:
    found = domain().reward(
        ["", "", ""],
        ["A blue whale.</think>A red fox sleeps.", "A red fox sleeps.", "</think>A blue whale."],
        [TARGET] * 3,
    )
    assert found[0] == 1 and found[1] == 0 and 0 < found[2] < 0.5
    assert domain().score("</think>A red fox sleeps.", TARGET) == 1


def test_a_judge_marks_what_has_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Case] = []

    def marks(self: Any, cases: Sequence[Case]) -> list[float]:
        asked.extend(cases)
        return [0.1 * (i + 1) for i in range(len(cases))]

    monkeypatch.setattr("crossdomain.judge.Judge.marks", marks)
    monkeypatch.setattr("crossdomain.judge.Judge.check", lambda self: None)
    responses = ["</think>One.", "no end of thoughts", "</think>", "</think>Two."]
    assert domain(writing_reward="judge").reward([""] * 4, responses, [TARGET] * 4) == [0.1, 0, 0, 0.2]
    assert asked == [Case("Write about a fox.", "A red fox sleeps.", said) for said in ("One.", "Two.")]


def test_training_is_refused_before_it_starts_where_no_judge_answers() -> None:
    with pytest.raises(JudgeError, match=r"no judge at http://127\.0\.0\.1:9/v1"):
        domain(writing_reward="judge").reward([], [], [])


def test_similarity_needs_no_judge() -> None:
    assert domain().reward([], [], []) == []
