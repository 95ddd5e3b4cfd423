"""What the rules on C1 to C7 compare: short functions from the tables of a run to a value with its interval."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from crossdomain import pairs, stats
from crossdomain.evaluation import TEMPERATURE_1
from crossdomain.evidence import Evidence, NotTestableError
from crossdomain.route_sets import ROUTE_SHARE
from crossdomain.stats import Interval

LEVEL = 0.05  # of tests against noise, corrected for their number by Holm's method
DIRECTIONS = 64  # so many count as few


# --- C1 and C2: chapter 2 ---


def unchanged(evidence: Evidence) -> Interval:
    """C1: percent of the weights that the paper's two thresholds call unchanged, over the experts as trained."""
    table = evidence.table("02", "unchanged", "seed", "role", "kind", "subtraction", "share")
    experts = table[table["role"].str.endswith("expert")]
    return evidence.mean(experts[(experts["kind"] == "paper") & (experts["subtraction"] == "float32")], "share")


def edit_norm(evidence: Evidence) -> Interval:
    """C1: norm of the experts' edits in percent of that of the weights."""
    table = evidence.table("02", "edit_norms", "seed", "role", "relative_norm")
    return evidence.mean(table[table["role"].str.endswith("expert")], "relative_norm")


def unchanged_in_bfloat16(evidence: Evidence) -> Interval:
    """C1: the same share for training at the smallest learning rate whose weights are then stored as bfloat16."""
    table = evidence.table("02", "precision", "seed", "variant", "learning_rate", "unchanged")
    stored = table[table["variant"] == "float32, stored as bfloat16"]
    return evidence.mean(stored[stored["learning_rate"] == stored["learning_rate"].min()], "unchanged")


def neuron_overlap(evidence: Evidence, scope: Literal["global", "within layers"]) -> Interval:
    """C2: mean Jaccard of the top-changed neurons of two experts."""
    table = evidence.table("02", "neuron_overlap", "seed", "scope", "jaccard")
    return evidence.mean(table[table["scope"] == scope], "jaccard")


def neuron_overlap_to_own(evidence: Evidence) -> Interval:
    """C2: that overlap over the one that a domain has with itself under another seed of the same base."""
    table = evidence.table("02", "neuron_overlap", "seed", "scope", "jaccard")
    own = evidence.table("02", "neuron_stability", "seeds", "scope", "jaccard")
    between = table[table["scope"] == "global"].groupby("seed")["jaccard"].mean()
    ratios = {}
    for seeds, rows in own[own["scope"] == "global"].groupby("seeds"):
        both = [int(seed) for seed in str(seeds).split()]
        ratios[both[0]] = between.loc[both].mean() / rows["jaccard"].mean()
    return evidence.over_seeds(pd.Series(ratios, dtype=float))


# --- C3 to C5: chapter 3 ---


def gradient_cosine(evidence: Evidence) -> Interval:
    """C3: mean absolute cosine of two domains' gradients."""
    table = evidence.table("03", "gradient_pairs", "seed", "cosine")
    return evidence.mean(table.assign(size=table["cosine"].abs()), "size")


def gradient_ceiling(evidence: Evidence) -> Interval:
    """C3: what the cosine of a gradient's halves has beyond that, so that it is no noise that is orthogonal."""
    table = evidence.table("03", "gradient_pairs", "seed", "cosine", "split_half_a", "split_half_b")
    own = table[["split_half_a", "split_half_b"]].mean(axis=1)
    return evidence.mean(table.assign(gap=own - table["cosine"].abs()), "gap")


def modules_beyond_noise(evidence: Evidence, extreme: Literal["conflict", "synergy"]) -> Interval:
    """C3: share of the pairs whose most conflicting (synergistic) matrix is beyond noise, by Holm over a seed's tests."""
    table = evidence.table("03", "gradient_extremes", "seed", "extreme", "p")
    corrected = table.groupby("seed")["p"].transform(stats.holm)
    found = table.assign(beyond=(corrected <= LEVEL).astype(float))
    return evidence.mean(found[found["extreme"] == extreme], "beyond")


def lost(evidence: Evidence) -> pd.Series:
    """Points of the refreshed domain that the later stages took, by seed."""
    changes, titles = score_changes(evidence), evidence.titles()
    rows = changes[changes["step"].isin([titles[domain] for domain in evidence.later()])]
    return -rows[rows["domain"] == evidence.profile.refresh].groupby("seed")["change"].sum()


def damage_by_later_stages(evidence: Evidence) -> Interval:
    """C3: that loss, over seeds."""
    return evidence.over_seeds(lost(evidence))


def score_changes(evidence: Evidence) -> pd.DataFrame:
    """Chapter 1's changes of test scores at T = 1."""
    table = evidence.table("01", "changes", "step", "seed", "domain", "split", "decoding", "change")
    return table[(table["split"] == "test") & (table["decoding"] == TEMPERATURE_1)]


def _route_overlap(evidence: Evidence) -> pd.DataFrame:
    columns = ("seed", "at", "score", "kind", "share", "jaccard", "layer_chance", "layer_high")
    table = evidence.table("03", "route_overlap", *columns)
    return table[(table["share"] == ROUTE_SHARE) & (table["kind"] == "neuron")]


def route_overlap(evidence: Evidence, at: Literal["in the base", "after the sequence"]) -> Interval:
    """C4: mean Jaccard of two domains' active neurons over its chance value with layers kept, by contribution."""
    table = _route_overlap(evidence)
    return _to_chance(evidence, table[(table["at"] == at) & (table["score"] == "contribution")])


def route_overlap_by_other_scores(evidence: Evidence) -> Interval:
    """C4: the same after the sequence, by whichever other score finds least."""
    table = _route_overlap(evidence)
    others = table[(table["at"] == "after the sequence") & (table["score"] != "contribution")]
    found = [_to_chance(evidence, rows) for _, rows in others.groupby("score")]
    return min(found, key=lambda interval: interval.value)


def routes_beyond_band(evidence: Evidence) -> Interval:
    """C4: share of the pairs beyond the 95 % band of random sets with as many neurons in every layer."""
    table = _route_overlap(evidence)
    rows = table[(table["at"] == "after the sequence") & (table["score"] == "contribution")]
    return evidence.mean(rows.assign(beyond=(rows["jaccard"] > rows["layer_high"]).astype(float)), "beyond")


def _to_chance(evidence: Evidence, rows: pd.DataFrame) -> Interval:
    means = rows.groupby("seed")[["jaccard", "layer_chance"]].mean()
    return evidence.over_seeds(means["jaccard"] / means["layer_chance"])


def direction_predicts(evidence: Evidence, beyond: str | None = None) -> Interval:
    """C5: rank correlation over a seed's ordered pairs of the damage with −cosine of the updates on the shared route.

    Pairs of which a predictor is not known (the cosine of an update that is zero) are left out, as in chapter 3.

    Args:
        evidence: of the run.
        beyond: a control predictor, whose correlation is subtracted.
    """
    damage = evidence.table("03", "pair_damage", "seed", "a", "b", "damage")
    predictors = ["route_update_conflict", *([beyond] if beyond else [])]
    known = evidence.table("03", "pair_predictors", "seed", "a", "b", *predictors)
    table = damage.merge(known, on=["seed", "a", "b"], validate="one_to_one").dropna(subset=predictors)
    found = {
        name: pd.Series({seed: pairs.spearman(rows[name], rows["damage"]) for seed, rows in table.groupby("seed")})
        for name in predictors
    }
    return evidence.over_seeds(found["route_update_conflict"] - (found[beyond] if beyond else 0.0))


def directions_beyond_random_routes(evidence: Evidence) -> Interval:
    """C5: share of pairs of experts whose cosine on the shared route lies outside the 95 % band of random routes."""
    columns = ("seed", "of", "on_route", "random_low", "random_high")
    table = evidence.table("03", "update_directions", *columns).query("of == 'experts'")
    inside = table["on_route"].between(table["random_low"], table["random_high"])
    return evidence.mean(table.assign(outside=(~inside).astype(float)), "outside")


# --- C6 and C7: chapter 4 ---


def _whole_update(evidence: Evidence) -> pd.DataFrame:
    """The expansion of the whole update for the reward (not the divergence), indexed by seed."""
    table = evidence.table("04", "damage_path", "seed", "t", "objective", "first", "second", "actual", "remainder")
    rows: pd.DataFrame = table[(table["t"] == 1) & (table["objective"] == table["objective"].iloc[0])]
    return rows.set_index("seed")


def second_beyond_first(evidence: Evidence) -> Interval:
    """C6: size of the second-order term less that of the first-order term, in points of expected reward."""
    found = _whole_update(evidence)
    return evidence.over_seeds(100 * (found["second"].abs() - found["first"].abs()))


def expansion_error(evidence: Evidence) -> Interval:
    """C6: what the two terms leave of the actual damage, in percent of it."""
    found = _whole_update(evidence)
    return evidence.over_seeds(100 * found["remainder"].abs() / found["actual"].abs())


def damage_beyond_random(evidence: Evidence) -> Interval:
    """C6: actual damage less that of updates without direction but with the same norms, whichever do more, in points."""
    found = _whole_update(evidence)
    controls = evidence.table("04", "damage_controls", "seed", "direction", "actual")
    rows = controls[controls["direction"].isin(["random, same norms", "same entries, shuffled"])]
    most = rows.groupby(["seed", "direction"])["actual"].mean().groupby("seed").max()
    return evidence.over_seeds(100 * (found["actual"] - most))


def _captured(evidence: Evidence, subspace: str) -> pd.DataFrame:
    """What `DIRECTIONS` directions hold of the quadratic form and, alone, of the damage, by seed."""
    columns = ("seed", "subspace", "k", "quadratic_share", "inside", "actual")
    table = evidence.table("04", "concentration_captured", *columns)
    if (most := table["k"].max()) < DIRECTIONS:
        raise NotTestableError(f"{most} directions of the Hessian were computed, which says little of {DIRECTIONS}")
    few = table[(table["k"] == DIRECTIONS) & (table["subspace"] == subspace)]
    rows = few.assign(alone=few["inside"] / few["actual"])
    return pd.DataFrame(rows.groupby("seed")[["quadratic_share", "alone"]].mean())


def captured(evidence: Evidence, subspace: str, column: Literal["quadratic_share", "alone"]) -> Interval:
    """C7: share of δᵀHδ, or of the damage when moved along alone, in few leading directions of a subspace."""
    return evidence.over_seeds(_captured(evidence, subspace)[column])


def captured_beyond(evidence: Evidence, control: str) -> Interval:
    """C7: share of δᵀHδ in few leading directions of all parameters, less that in as many of a control."""
    found = _captured(evidence, "all parameters")["quadratic_share"]
    return evidence.over_seeds(found - _captured(evidence, control)["quadratic_share"])
