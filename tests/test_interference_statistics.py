"""What the rules on C1 to C7 compare, on tables whose values are known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crossdomain import interference_statistics as measured
from crossdomain.evidence import Evidence, NotTestableError
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
        (measured.edit_norm, 2 * SIZE),
        (measured.unchanged, 85),
        (measured.unchanged_in_bfloat16, 88),
        (measured.gradient_cosine, 0.02 * SIZE),
        (measured.gradient_ceiling, 0.5 - 0.02 * SIZE),
        (measured.damage_by_later_stages, 9 * SIZE),
        (measured.routes_beyond_band, 1),
        (measured.direction_predicts, 1),
        (measured.directions_beyond_random_routes, 1),
        (measured.second_beyond_first, 100 * (0.08 * SIZE - 0.01)),
        (measured.damage_beyond_random, 100 * (0.1 - 0.005) * SIZE),
    ],
)
def test_statistics_are_means_over_seeds(
    evidence: Evidence, statistic: Callable[[Evidence], Interval], value: float
) -> None:
    found = statistic(evidence)
    assert found.value == pytest.approx(value)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9


def test_the_overlap_is_compared_with_that_of_the_same_pair_of_seeds(evidence: Evidence) -> None:
    own = changed(evidence.tables["neuron_stability"], "jaccard", 0.4, seeds="6 7")
    found = measured.neuron_overlap_to_own(replace(evidence, tables={**evidence.tables, "neuron_stability": own}))
    assert found.value == pytest.approx((0.1045 / 0.8 + 0.1065 / 0.4) / 2)


def test_extremes_count_only_beyond_all_tests_of_their_seed(evidence: Evidence) -> None:
    p = pd.DataFrame(
        {"seed": 3, "extreme": ["conflict"] * 3 + ["synergy"] * 3, "p": [0.001, 0.02, 0.5, 0.009, 0.03, 0.6]}
    )
    found = replace(evidence, tables={"gradient_extremes": p})
    assert measured.modules_beyond_noise(found, "conflict").value == pytest.approx(1 / 3)  # 0.02 · 4 > 0.05
    assert measured.modules_beyond_noise(found, "synergy").value == pytest.approx(1 / 3)  # 0.009 · 5 < 0.05


def test_the_least_favourable_other_score_counts(evidence: Evidence) -> None:
    table = changed(evidence.tables["route_overlap"], "jaccard", 0.04, score="activation")
    found = measured.route_overlap_by_other_scores(replace(evidence, tables={"route_overlap": table}))
    assert found.value == pytest.approx(0.5)


def test_a_predictor_is_compared_with_its_control_seed_by_seed(evidence: Evidence) -> None:
    alone, size = measured.direction_predicts(evidence), measured.direction_predicts(evidence, beyond="update_norm")
    order = np.arange(12)
    control = np.corrcoef(order, (7 * order) % 12)[0, 1]  # ranks without ties: Spearman's is Pearson's
    assert alone.value - size.value == pytest.approx(control)


def test_pairs_without_a_cosine_are_left_out_and_their_seed_is_not(evidence: Evidence) -> None:
    predictors, damage = evidence.tables["pair_predictors"], evidence.tables["pair_damage"]
    unknown = (predictors["seed"] == 3) & ((predictors["a"] == "qa") | (predictors["b"] == "qa"))
    cosines = predictors.assign(route_update_conflict=predictors["route_update_conflict"].mask(unknown))
    found = replace(evidence, tables={**evidence.tables, "pair_predictors": cosines})
    kept = predictors.merge(damage, on=["seed", "a", "b"])[~unknown]
    control = [rows["update_norm"].corr(rows["damage"], method="spearman") for _, rows in kept.groupby("seed")]
    assert len(control) == 5
    assert measured.direction_predicts(found, beyond="update_norm").value == pytest.approx(1 - np.mean(control))


def test_at_most_as_many_directions_count_as_are_few(evidence: Evidence) -> None:
    table = evidence.tables["concentration_captured"]
    more = table[table["k"] == 64].assign(k=128, quadratic_share=0.99)
    found = replace(evidence, tables={"concentration_captured": pd.concat([table, more])})
    assert measured.captured(found, "route", "quadratic_share").value == pytest.approx(0.6)
    assert measured.captured_beyond(found, "random").value == pytest.approx(0.8 - 0.001)


def test_few_directions_say_nothing_of_as_many_as_the_claim_is_about(evidence: Evidence) -> None:
    table = evidence.tables["concentration_captured"]
    found = replace(evidence, tables={"concentration_captured": table[table["k"] == 8]})
    with pytest.raises(NotTestableError, match="8 directions of the Hessian were computed, which says little of 64"):
        measured.captured(found, "route", "quadratic_share")


def test_without_later_stages_nothing_was_lost(evidence: Evidence) -> None:
    with pytest.raises(NotTestableError, match="no stage follows"):
        measured.damage_by_later_stages(replace(evidence, profile=load_profile("cpu", "stages=code,math")))
