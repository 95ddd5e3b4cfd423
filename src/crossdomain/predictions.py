"""Chapter 4: whether the expansion tells, from the experts alone, who will hurt whom."""

from __future__ import annotations

import numpy as np
import pandas as pd

from crossdomain import damage, measurements, pairs
from crossdomain.lineage import BASE, Lineage
from crossdomain.second_order import divergence_of, kept, loss_of, point, update
from crossdomain.staging import expert_names

LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)

# What this chapter adds to the predictors of chapter 3.
PREDICTORS = {
    "predicted": "second-order expansion, gᵀδ + ½ δᵀHδ",
    "second": "½ δᵀHδ alone",
    "divergence": "½ δᵀFδ (no reward needed)",
    "added": "adding B's update to A's expert (control: no expansion)",
}


def predictions(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """The damage of every ordered pair, predicted at A's expert from B's expert alone.

    Returns:
        `pairs`: a row a pair `a`, `b`: `first`, `second`, `predicted` (their sum) on A's training prompts; `divergence`,
        ½ δᵀFδ for the KL objective, which needs no reward; `added`, the actual damage of adding B's update to A's expert,
        on test prompts.
        `lengths`: a row a pair and multiple `t` of B's update: the rows of `damage.taylor_damage` on test prompts.
    """
    domains = expert_names(lineage)

    def compute() -> measurements.Tables:
        alone = {b: update(lineage, BASE, pairs.alone(lineage, b)) for b in domains}
        rows, lengths = [], []
        for a in domains:
            at = point(lineage, a)
            chosen, reported = (loss_of(lineage, a, at, a, split) for split in ("train", "test"))
            around = damage.Local(chosen, at.params)
            divergence = damage.Local(divergence_of(lineage, a, at, a, "train"), at.params)
            for b in domains:
                if b == a:
                    continue
                terms = around.expansion(alone[b])
                along = damage.taylor_damage(reported, at.params, alone[b], LENGTHS).assign(a=a, b=b)
                lengths.append(along)
                rows.append(
                    {
                        "a": a,
                        "b": b,
                        "first": terms.first,
                        "second": terms.second,
                        "predicted": terms.first + terms.second,
                        "divergence": divergence.second_order(alone[b]),
                        "added": float(along.loc[along["t"] == 1, "actual"].iloc[0]),
                    }
                )
        return {"pairs": pd.DataFrame(rows), "lengths": pd.concat(lengths, ignore_index=True)}

    checkpoints = [BASE, *domains, *(pairs.alone(lineage, b) for b in domains)]
    return kept(lineage, "damage-pairs", checkpoints, compute, __name__)


def ranking_by_length(lengths: pd.DataFrame) -> pd.DataFrame:
    """How well the quadratic model ranks the damages of tδ over all pairs: a row a seed and `t`.

    Returns:
        `correlation`, Spearman's between predicted and actual damage, and `error`, the median of |actual − predicted| over
        |actual|.
    """
    rows = []
    for (seed, t), part in lengths.groupby(["seed", "t"]):
        moved = part[part["actual"] != 0]
        error = (moved["remainder"].abs() / moved["actual"].abs()).median() if len(moved) else np.nan
        correlation = pairs.spearman(part["predicted"], part["actual"])
        rows.append({"seed": seed, "t": t, "correlation": correlation, "error": float(error)})
    return pd.DataFrame(rows)
