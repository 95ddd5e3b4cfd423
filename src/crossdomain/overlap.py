"""How much top sets share, beside what chance alone would give (C2, C4).

A set is a boolean mask over units (neurons, heads). Two sets that are drawn at random meet in a hypergeometric number of
units, so their Jaccard index has an exact expectation and exact quantiles. Sets can also agree only because both prefer
the same layers: the second null hypothesis keeps each set's number of units per layer and shuffles within layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from crossdomain.stats import LEVEL, Interval

Mask = NDArray[np.bool_]
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def top(scores: ArrayLike, share: float, within: ArrayLike | None = None) -> Mask:
    """The share of units with the largest scores: round(share · n) of them, at least one; ties go to the lower index.

    Args:
        scores: one finite number a unit, shape (units,).
        share: in (0, 1).
        within: a group label a unit (its layer), shape (units,): the share is then taken of each group.

    Returns:
        A mask, shape (units,).

    Raises:
        ValueError: the share, the scores or the groups are not as above.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not 0 < share < 1:
        raise ValueError(f"share = {share}: expected a number between 0 and 1, such as 0.1 for the top 10 %")
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"scores of shape {values.shape}: expected one finite number a unit, and at least one unit")
    groups = np.zeros(len(values), dtype=np.int64) if within is None else _labels(within, len(values))
    chosen = np.zeros(len(values), dtype=np.bool_)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        order = np.argsort(-values[members], kind="stable")
        chosen[members[order[: max(1, round(share * len(members)))]]] = True
    return chosen


def jaccard(a: ArrayLike, b: ArrayLike) -> float:
    """Jaccard index |a ∩ b| / |a ∪ b| of two masks; NaN where both are empty.

    Raises:
        ValueError: they are not masks over the same units.
    """
    first, second = _masks({"a": a, "b": b}).values()
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else np.nan


def approximate_chance(share: float) -> float:
    """The usual approximation q/(2 − q) of the Jaccard index of two random sets, each a share q of the units."""
    return share / (2 - share)


def chance(units: int, first: int, second: int) -> Interval:
    """Jaccard index of two random sets of fixed sizes: its expectation and central 95 % band, both exact.

    The number of common units is hypergeometric, and the index i/(first + second − i) grows with it.

    Args:
        units: how many units there are.
        first: size of one set.
        second: size of the other.

    Raises:
        ValueError: a set is larger than the units, or both are empty.
    """
    if not (0 <= first <= units and 0 <= second <= units and first + second > 0):
        raise ValueError(f"sets of {first} and {second} of {units} units: expected sizes of 0 to {units}, not both 0")
    common = hypergeom(units, first, second)
    meetings = np.arange(min(first, second) + 1)
    expected = float(np.sum(common.pmf(meetings) * _index(meetings, first + second)))
    low, high = _index(common.ppf(TAILS), first + second)
    return Interval(expected, float(low), float(high))


def chance_within(a: ArrayLike, b: ArrayLike, groups: ArrayLike, draws: int = 10_000, seed: int = 0) -> Interval:
    """Jaccard index of two sets whose units are shuffled within groups: its mean and central 95 % band over draws.

    Each set keeps its number of units in every group (layer); the number of common units is a sum of independent
    hypergeometric numbers, drawn `draws` times.

    Args:
        a: mask, shape (units,).
        b: mask, shape (units,).
        groups: a label a unit, shape (units,).
        draws: random draws.
        seed: of the draws.

    Raises:
        ValueError: they are not masks and labels over the same units, or both sets are empty.
    """
    first, second = _masks({"a": a, "b": b}).values()
    _, inverse = np.unique(_labels(groups, len(first)), return_inverse=True)
    sizes, in_first, in_second = (np.bincount(inverse, weights=w).astype(np.int64) for w in (None, first, second))
    total = int(in_first.sum() + in_second.sum())
    if total == 0:
        raise ValueError("both sets are empty: their Jaccard index is not defined")
    rng = np.random.default_rng(seed)
    common = rng.hypergeometric(in_first, sizes - in_first, in_second, size=(draws, len(sizes))).sum(axis=1)
    indices = _index(common, total)
    low, high = np.quantile(indices, TAILS)
    return Interval(float(indices.mean()), float(low), float(high))


def pairwise(sets: Mapping[str, ArrayLike], groups: ArrayLike) -> pd.DataFrame:
    """Jaccard index of every pair of sets, beside what chance gives.

    Args:
        sets: masks by name, each of shape (units,) and not empty.
        groups: a label a unit (its layer), shape (units,).

    Returns:
        A row a pair: `a`, `b`, `jaccard`; `chance`, `low`, `high` for random sets of these sizes (`chance`);
        `layer_chance`, `layer_low`, `layer_high` for sets shuffled within groups (`chance_within`).

    Raises:
        ValueError: they are not masks and labels over the same units, or a set is empty.
    """
    masks = _masks(sets)
    if empty := [name for name, mask in masks.items() if not mask.any()]:
        raise ValueError(f"no units in {', '.join(empty)}: expected sets with at least one unit")
    rows = []
    for (a, first), (b, second) in combinations(masks.items(), 2):
        uniform = chance(len(first), int(first.sum()), int(second.sum()))
        rows.append((a, b, jaccard(first, second), *uniform, *chance_within(first, second, groups)))
    names = ["a", "b", "jaccard", "chance", "low", "high", "layer_chance", "layer_low", "layer_high"]
    return pd.DataFrame(rows, columns=names)


def _index(common: ArrayLike, total: int) -> NDArray[np.float64]:
    meetings = np.asarray(common, dtype=np.float64)
    return meetings / (total - meetings)


def _masks(sets: Mapping[str, ArrayLike]) -> dict[str, Mask]:
    masks = {name: np.asarray(values) for name, values in sets.items()}
    if any(mask.dtype != np.bool_ or mask.ndim != 1 for mask in masks.values()) or (
        len({len(mask) for mask in masks.values()}) > 1
    ):
        found = ", ".join(f"{name} {mask.dtype} {mask.shape}" for name, mask in masks.items())
        raise ValueError(f"expected one-dimensional boolean masks over the same units, got {found}")
    return masks


def _labels(groups: ArrayLike, units: int) -> NDArray[np.generic]:
    labels = np.asarray(groups)
    if labels.shape != (units,):
        raise ValueError(f"groups of shape {labels.shape}: expected one label a unit, shape ({units},)")
    return labels
