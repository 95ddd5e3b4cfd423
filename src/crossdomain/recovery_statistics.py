"""What the rules on C8 to C11 compare: short functions from the tables of a run to a value with its interval."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from crossdomain import alternating, recovery, rollback_sets
from crossdomain.evaluation import TEMPERATURE_1
from crossdomain.evidence import Evidence
from crossdomain.interference_statistics import lost, score_changes
from crossdomain.stats import Interval

SPARSE = 10.0  # percent of the parameters: the largest set that still counts as sparse


# --- C8: chapter 5 ---


def _left(rows: pd.DataFrame) -> pd.Series:
    """‖P(θ_T − θ_A)‖ over ‖Pδ‖, by seed."""
    norms = rows.sort_values("step").groupby("seed")["inside"]
    return pd.Series(norms.last() / norms.first())


def _most(table: pd.DataFrame, space: str) -> pd.DataFrame:
    """The rows of a subspace with its most directions."""
    rows = table[table["space"] == space]
    most: pd.DataFrame = rows[rows["k"] == rows["k"].max()]
    return most


def _descents(evidence: Evidence, space: str) -> dict[str, pd.DataFrame]:
    """The descents at α = 1/λ_max in a subspace, by domain: the refreshed one, and others in steps as long."""
    columns = ("seed", "on", "multiple", "space", "k", "step", "inside", "paper_bound")
    table = evidence.table("05", "refresh_contraction", *columns)
    rows = _most(table[table["multiple"] == recovery.MATCHED], space)
    return {str(domain): part for domain, part in rows.groupby("on")}


def harm_left(evidence: Evidence, space: str, beyond: Literal["", "random", "others"] = "") -> Interval:
    """C8: ‖P(θ_T − θ_A)‖ over ‖Pδ‖ after gradient descent at α = 1/λ_max.

    Args:
        evidence: of the run.
        space: that P projects on.
        beyond: a control whose share is subtracted: that of `random` directions, or under descent on the loss of
            `others` in steps as long, whichever leaves least.
    """
    own, descents = evidence.profile.refresh, _descents(evidence, space)
    left = _left(descents[own])
    if beyond == "random":
        left = left - _left(_descents(evidence, recovery.RANDOM)[own])
    if beyond == "others":
        others = {on: _left(rows) for on, rows in descents.items() if on != own}
        left = left - pd.DataFrame(others, index=left.index).min(axis=1)  # unknown where no other domain is descended
    return evidence.over_seeds(left)


def harm_to_bound(evidence: Evidence) -> Interval:
    """C8: that norm over the paper's bound (1 − αμ)ᵀ‖Pδ‖, on leading directions of all parameters."""
    rows = _descents(evidence, recovery.WHOLE)[evidence.profile.refresh]
    last = rows[rows["step"] == rows["step"].max()].set_index("seed")
    return evidence.over_seeds(last["inside"] / last["paper_bound"])


def harm_left_by_grpo(evidence: Evidence) -> Interval:
    """C8: the share left by the refresh as trained, on leading directions of all parameters."""
    table = evidence.table("05", "refresh_grpo", "seed", "own", "space", "k", "step", "inside")
    return evidence.over_seeds(_left(_most(table[table["own"]], recovery.WHOLE)))


# --- C9: chapter 1 ---


def _steps(evidence: Evidence) -> dict[str, str]:
    """The step of each refresh, by its domain."""
    evidence.later()  # there are refreshes where there are later stages
    own, titles = evidence.profile.refresh, evidence.titles()
    return {d: f"{'' if d == own else 'control: '}refresh {titles[d]}" for d in dict.fromkeys(evidence.profile.stages)}


def gain(evidence: Evidence, beyond: str | None = None) -> Interval:
    """C9: points that the refresh gives its domain, paired over the same prompts.

    Args:
        evidence: of the run.
        beyond: the step of a control, whose gain is subtracted; `others` for whichever refresh of another domain gives
            a seed most.
    """
    steps = _steps(evidence)
    table = evidence.table("01", "refresh_by_prompt", "step", "seed", "item", "change")
    wide = {
        str(step): rows.pivot(index="seed", columns="item", values="change") for step, rows in table.groupby("step")
    }
    found = wide[steps[evidence.profile.refresh]]
    if beyond == "others":
        others = [wide[step] for domain, step in steps.items() if domain != evidence.profile.refresh]
        most = np.argmax([rows.mean(axis=1) for rows in others], axis=0)
        control = pd.DataFrame([others[k].loc[seed] for k, seed in zip(most, found.index, strict=True)])
        return evidence.over_seeds(found - control)
    return evidence.over_seeds(found - wide[beyond] if beyond else found)


def _refreshed(evidence: Evidence) -> pd.DataFrame:
    """The refresh's changes of all domains."""
    changes = score_changes(evidence)
    return changes[changes["step"] == _steps(evidence)[evidence.profile.refresh]]


def regained(evidence: Evidence) -> Interval:
    """C9: points gained by the refresh beyond half of those lost to the later stages."""
    rows = _refreshed(evidence)
    gained = rows[rows["domain"] == evidence.profile.refresh].set_index("seed")["change"]
    return evidence.over_seeds(gained - lost(evidence) / 2)


def collateral(evidence: Evidence) -> Interval:
    """C9: mean change of the other domains under the refresh, in points."""
    rows = _refreshed(evidence)
    return evidence.mean(rows[rows["domain"] != evidence.profile.refresh], "change")


def best_average(evidence: Evidence) -> Interval:
    """C9: average over domains after the refresh, less the best of the sequence's and the other refreshes', in points."""
    table = evidence.table("01", "scores", "role", "seed", "domain", "split", "decoding", "score")
    rows = table[(table["split"] == "test") & (table["decoding"] == TEMPERATURE_1)]
    average = rows.groupby(["seed", "role"])["score"].mean().unstack()
    own = _steps(evidence)[evidence.profile.refresh]
    refreshes = [step for step in _steps(evidence).values() if step != own]
    rivals = ["base", *(role for role in map(str, average) if role.startswith("after ")), *refreshes]
    return evidence.over_seeds(average[own] - average[rivals].max(axis=1))


# --- C10: chapter 6 ---


def _rolled_back(evidence: Evidence, percent: float) -> dict[str, pd.DataFrame]:
    """What sets of one size give the hurt domain and cost the next one, by score, indexed by seed."""
    columns = ("seed", "case", "score", "percent", "share", "regained", "lost")
    table = evidence.table("06", "rollback_frontier", *columns)
    rows = table[(table["case"] == rollback_sets.NEXT) & (table["percent"] == percent) & (table["share"] == 1)]
    return {str(score): part.set_index("seed") for score, part in rows.groupby("score")}


def rolled_back(evidence: Evidence, percent: float = SPARSE, beyond: str = "") -> Interval:
    """C10: points that the hurt domain regains when the next stage's update is taken back on the Fisher's coordinates.

    Args:
        evidence: of the run.
        percent: of the parameters that are taken back.
        beyond: the score of a control of that size, whose points are subtracted.
    """
    found = _rolled_back(evidence, percent)
    regained = found[rollback_sets.FISHER]["regained"]
    return evidence.over_seeds(regained - found[beyond]["regained"] if beyond else regained)


def rolled_back_of_damage(evidence: Evidence) -> Interval:
    """C10: those points beyond a quarter of what the next stage took."""
    table = evidence.table("06", "rollback_damages", "seed", "case", "damage")
    damage = table[table["case"] == rollback_sets.NEXT].set_index("seed")["damage"]
    regained = _rolled_back(evidence, SPARSE)[rollback_sets.FISHER]["regained"]
    return evidence.over_seeds(regained - damage / 4)


def rolled_back_net(evidence: Evidence) -> Interval:
    """C10: those points, less what the next stage's domain loses."""
    found = _rolled_back(evidence, SPARSE)[rollback_sets.FISHER]
    return evidence.over_seeds(found["regained"] - found["lost"])


# --- C11: chapter 7 ---


def _deviations(evidence: Evidence, name: str, *columns: str) -> pd.DataFrame:
    """What ends of two steps differ from the joint step without correction, in the parameters: rows by `order`."""
    table = evidence.table("07", name, "seed", "a", "b", "order", "corrected", "quantity", *columns)
    rows: pd.DataFrame = table[~table["corrected"] & (table["quantity"] == alternating.PARAMETERS)]
    return rows


def _at_the_largest_step(evidence: Evidence) -> pd.DataFrame:
    """Distances of two steps' ends from the joint step relative to it, mean over pairs: rows by seed, columns by order."""
    rows = _deviations(evidence, "alternating_deviations", "alpha", "relative")
    largest = rows["alpha"] == rows.groupby(["seed", "a", "b"])["alpha"].transform("max")
    return rows[largest].pivot_table("relative", "seed", "order")


def cycle_deviation(evidence: Evidence) -> Interval:
    """C11: how far one cycle with the largest steps ends from the joint step, in percent of that step."""
    return evidence.over_seeds(100 * _at_the_largest_step(evidence)[alternating.A_FIRST])


def cycle_to_one_loss(evidence: Evidence) -> Interval:
    """C11: that distance over the one of two steps on one of the losses alone, whichever is nearer."""
    found = _at_the_largest_step(evidence)
    return evidence.over_seeds(
        found[alternating.A_FIRST] / found[[alternating.A_ALONE, alternating.B_ALONE]].min(axis=1)
    )


def deviation_order(evidence: Evidence) -> Interval:
    """C11: the order in α of a cycle's distance from the joint step, mean over pairs."""
    rows = _deviations(evidence, "alternating_orders", "slope")
    return evidence.mean(rows[rows["order"] == alternating.A_FIRST], "slope")


def _falls(evidence: Evidence) -> pd.DataFrame:
    """What descending on two losses takes off each in all, in points on test prompts, a row a seed and `way`."""
    table = evidence.table("07", "alternating_descents", "seed", "way", "cycle", "held_out_a", "held_out_b")
    losses = table.sort_values("cycle").groupby(["seed", "way"])[["held_out_a", "held_out_b"]]
    return 100 * (losses.first() - losses.last())


def least_fall(evidence: Evidence) -> Interval:
    """C11: what alternation takes off whichever of the two losses it takes less off, in points on test prompts."""
    return evidence.over_seeds(_falls(evidence).min(axis=1).unstack("way")[alternating.A_FIRST])


def fall_to_joint(evidence: Evidence) -> Interval:
    """C11: what alternation takes off the sum of both losses over what as many joint steps do."""
    both = _falls(evidence).sum(axis=1).unstack("way")
    return evidence.over_seeds(both[alternating.A_FIRST] / both[alternating.JOINT])


def fall_beyond_one(evidence: Evidence) -> Interval:
    """C11: what alternation takes off that sum, less what as many steps on one of the losses alone do, at best."""
    both = _falls(evidence).sum(axis=1).unstack("way")
    return evidence.over_seeds(both[alternating.A_FIRST] - both[[alternating.A_ALONE, alternating.B_ALONE]].max(axis=1))


def stationarity_left(evidence: Evidence) -> Interval:
    """C11: norm of the shortest convex combination of the two gradients after alternation over that before."""
    table = evidence.table("07", "alternating_descents", "seed", "way", "cycle", "min_norm")
    norms = table[table["way"] == alternating.A_FIRST].sort_values("cycle").groupby("seed")["min_norm"]
    return evidence.over_seeds(norms.last() / norms.first())
