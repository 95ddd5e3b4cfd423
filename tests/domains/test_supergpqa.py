"""Rewards of SuperGPQA: the option's letter after the thoughts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hub_standins
from crossdomain.domains.hub import HubSettings
from crossdomain.domains.supergpqa import SuperGPQA

QA = SuperGPQA(
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


def test_the_prompt_lists_the_options_by_letter() -> None:
    task = QA.read(hub_standins.qa_row(3), QA.sources[0])
    assert task is not None
    question, options, instruction = task.item.prompt.split("\n\n")
    assert question == "Which letter follows A in alphabet number 3?"
    assert options == "A) A\nB) B\nC) C\nD) D"
    assert "Answer: X" in instruction
    assert (task.item.target, task.stratum) == ("B", ("Philology", "easy"))


def test_mmlu_pro_is_read_with_its_own_columns() -> None:
    task = QA.read(hub_standins.mmlu_pro_row(2), QA.apart["mmlupro"])
    assert task is not None and (task.item.target, task.stratum) == ("B", ("other",))


@pytest.mark.parametrize(
    "answer",
    [
        "Answer: B",
        "answer: b",
        "The answer is B.",
        "**Answer: B**",
        "**Answer:** B",
        "Answer: (B)",
        "Answer: $\\boxed{B}$",
        "Answer: A? No.\nAnswer: B",
        "Answer:\nB",
    ],
)
def test_the_last_letter_that_is_given_as_the_answer_counts(answer: str) -> None:
    assert QA.score(f"A or B?</think>\n\n{answer}", "B") == 1


@pytest.mark.parametrize(
    "response",
    [
        "</think>Answer: A",
        "</think>B",
        "</think>Answer: Both",
        "</think>Answer: B\nAnswer: C",
        "Answer: B",
        "Answer: B</think>I said it.",
        "",
    ],
)
def test_anything_else_is_wrong(response: str) -> None:
    assert QA.score(response, "B") == 0


@given(st.text(max_size=80))
def test_every_response_gets_a_reward(said: str) -> None:
    assert QA.score(said, "B") in (0, 1)
    assert QA.score("</think>Answer:" + said, "B") in (0, 1)
