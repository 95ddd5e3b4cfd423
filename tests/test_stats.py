"""Intervals against closed forms and an independent implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

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
