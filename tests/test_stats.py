"""Intervals against closed forms and an independent implementation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from crossdomain import stats

FINITE = st.floats(-100, 100, allow_nan=False)


def test_bootstrap_agrees_with_the_normal_interval_on_many_values() -> None:
    values = np.random.default_rng(1).normal(50, 10, 4000)
    found = stats.bootstrap_mean(values, 4000)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_bootstrap_is_deterministic() -> None:
    values = np.arange(30.0)
    assert stats.bootstrap_mean(values, 300) == stats.bootstrap_mean(values, 300)


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert stats.bootstrap_mean([3.0] * 5) == (3.0, 3.0, 3.0)


@given(st.lists(FINITE, min_size=2, max_size=30))
def test_bootstrap_brackets_the_mean_within_the_range_of_values(values: list[float]) -> None:
    found = stats.bootstrap_mean(values, 100)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_seed_mean_is_students_interval() -> None:
    values = [57.0, 61.0, 54.5]
    low, high = scipy_stats.t.interval(0.95, 2, np.mean(values), scipy_stats.sem(values))
    assert stats.seed_mean(values) == pytest.approx((np.mean(values), low, high))


def test_an_interval_of_seeds_is_cut_off_at_what_values_can_be() -> None:
    low, high = stats.seed_mean([50.0, 95.0])[1:]
    assert low < 0 and high > 100
    assert stats.seed_mean([50.0, 95.0], (0, 100)) == (72.5, 0, 100)
    assert stats.seed_mean([50.0, 95.0], (-1e9, 100)) == (72.5, low, 100)


def test_one_seed_has_no_interval() -> None:
    found = stats.seed_mean([5.0])
    assert found.value == 5.0
    assert np.isnan([found.low, found.high]).all()


@given(st.lists(FINITE, min_size=2, max_size=20), FINITE)
def test_a_constant_shift_is_found_exactly(values: list[float], shift: float) -> None:
    found = stats.paired_difference(np.array(values) + shift, values, 100)
    assert found == pytest.approx((shift, shift, shift), abs=1e-9)


def test_pairing_removes_what_prompts_have_in_common() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(50, 30, 200)
    found = stats.paired_difference(before + rng.normal(1, 0.1, 200), before)
    assert 0.9 < found.low < found.high < 1.1


@pytest.mark.parametrize("values", [[], [np.nan], [1.0, np.inf]])
def test_values_that_give_no_mean_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one finite value"):
        stats.bootstrap_mean(values)


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match="must match"):
        stats.paired_difference([1, 2, 3], [1, 2])


def test_seeds_on_bases_of_their_own_get_students_interval() -> None:
    values = np.random.default_rng(0).normal(5, 2, 40)
    found = stats.hierarchical_bootstrap(values, np.arange(40), 20_000)
    assert found.value == pytest.approx(values.mean())
    assert found == pytest.approx(stats.seed_mean(values), abs=0.05)


def test_prompts_of_one_seed_get_scipys_bootstrap_interval() -> None:
    values = np.random.default_rng(2).exponential(10, 400)
    found = stats.hierarchical_bootstrap(values[None], [0], 20_000)
    scipys = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), abs=0.05)


def test_nested_draws_have_the_variance_of_their_closed_form() -> None:
    rng = np.random.default_rng(1)
    bases = np.repeat(np.arange(60), 4)
    values = rng.normal(0, 3, 60)[bases] + rng.normal(0, 2, 240)
    means = values.reshape(60, 4).mean(1)
    within = values.reshape(60, 4).var(1).mean()  # of the seeds of a base, as resampling sees it
    variance = (means.var() + within / 4) / 60
    found = stats.hierarchical_bootstrap(values, bases, 20_000)
    half = scipy_stats.t.ppf(0.975, 59) * np.sqrt(variance * 60 / 59)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.03)


def test_what_a_base_shares_is_not_averaged_away_by_more_seeds_on_it() -> None:
    effects, noise = np.random.default_rng(4).normal(0, 5, 12), np.random.default_rng(5).normal(0, 0.1, (12, 20))
    values = (effects[:, None] + noise).ravel()
    nested = stats.hierarchical_bootstrap(values, np.repeat(np.arange(12), 20))
    alone = stats.seed_mean(values)
    assert nested.high - nested.low > 3 * (alone.high - alone.low)


def test_with_three_bases_the_interval_spans_the_seeds() -> None:
    found = stats.hierarchical_bootstrap([1.0, 4, 5, 7, 9], [1, 2, 2, 0, 0])
    assert found == pytest.approx((5.2, 1, 9))


def test_prompts_are_resampled_together_for_all_seeds() -> None:
    by_prompt = np.random.default_rng(6).normal(0, 10, 300)
    values = by_prompt + np.zeros((40, 1))  # all seeds agree on every prompt, so only prompts vary
    one, many = (stats.hierarchical_bootstrap(values[:n], np.arange(n), 4000) for n in (1, 40))
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.1)


def test_nothing_repeated_leaves_no_interval() -> None:
    found = stats.hierarchical_bootstrap([[3.0]], [0])
    assert found.value == 3 and np.isnan([found.low, found.high]).all()


@given(st.lists(FINITE, min_size=2, max_size=8), st.integers(1, 4))
def test_hierarchical_intervals_hold_the_mean_and_stay_among_the_seeds(values: list[float], bases: int) -> None:
    found = stats.hierarchical_bootstrap(values, np.arange(len(values)) % bases, 200)
    slack = 1e-9 + 1e-12 * max(map(abs, values))
    assert min(values) - slack <= found.low <= found.value <= found.high <= max(values) + slack


def test_hierarchical_intervals_are_deterministic() -> None:
    values, bases = np.arange(10.0).reshape(5, 2), [0, 0, 1, 1, 2]
    assert stats.hierarchical_bootstrap(values, bases) == stats.hierarchical_bootstrap(values, bases)


@pytest.mark.parametrize("bases", [[0, 1], [0, 1, 1, 2]])
def test_seeds_without_a_base_of_their_own_are_refused(bases: list[int]) -> None:
    with pytest.raises(ValueError, match="one base for each of the 3 seeds"):
        stats.hierarchical_bootstrap([1.0, 2, 3], bases)


def test_holm_on_a_known_case() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_holm_agrees_with_statsmodels(p: list[float]) -> None:
    assert stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closure_of_bonferroni(p: list[float]) -> None:
    # By closed testing a hypothesis falls where every set of hypotheses that holds it does, by Bonferroni.
    sets = [s for n in range(1, len(p) + 1) for s in combinations(range(len(p)), n)]
    closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]
    assert stats.holm(p) == pytest.approx(closed)


@pytest.mark.parametrize("p", [[0.5, 1.2], [-0.1]])
def test_what_is_no_p_value_is_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.holm(p)
