"""What the rules on C8 to C11 compare, on tables whose values are known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crossdomain import recovery_statistics as measured
from crossdomain import staging
from crossdomain.evidence import Evidence
from crossdomain.profiles import load_profile
from crossdomain.stats import Interval
from synthetic_results import changed, tables

SIZE = np.mean([1.03, 1.04, 1.05, 1.06, 1.07])  # by which the synthetic seeds differ


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(tables(), load_profile("cpu"), frozenset())


@pytest.mark.parametrize(
    ("statistic", "value"),
    [
        (lambda e: measured.harm_left(e, "all parameters"), 0.2),
        (lambda e: measured.harm_left(e, "all parameters", "random"), 0.2 - 0.95),
        (lambda e: measured.harm_left(e, "route", "others"), 0.3 - 0.9),
        (measured.harm_to_bound, 0.4),
        (measured.harm_left_by_grpo, 0.8),
        (measured.gain, 8 * SIZE),
        (lambda e: measured.gain(e, staging.ADAM_RESTART), 5 * SIZE),
        (lambda e: measured.gain(e, "others"), 6 * SIZE),
        (measured.regained, (8 - 4.5) * SIZE),
        (measured.collateral, 0.1),
        (measured.best_average, SIZE),
        (measured.rolled_back, 2 * SIZE),
        (lambda e: measured.rolled_back(e, beyond="magnitude"), SIZE),
        (measured.rolled_back_of_damage, 2 * SIZE - 1),
        (measured.rolled_back_net, 1.5 * SIZE),
        (measured.cycle_deviation, 5),
        (measured.cycle_to_one_loss, 0.05 / 0.8),
        (measured.deviation_order, 2),
        (measured.least_fall, 2),
        (measured.fall_to_joint, 4 / 4.1),
        (measured.fall_beyond_one, 4 - 2.6),
        (measured.stationarity_left, 1 / 3),
    ],
)
def test_statistics_are_means_over_seeds(
    evidence: Evidence, statistic: Callable[[Evidence], Interval], value: float
) -> None:
    found = statistic(evidence)
    assert found.value == pytest.approx(value)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9


def test_a_gain_has_the_spread_of_prompts_and_seeds(evidence: Evidence) -> None:
    table = evidence.tables["refresh_by_prompt"]
    means = table.groupby(["seed", "step"])["change"].transform("mean")
    flat = measured.gain(replace(evidence, tables={"refresh_by_prompt": table.assign(change=means)}))
    found = measured.gain(evidence)
    assert (found.low, found.high) != (flat.low, flat.high)
    assert found.high - found.low > 5 * (flat.high - flat.low)


def test_the_best_other_refresh_is_chosen_seed_by_seed(evidence: Evidence) -> None:
    table = changed(evidence.tables["refresh_by_prompt"], "change", 7.0, step="control: refresh CW", seed=3)
    found = measured.gain(replace(evidence, tables={"refresh_by_prompt": table}), "others")
    sizes = np.array([1.03, 1.04, 1.05, 1.06, 1.07])
    assert found.value == pytest.approx(np.mean([8 * sizes[0] - 7, *(6 * sizes[1:])]))


def test_no_other_domain_to_descend_on_leaves_the_control_unknown(evidence: Evidence) -> None:
    table = evidence.tables["refresh_contraction"]
    alone = replace(evidence, tables={"refresh_contraction": table[table["on"] == "math"]})
    assert np.isnan(measured.harm_left(alone, "route", "others").value)


def test_steps_that_differ_by_rounding_are_the_same_step(evidence: Evidence) -> None:
    table = evidence.tables["alternating_deviations"]
    table = table.assign(alpha=np.where((table["b"] == "code") & (table["alpha"] == 1), 0.7, table["alpha"]))
    found = measured.cycle_deviation(replace(evidence, tables={"alternating_deviations": table}))
    assert found.value == pytest.approx(5)  # each pair by its own largest step


def test_the_sets_of_the_next_stage_count(evidence: Evidence) -> None:
    table = evidence.tables["rollback_frontier"]
    only = table[table["case"] == "all later stages"].assign(regained=99.0)
    other = pd.concat([table[table["case"] == "the next stage"], only])
    found = measured.rolled_back(replace(evidence, tables={"rollback_frontier": other}))
    assert found.value == pytest.approx(2 * SIZE)
