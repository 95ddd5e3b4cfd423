"""Chapter 6's tables turned: what A regains against what the others lose, by score, size and seed (C10)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from crossdomain.pairs import spearman

ALLOWED = 1.0  # points that the others may lose, where one number is wanted
CASE = ["seed", "case"]
SET = ["score", "percent", "share"]


def frontier(measured: pd.DataFrame, domain: str) -> pd.DataFrame:
    """What A regains and the others lose, means over random draws.

    Args:
        measured: rows of `rollback_effects.rolled_back`, with `seed` and `case`.
        domain: A.

    Returns:
        A row a seed, `case`, `score`, `percent` and `share`: `regained` by A and `lost` by the others, mean over domains,
        in points; the same on every other prompt, `regained_0` … `lost_1`; `coordinates`, `norm_share`.
    """
    keys, changes = [*CASE, *SET], ["change", "change_0", "change_1"]
    own = measured["domain"] == domain
    regained = measured[own].groupby(keys, sort=False)[[*changes, "coordinates", "norm_share"]].mean()
    lost = -measured[~own].groupby(keys, sort=False)[changes].mean()
    named = [
        table.rename(columns={change: change.replace("change", name) for change in changes})
        for name, table in (("regained", regained), ("lost", lost))
    ]
    return pd.concat(named, axis=1).reset_index()


def damages(levels: pd.DataFrame, domain: str) -> pd.DataFrame:
    """What δ took from A and gave the others (mean): a row a seed and `case`, `damage` and `gain` in points."""
    changed = levels.assign(gain=levels["after"] - levels["before"])
    own = changed["domain"] == domain
    damage = -changed[own].set_index(CASE)["gain"].rename("damage")
    return pd.concat([damage, changed[~own].groupby(CASE, sort=False)["gain"].mean()], axis=1).reset_index()


def within(front: pd.DataFrame, allowed: float = ALLOWED) -> pd.DataFrame:
    """What A regains at λ = 1 if the others may lose at most so much: one number a score.

    The size is chosen on one half of the prompts, the most regained among those that lose at most `allowed` there (none if
    all lose more), and reported on the other half: a size chosen where it is reported would owe some of it to chance.

    Returns:
        A row a seed, `case` and `score`: `regained`, `lost` in points and `percent` of the parameters (0: nothing is taken
        back), means over both ways.
    """
    rows = []
    whole = front[front["share"] == 1]
    for key, sizes in whole.groupby([*CASE, "score"], sort=False):
        found = [_chosen(sizes, half, allowed) for half in (0, 1)]
        regained, lost, percent = np.mean(found, axis=0)
        rows.append((*key, regained, lost, percent))
    return pd.DataFrame(rows, columns=[*CASE, "score", "regained", "lost", "percent"])


def _chosen(sizes: pd.DataFrame, half: int, allowed: float) -> tuple[float, float, float]:
    """Regained and lost on the other half, and the size that was chosen."""
    kept = sizes[(sizes[f"lost_{half}"] <= allowed) & (sizes[f"regained_{half}"] > 0)]
    if kept.empty:
        return 0.0, 0.0, 0.0
    best = kept.sort_values(f"regained_{half}", ascending=False, kind="stable").iloc[0]
    return float(best[f"regained_{1 - half}"]), float(best[f"lost_{1 - half}"]), float(best["percent"])


def varied(front: pd.DataFrame) -> pd.DataFrame:
    """The rows of the cases and sizes at which the share λ was varied, and of the scores it was varied for."""
    return front[front.groupby([*CASE, "score", "percent"])["share"].transform("nunique") > 1]


def beyond(front: pd.DataFrame, score: str, control: str) -> pd.DataFrame:
    """What a score regains and loses beyond a control with as many coordinates, at λ = 1.

    Returns:
        A row a seed, `case` and `percent`: `regained`, `lost`, differences in points.
    """
    at = [*CASE, "percent"]
    whole = front[front["share"] == 1]
    one, other = (whole[whole["score"] == name].set_index(at)[["regained", "lost"]] for name in (score, control))
    return (one - other).reset_index()


def efficient(regained: ArrayLike, lost: ArrayLike) -> NDArray[np.bool_]:
    """The Pareto front: which points no other one betters, regaining at least as much for at most the loss.

    Args:
        regained: shape (n,), more is better.
        lost: shape (n,), less is better.
    """
    gains, losses = np.asarray(regained, dtype=float), np.asarray(lost, dtype=float)
    no_worse = (gains[None] >= gains[:, None]) & (losses[None] <= losses[:, None])
    better = (gains[None] > gains[:, None]) | (losses[None] < losses[:, None])
    bettered: NDArray[np.bool_] = np.any(no_worse & better, axis=1, keepdims=True)
    return ~bettered[:, 0]


def agreement(predicted: pd.DataFrame) -> pd.DataFrame:
    """How well Proposition 4 tells what a rollback does to A's loss, over the sets and shares of a case.

    Returns:
        A row a seed and `case`: Spearman's correlation of the predicted with the actual change, `hessian` and `fisher`, and
        `error`, the median of |predicted − actual| / |actual| with the Hessian. The Fisher's is a divergence: it has none.
    """
    rows = []
    for key, part in predicted.groupby(CASE, sort=False):
        correlations = [spearman(part[by], part["actual"]) for by in ("hessian", "fisher")]
        moved = part[part["actual"] != 0]
        error = (moved["hessian"] - moved["actual"]).abs() / moved["actual"].abs()
        rows.append((*key, *correlations, float(error.median())))
    return pd.DataFrame(rows, columns=[*CASE, "hessian", "fisher", "error"])
