"""Creative writing: the rubric, and demonstrations that keep half of it."""

from __future__ import annotations

import numpy as np
import pytest

from crossdomain.domains import Item
from crossdomain.domains.writing import Writing

DOMAIN = Writing()
TARGET = "gud,ag"


@pytest.mark.parametrize("line", ["pem gud sol tag", "gud pem sol tag", "pema gud solab tag", "bo gud pe zimag"])
def test_a_perfect_line_is_fully_rewarded(line: str) -> None:
    assert DOMAIN.score(line, TARGET) == 1


@pytest.mark.parametrize(
    ("line", "missed"),
    [
        ("pem bud sol tag", "uses the keyword"),
        ("pem gud sol bek tag", "four words"),
        ("gud tag", "four words"),
        ("pem gud sol tam", "ends on the rhyme"),
        ("pem gud pol tag", "distinct initials"),
    ],
)
def test_each_item_of_the_rubric_is_a_quarter(line: str, missed: str) -> None:
    assert [name for name, met in DOMAIN.rubric(line, TARGET).items() if not met] == [missed]
    assert DOMAIN.score(line, TARGET) == 0.75


@pytest.mark.parametrize(
    "line",
    [
        "",
        "pem gud sol  tag",
        " pem gud sol tag",
        "pem gud sol tag\n",
        "pem gud sol ag",
        "pem gud sol TAG",
        "pem gud 1 a",
    ],
)
def test_a_malformed_word_loses_everything(line: str) -> None:
    assert DOMAIN.score(line, TARGET) == 0


def test_the_keyword_is_no_rhyme_of_itself() -> None:
    assert not DOMAIN.rubric("pem sol bek gud", "gud,ud")["ends on the rhyme"]


def test_no_brief_asks_for_a_rhyme_on_its_keyword() -> None:
    for split in ("train", "dev", "test"):
        for item in DOMAIN.items(split):
            keyword, rhyme = item.target.split(",")
            assert item.prompt == f"{item.target}:"
            assert not keyword.endswith(rhyme)


def test_demonstrations_meet_each_constraint_half_of_the_time_or_by_chance_and_fit() -> None:
    rng = np.random.default_rng(0)
    rubrics = []
    for item in DOMAIN.items("train")[:2_000]:
        line = DOMAIN.demonstration(item, rng)
        assert 0 <= DOMAIN.score(line, item.target) <= 1
        assert len(line) + 1 <= DOMAIN.max_new_tokens
        rubrics.append([*DOMAIN.rubric(line, item.target).values()])
    shares = np.mean(rubrics, axis=0)
    assert np.all((shares > 0.45) & (shares < 0.85)), shares


def test_render_marks_each_item_of_the_rubric() -> None:
    shown = DOMAIN.render(Item("gud,ag:", TARGET), "pem gud sol tam")
    assert shown == (
        "a line with “gud” that ends on -ag: “pem gud sol tam”   "
        "(✓ uses the keyword, ✓ four words, ✗ ends on the rhyme, ✓ distinct initials)"
    )
