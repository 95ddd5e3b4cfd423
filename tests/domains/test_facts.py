"""QA: which facts are seen where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from crossdomain.domains import Item
from crossdomain.domains.facts import ENTITIES, PROMPTS, RELATIONS, UNSEEN, Facts

DOMAIN = Facts()


def facts(items: Iterable[Item]) -> set[tuple[str, str]]:
    """The facts that items ask: entity and relation together, and their value."""
    return {(item.prompt.partition(":")[0], item.target) for item in items}


def test_unseen_facts_never_occur_in_training() -> None:
    seen = facts(DOMAIN.items("train"))
    unseen = facts(DOMAIN.items("test_unseen"))
    assert len(unseen) == UNSEEN
    assert not {question for question, _ in seen} & {question for question, _ in unseen}


def test_tests_on_seen_facts_ask_all_of_them() -> None:
    assert facts(DOMAIN.items("test")) == facts(DOMAIN.items("dev")) == facts(DOMAIN.items("train"))


def test_pretraining_shows_every_fact() -> None:
    shown = facts(DOMAIN.pretraining_items())
    assert len(shown) == ENTITIES * len(RELATIONS)
    assert shown == facts(DOMAIN.items("train")) | facts(DOMAIN.items("test_unseen"))


def test_every_fact_is_asked_equally_often_in_training() -> None:
    asked = Counter(item.prompt.partition(":")[0] for item in DOMAIN.items("train"))
    assert set(asked.values()) == {PROMPTS["train"]}


def test_the_value_is_one_of_four_different_options() -> None:
    for item in DOMAIN.items("test") + DOMAIN.items("test_unseen"):
        options = item.prompt.partition(":")[2].rstrip("?").split(",")
        assert len(options) == len(set(options)) == 4
        assert item.target in options


def test_the_value_is_at_every_place_equally_often() -> None:
    """Guessing a place is worth no more than guessing an option."""
    places = Counter(
        item.prompt.partition(":")[2].rstrip("?").split(",").index(item.target) for item in DOMAIN.items("train")
    )
    expected = len(DOMAIN.items("train")) / 4
    assert all(abs(count - expected) < 4 * expected**0.5 for count in places.values())


def test_render_asks_in_words() -> None:
    item = Item("tud.q:su,ba,pi,sa?", "pi")
    assert DOMAIN.render(item, "pi") == "q of tud, one of su, ba, pi, sa? pi   (right)"
    assert DOMAIN.render(item, "ba") == "q of tud, one of su, ba, pi, sa? ba   (wrong, pi expected)"
