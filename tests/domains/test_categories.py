"""QA for a real language model."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from crossdomain.domains.categories import CATEGORIES, Categories

DOMAIN = Categories()
ASKED = re.compile(r"Is (\w+) a kind of (\w+), (\w+) or (\w+)\? Answer with one word\.")
SPLITS = ("train", "dev", "test")


def test_ten_categories_of_ten_words_share_none() -> None:
    words = [word for words in CATEGORIES.values() for word in words.split()]
    assert [len(words.split()) for words in CATEGORIES.values()] == [10] * 10
    assert len(set(words)) == 100 and not set(words) & set(CATEGORIES)


def test_the_target_is_the_word_s_category_and_among_three_different_options() -> None:
    for split in SPLITS:
        for item in DOMAIN.items(split):
            match = ASKED.fullmatch(item.prompt)
            assert match
            word, *options = match.groups()
            assert word in CATEGORIES[item.target].split()
            assert item.target in options and len(set(options)) == 3 and set(options) <= set(CATEGORIES)
            assert item.prefill == "Answer:"


def test_words_are_held_out() -> None:
    words = {split: {item.prompt.split()[1] for item in DOMAIN.items(split)} for split in SPLITS}
    assert {split: len(found) for split, found in words.items()} == {"train": 60, "dev": 10, "test": 30}
    assert len(set.union(*words.values())) == 100


def test_every_category_is_asked_as_often_and_is_right_in_every_place_as_often() -> None:
    for split in SPLITS:
        items = DOMAIN.items(split)
        assert set(Counter(item.target for item in items).values()) == {len(items) // 10}
        places = Counter(re.findall(r"\w+", item.prompt)[5:].index(item.target) for item in items)
        assert len(set(places.values())) == 1
        assert sorted(places) == [0, 1, 3]  # the third option stands after an "or"


@pytest.mark.parametrize("response", [" animal", " animal\n", " animal \n"])
def test_naming_the_category_is_right(response: str) -> None:
    assert DOMAIN.score(response, "animal") == 1


@pytest.mark.parametrize(
    "response",
    ["", "animal", " Animal", " animal.", " an animal", " tool", " animals", " animal or tool", " animal\ntool"],
)
def test_other_responses_are_wrong(response: str) -> None:
    assert DOMAIN.score(response, "animal") == 0


def test_the_one_answer_is_right() -> None:
    for item in DOMAIN.items("dev"):
        assert DOMAIN.score(DOMAIN.answer(item), item.target) == 1


def test_render_shows_response_and_verdict() -> None:
    item = DOMAIN.items("dev")[0]
    assert DOMAIN.render(item, f" {item.target}\n") == f"{item.prompt} {item.target}   (right)"
    assert DOMAIN.render(item, " no\nidea") == f"{item.prompt} no idea   (wrong, {item.target} expected)"
