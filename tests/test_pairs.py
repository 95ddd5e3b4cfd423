"""Ordered pairs of domains: names, measured damage, and how well predictors rank it."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from crossdomain import pairs
from crossdomain.lineage import Lineage
from crossdomain.profiles import load_profile
from crossdomain.store import Store


def table(seeds: int, **columns: list[float]) -> pd.DataFrame:
    keys = [(s, a, b) for s in range(seeds) for a in "wxyz" for b in "wxyz" if a != b]
    return pd.DataFrame(keys, columns=["seed", "a", "b"]).assign(**columns)


def test_all_ordered_pairs_are_named_by_what_they_are_trained_on(store: Store) -> None:
    lineage = Lineage(load_profile("cpu"), 0, store)
    assert len(pairs.ordered(lineage)) == 12 and ("math", "qa") in pairs.ordered(lineage)
    assert pairs.after(lineage, "math", "qa") == "math-qa_15"
    assert lineage.stage("math-qa_15").steps == 15 and lineage.stage("math-qa_30").parent == "math"


def test_the_second_domain_alone_is_a_snapshot_where_one_was_kept(store: Store) -> None:
    assert pairs.alone(Lineage(load_profile("cpu"), 0, store), "qa") == "qa@15"
    assert pairs.alone(Lineage(load_profile("cpu", "pair_steps=40"), 0, store), "qa") == "qa_40"
    assert pairs.alone(Lineage(load_profile("cpu", "pair_steps=120"), 0, store), "qa") == "qa_120"


def test_rank_correlations_are_means_over_seeds() -> None:
    rng = np.random.default_rng(0)
    damage = table(3, damage=rng.normal(size=36).tolist())
    predictors = table(3, same=damage["damage"].tolist(), noise=rng.normal(size=36).tolist())
    found = pairs.rank_correlations(damage, predictors.sample(frac=1, random_state=0), ["same", "noise"])
    found = found.set_index("predictor")
    assert found.loc["same", "correlation"] == pytest.approx(1) and found.loc["same", "pairs"] == 12
    expected = [
        spearmanr(damage["damage"][12 * s : 12 * s + 12], predictors["noise"][12 * s : 12 * s + 12]).statistic
        for s in range(3)
    ]
    assert found.loc["noise", "correlation"] == pytest.approx(np.mean(expected))
    assert found.loc["noise", "smallest"] == pytest.approx(min(expected))
    assert found.loc["noise", "low"] < found.loc["noise", "correlation"] < found.loc["noise", "high"]


def test_one_seed_has_an_interval_over_its_pairs() -> None:
    rng = np.random.default_rng(1)
    damage = table(1, damage=rng.normal(size=12).tolist())
    predictors = table(1, near=(damage["damage"] + 0.5 * rng.normal(size=12)).tolist())
    row = pairs.rank_correlations(damage, predictors, ["near"]).iloc[0]
    assert -1 <= row["low"] < row["correlation"] < row["high"] <= 1


def test_a_predictor_that_does_not_vary_predicts_nothing() -> None:
    damage = table(1, damage=list(range(12)))
    assert pairs.rank_correlations(damage, table(1, flat=[1.0] * 12), ["flat"]).empty
