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

from crossdomain import (
    directions,
    edits,
    evaluation,
    measurements,
    overlap,
    pathways,
    route_sets,
    routes,
    sparsity,
    stats,
)
from crossdomain.lineage import BASE, Lineage
from crossdomain.pathways import GRADIENT_CODE, GRADIENT_SETTINGS, gradient_grams, pick, update_grams
from crossdomain.route_sets import active_routes
from crossdomain.sparsity import neuron_overlaps, step_edits
from crossdomain.staging import expert_names

# Predictors of damage, each turned so that more of it should mean more damage.
PREDICTORS = {
    "gradient_conflict": "gradients: −cosine",
    "route_gradient_conflict": "gradients on the shared route: −cosine",
    "edit_overlap": "overlap of top-changed neurons",
    "route_overlap": "overlap of routes",
    "update_conflict": "experts' updates: −cosine",
    "route_update_conflict": "experts' updates on the shared route: −cosine",
    "update_norm": "size of B's update alone (control)",
}
CONTROL = "update_norm"


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


def predictors(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """What is known of a pair before B is trained after A: a row a seed and ordered pair, a column each of `PREDICTORS`."""
    return measurements.stacked(lineages, _predictors)["predictors"]


def _predictors(lineage: Lineage) -> dict[str, pd.DataFrame]:
    domains = expert_names(lineage)
    steps = {name: (BASE, alone(lineage, name)) for name in domains}

    def compute() -> measurements.Tables:
        updates = update_grams(lineage, "alone", steps).values
        cosine = directions.cosines(updates.total())
        neurons = pd.concat([step_edits(lineage, BASE, name)["neurons"].assign(role=name, seed=0) for name in domains])
        edited = neuron_overlaps(neurons, domains).query("scope == 'global'")
        edit_overlap = {frozenset((row.a, row.b)): row.jaccard for row in edited.itertuples()}
        gradients = {name: gradient_grams(lineage, name).means for name in domains}
        active = {name: active_routes(lineage, name) for name in domains}
        rows = []
        for a, b in ordered(lineage):
            at = updates.labels.index(a), updates.labels.index(b)
            gradient, known = gradients[a], active[a]
            route = routes.shared(known[a], known[b])
            gradient_on, update_on = (directions.on_route(grams, route)[0] for grams in (gradient, updates))
            neuron = known[a].index.get_level_values("kind") == routes.NEURON
            rows.append(
                {
                    "a": a,
                    "b": b,
                    "gradient_conflict": -pick(directions.cosines(gradient.total(matrices=True)), at),
                    "route_gradient_conflict": -pick(directions.cosines(gradient_on), at),
                    "edit_overlap": edit_overlap[frozenset((a, b))],
                    "route_overlap": overlap.jaccard(known[a].to_numpy()[neuron], known[b].to_numpy()[neuron]),
                    "update_conflict": -pick(cosine, at),
                    "route_update_conflict": -pick(directions.cosines(update_on), at),
                    "update_norm": float(np.sqrt(updates.total()[at[1], at[1]])),
                }
            )
        return {"predictors": pd.DataFrame(rows)}

    return measurements.tables(
        lineage,
        "pair-predictors",
        compute,
        checkpoints=[*domains, *(name for step in steps.values() for name in step)],
        settings={**lineage.profile.subset(*GRADIENT_SETTINGS, *route_sets.SETTINGS), "seed": lineage.seed},
        domains=domains,
        code=[*GRADIENT_CODE, *route_sets.CODE, route_sets, edits, sparsity, pathways, __name__],
    )


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
    ranks = scipy_stats.rankdata(np.stack([x, y]), axis=1)
    return float(np.corrcoef(ranks)[1, 0])  # scipy's spearmanr to the bit, in half the time


def _over_pairs(x: np.ndarray, y: np.ndarray, resamples: int = 2000) -> stats.Interval:
    """The correlation with a percentile bootstrap over pairs; since pairs share domains, it is rather too narrow."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(x), size=(resamples, len(x)))
    found = np.array([spearman(x[draw], y[draw]) for draw in draws])
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return stats.Interval(spearman(x, y), float(low), float(high))
