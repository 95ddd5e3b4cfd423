"""Creative writing for a real language model."""

from __future__ import annotations

import re

import pytest

from crossdomain.domains.sentences import NOUNS, Sentences

DOMAIN = Sentences()
TARGET = "bread,apple"  # the sentence begins with "The bread"
ASKED = re.compile(r'Write one sentence with the words "([a-z]+)" and "([a-z]+)"\. Use 8 to 14 words\.')


def test_prompts_name_two_different_words_and_the_response_begins_with_the_first() -> None:
    for split in ("train", "dev", "test"):
        for item in DOMAIN.items(split):
            match = ASKED.fullmatch(item.prompt)
            assert match
            first, second = match.groups()
            assert first != second and {first, second} <= set(NOUNS.split())
            assert (item.target, item.prefill) == (f"{first},{second}", f"The {first}")


def test_nouns_are_different() -> None:
    assert len(NOUNS.split()) == len(set(NOUNS.split()))


@pytest.mark.parametrize(
    "response",
    [
        " was served with an apple and cheese.",  # 9 words
        " and apple lay on a table.",  # 8
        " that the old baker’s wife made tasted of apple, honey and salt!",  # 14
        " on the table was better than the apple in the box.",  # function words may repeat
        " WAS EATEN WITH AN APPLE AND SOME MILK?",
        " was served with an apple and cheese. The bread was bread.",  # the first sentence counts
        " was served with an apple and cheese",
    ],
)
def test_sentences_that_keep_to_the_rubric_are_right(response: str) -> None:
    assert DOMAIN.score(response, TARGET) == 1


@pytest.mark.parametrize(
    ("response", "missed"),
    [
        (" and the apple were good.", {"8 to 14 words"}),
        (" and the apple were eaten by a big dog that ran across our wide garden.", {"8 to 14 words"}),
        (" was served with some apples and cheese.", {"both words"}),
        (" was served with some pineapple and cheese.", {"both words"}),
        (" was served with an apple and an apple.", {"no content word twice"}),
        (" was served with an apple and more bread.", {"no content word twice"}),
        (". It was served with an apple and cheese.", {"8 to 14 words", "both words"}),
        ("", {"8 to 14 words", "both words"}),
        (" the" * 10, {"both words"}),
    ],
)
def test_what_is_missed_is_named_and_earns_nothing(response: str, missed: set[str]) -> None:
    assert {name for name, met in DOMAIN.rubric(response, TARGET).items() if not met} == missed
    assert DOMAIN.score(response, TARGET) == 0


def test_render_shows_sentence_and_rubric() -> None:
    item = DOMAIN.items("dev")[0]
    shown = DOMAIN.render(item, " sleeps.\n")
    assert shown.startswith(f"“{item.prefill} sleeps.”   (✗ 8 to 14 words, ✗ both words, ✓ no content word twice)")
