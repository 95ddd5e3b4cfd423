"""Means with 95 % intervals, over prompts (bootstrap) and over seeds (Student's t)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and its interval; the bounds are NaN where they cannot be estimated."""

    value: float
    low: float
    high: float


def bootstrap_mean(values: ArrayLike, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of one value a prompt, with a percentile bootstrap over prompts.

    Args:
        values: shape (prompts,).
        resamples: bootstrap resamples.
        seed: of the resampling.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    data = _checked(values)
    mean = float(data.mean())
    if np.ptp(data) == 0:  # resampling equal values gives no spread; scipy would warn
        return Interval(mean, mean if len(data) > 1 else np.nan, mean if len(data) > 1 else np.nan)
    found = scipy_stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=resamples,
        batch=250,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def paired_difference(after: ArrayLike, before: ArrayLike, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of after − before on the same prompts, with a bootstrap over prompts.

    Raises:
        ValueError: the two do not have one value each for the same prompts.
    """
    first, second = _checked(after), _checked(before)
    if first.shape != second.shape:
        raise ValueError(f"paired values must match: {first.shape} after, {second.shape} before")
    return bootstrap_mean(first - second, resamples, seed)


def seed_mean(values: ArrayLike) -> Interval:
    """Mean of one value a seed, with Student's t interval; one seed has no interval.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    data = _checked(values)
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, np.nan, np.nan)
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, len(data) - 1) * data.std(ddof=1) / np.sqrt(len(data)))
    return Interval(mean, mean - half, mean + half)


def _checked(values: ArrayLike) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    data = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(data) == 0 or not np.isfinite(data).all():
        raise ValueError(f"expected at least one finite value, got {data if len(data) else 'none'}")
    return data
