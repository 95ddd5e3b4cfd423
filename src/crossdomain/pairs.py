"""All ordered pairs of domains: what training B after A does to A, and what could have told so before (C3 to C5).

The policy is trained on A (A's expert) and then, for `pair_steps`, on B. Predictors use the experts and the policy after A,
nothing that was trained on B after A.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from crossdomain import evaluation, stats
from crossdomain.lineage import Lineage
from crossdomain.staging import expert_names


def ordered(lineage: Lineage) -> list[tuple[str, str]]:
    """The ordered pairs (A, B) of the run's domains."""
    return list(permutations(expert_names(lineage), 2))


def after(lineage: Lineage, a: str, b: str) -> str:
    """Name of the checkpoint after A and then B."""
    return f"{a}-{b}_{lineage.profile.pair_steps}"


def alone(lineage: Lineage, b: str) -> str:
    """Name of the checkpoint of B trained on the base for as many steps: a snapshot of its expert where one was kept."""
    steps, stage = lineage.profile.pair_steps, lineage.stage(b)
    kept = steps < stage.steps and steps % stage.snapshot_every == 0
    return f"{b}@{steps}" if kept else f"{b}_{steps}"


def damages(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """Measured damage of every pair: what B takes from A's score at temperature 1, on A's test prompts.

    Returns:
        A row a seed and pair: `seed`, `a`, `b`, `damage` with its interval `low`, `high` over prompts and `gain` of B, in
        points.
    """
    rows = []
    for lineage in lineages:
        for a, b in ordered(lineage):
            name = after(lineage, a, b)
            before, later = (evaluation.test_scores(lineage, checkpoint, [a, b]) for checkpoint in (a, name))
            interval = stats.paired_difference(100 * before[a], 100 * later[a], lineage.profile.bootstrap)
            rows.append(
                {
                    "seed": lineage.seed,
                    "a": a,
                    "b": b,
                    "damage": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "gain": 100 * float(later[b].mean() - before[b].mean()),
                }
            )
    return pd.DataFrame(rows)


def rank_correlations(damage: pd.DataFrame, predictors: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Spearman's rank correlation of each predictor with the damage over the pairs of a seed.

    Args:
        damage: a row a `seed`, `a`, `b`, with `damage`.
        predictors: the same rows, with a column a predictor.
        names: of the predictors.

    Returns:
        A row a predictor: `predictor`, `correlation`, the mean over seeds, with its interval `low`, `high` over seeds, or
        over pairs (bootstrap) where there is one seed; `smallest`, `largest` over seeds; `pairs` of a seed.
    """
    table = damage.merge(predictors, on=["seed", "a", "b"], validate="one_to_one")
    rows = []
    for name in names:
        known = table.dropna(subset=[name])
        by_seed = [spearman(part[name], part["damage"]) for _, part in known.groupby("seed")]
        found = [value for value in by_seed if np.isfinite(value)]
        if not found:
            continue
        interval = stats.seed_mean(found)
        if len(by_seed) == 1:
            interval = _over_pairs(known[name].to_numpy(), known["damage"].to_numpy())
        rows.append(
            {
                "predictor": name,
                "correlation": interval.value,
                "low": interval.low,
                "high": interval.high,
                "smallest": min(found),
                "largest": max(found),
                "pairs": len(known) // len(by_seed),
            }
        )
    return pd.DataFrame(rows)


def spearman(x: pd.Series | np.ndarray, y: pd.Series | np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one side does not vary or there are fewer than three values."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(scipy_stats.spearmanr(x, y).statistic)


def _over_pairs(x: np.ndarray, y: np.ndarray, resamples: int = 2000) -> stats.Interval:
    """The correlation with a percentile bootstrap over pairs; since pairs share domains, it is rather too narrow."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(x), size=(resamples, len(x)))
    found = np.array([spearman(x[draw], y[draw]) for draw in draws])
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return stats.Interval(spearman(x, y), float(low), float(high))
