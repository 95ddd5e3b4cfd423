"""Top sets and their overlap against scikit-learn, enumeration of all sets, and shuffling."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom
from sklearn.metrics import jaccard_score

from crossdomain.overlap import approximate_chance, chance, chance_within, jaccard, pairwise, top


def mask(units: int, members: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(units, dtype=bool)
    found[list(members)] = True
    return found


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_the_top_is_what_a_stable_sort_puts_first(scores: list[int], share: float) -> None:
    number = max(1, round(share * len(scores)))
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:number]
    assert np.flatnonzero(top(scores, share)).tolist() == sorted(expected)


def test_the_top_within_layers_is_the_top_of_each() -> None:
    scores = np.random.default_rng(0).normal(size=60) + np.repeat([0.0, 10.0, 5.0], [10, 20, 30])
    layers = np.repeat(["a", "b", "c"], [10, 20, 30])
    order = np.random.default_rng(1).permutation(60)  # layers need not be in order
    found = top(scores[order], 0.2, within=layers[order])
    for layer, number in (("a", 2), ("b", 4), ("c", 6)):
        rows = layers[order] == layer
        assert found[rows].sum() == number
        assert np.array_equal(found[rows], top(scores[order][rows], 0.2))
    assert np.array_equal(top(scores, 0.2), mask(60, tuple(np.argsort(-scores)[:12])))


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, np.nan])
def test_a_share_outside_of_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        top([1.0, 2.0], share)


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf, 1.0], [[1.0, 2.0]]])
def test_scores_that_cannot_be_ordered_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="one finite number a unit"):
        top(scores, 0.5)


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one label a unit, shape \(2,\)"):
        top([1.0, 2.0], 0.5, within=[0, 0, 1])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_jaccard_index_is_that_of_scikit_learn(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    if not (a | b).any():
        assert np.isnan(jaccard(a, b))
    else:
        assert jaccard(a, b) == pytest.approx(jaccard_score(a, b), abs=1e-12)
        assert jaccard(a, b) == jaccard(b, a)


def test_masks_over_other_units_are_refused() -> None:
    for a, b in [(np.ones(2, bool), np.ones(3, bool)), (np.ones(2), np.ones(2)), (np.ones((1, 2), bool),) * 2]:
        with pytest.raises(ValueError, match="boolean masks over the same units"):
            jaccard(a, b)


@pytest.mark.parametrize(("units", "first", "second"), [(6, 2, 3), (7, 3, 3), (5, 4, 4), (6, 0, 2), (4, 4, 1)])
def test_chance_is_the_mean_over_all_sets(units: int, first: int, second: int) -> None:
    fixed = mask(units, tuple(range(first)))
    every = np.array([jaccard(fixed, mask(units, members)) for members in combinations(range(units), second)])
    found = chance(units, first, second)
    assert found.value == pytest.approx(every.mean(), rel=1e-10)
    # Quantiles of a discrete distribution: the smallest index with at least that share of sets at or below it.
    assert np.mean(every <= found.low + 1e-12) >= 0.025 > np.mean(every < found.low - 1e-12)
    assert np.mean(every <= found.high + 1e-12) >= 0.975 > np.mean(every < found.high - 1e-12)


def test_chance_at_the_papers_size_is_near_its_approximation() -> None:
    units = 36 * 9728
    found = chance(units, round(0.1 * units), round(0.1 * units))
    assert approximate_chance(0.1) == pytest.approx(0.0526, abs=5e-5)
    assert found.value == pytest.approx(approximate_chance(0.1), rel=1e-4)
    assert found.low < found.value < found.high
    normal = 3.92 * hypergeom.std(units, round(0.1 * units), round(0.1 * units)) * 2 * 0.1 * units / (0.19 * units) ** 2
    assert found.high - found.low == pytest.approx(
        normal, rel=0.01
    )  # delta method: J = i/(2k - i), dJ/di = 2k/(2k - i)²


@given(st.integers(1, 80).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n), st.integers(1, n))))
def test_chance_lies_within_its_band_and_covers_at_least_95_percent(sizes: tuple[int, int, int]) -> None:
    units, first, second = sizes
    found = chance(units, first, second)
    assert 0 <= found.low <= found.high <= 1
    assert found == chance(units, second, first) or found == pytest.approx(chance(units, second, first))
    common = np.arange(min(first, second) + 1)
    index = common / (first + second - common)
    inside = (index >= found.low - 1e-12) & (index <= found.high + 1e-12)
    assert hypergeom.pmf(common[inside], units, first, second).sum() >= 0.95 - 1e-9


@pytest.mark.parametrize(("first", "second"), [(11, 1), (1, 11), (-1, 2), (0, 0)])
def test_sets_that_do_not_fit_are_refused(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="of 10 units"):
        chance(10, first, second)


def test_shuffling_within_layers_keeps_the_layer_profile() -> None:
    a, b = mask(5, (0, 1, 3)), mask(5, (0, 3, 4))
    layers = np.array(["x", "x", "x", "y", "y"])
    every = [
        jaccard(mask(5, (*first, *last)), b)
        for first, last in product(combinations((0, 1, 2), 2), combinations((3, 4), 1))
    ]
    found = chance_within(a, b, layers, draws=200_000)
    assert found.value == pytest.approx(np.mean(every), abs=0.002)
    assert (found.low, found.high) == (min(every), max(every))


def test_with_one_layer_shuffling_is_uniform_chance() -> None:
    a, b = mask(60, tuple(range(20))), mask(60, tuple(range(10, 25)))
    drawn, exact = chance_within(a, b, np.zeros(60), draws=100_000), chance(60, 20, 15)
    assert drawn.value == pytest.approx(exact.value, abs=0.001)
    assert (drawn.low, drawn.high) == pytest.approx((exact.low, exact.high))


def test_a_set_that_fills_its_layers_leaves_nothing_to_chance() -> None:
    layers = np.repeat([0, 1, 2], 4)
    a, b = layers < 2, layers > 0
    assert chance_within(a, b, layers) == pytest.approx((4 / 12,) * 3)


def test_draws_depend_on_their_seed_alone() -> None:
    rng = np.random.default_rng(3)
    a, b, layers = rng.random(50) < 0.3, rng.random(50) < 0.3, rng.integers(0, 4, 50)
    assert chance_within(a, b, layers, 500) == chance_within(a, b, layers, 500)
    assert chance_within(a, b, layers, 500) != chance_within(a, b, layers, 500, seed=1)


def test_two_empty_sets_are_refused() -> None:
    nothing = np.zeros(3, dtype=bool)
    with pytest.raises(ValueError, match="both sets are empty"):
        chance_within(nothing, nothing, [0, 0, 1])


def test_every_pair_has_a_row_with_its_bands() -> None:
    rng = np.random.default_rng(0)
    layers = np.repeat(np.arange(4), 50)
    scores = {name: rng.normal(size=200) + 2 * (layers == 1) for name in ("Math", "Code", "QA")}  # all prefer layer 1
    sets = {name: top(values, 0.1) for name, values in scores.items()}
    table = pairwise(sets, layers)
    assert list(zip(table["a"], table["b"], strict=True)) == [("Math", "Code"), ("Math", "QA"), ("Code", "QA")]
    for row in table.itertuples():
        assert row.jaccard == jaccard(sets[row.a], sets[row.b])
        assert (row.chance, row.low, row.high) == chance(200, 20, 20)
        assert (row.layer_chance, row.layer_low, row.layer_high) == chance_within(sets[row.a], sets[row.b], layers)
        assert row.layer_chance > row.high > row.chance  # the shared preference alone is beyond uniform chance


def test_a_pair_with_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no units in b"):
        pairwise({"a": np.ones(2, bool), "b": np.zeros(2, bool)}, [0, 0])
