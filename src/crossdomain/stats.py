"""Means with 95 % intervals: over prompts, over seeds, and over base seeds, seeds and prompts together.

Prompts are resampled (bootstrap), seeds taken as independent get Student's t; where seeds share bases and answer the same
prompts, `hierarchical_bootstrap` resamples all three. `holm` corrects tests of which a page makes many.
"""

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


def seed_mean(values: ArrayLike, within: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
    """Mean of one value a seed, with Student's t interval; one seed has no interval.

    Args:
        values: one a seed.
        within: what such values can be at all; an interval of few seeds is cut off there.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    data = _checked(values)
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, np.nan, np.nan)
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, len(data) - 1) * data.std(ddof=1) / np.sqrt(len(data)))
    return Interval(mean, max(mean - half, within[0]), min(mean + half, within[1]))


def hierarchical_bootstrap(values: ArrayLike, bases: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean over seeds, with a bootstrap over base seeds, the seeds of each base, and prompts.

    Base seeds are drawn with replacement, then as many seeds of each drawn base as it has; prompts are the same for all
    seeds, so one draw of them serves all. Paired differences are given as such: one value a seed and prompt.

    With as few bases as a study can afford, percentiles give intervals that are too short. They are moved outwards so that
    the interval of a plain mean would be Student's, with n the number of bases (of seeds or prompts where there is one
    base or seed): the *expanded percentile* interval of Hesterberg, The American Statistician 69 (2015) 371. With three
    bases that is the range of all resampled means: from the smallest seed to the largest.

    Args:
        values: shape (seeds, prompts), or (seeds,) where prompts are averaged already.
        bases: the base of each seed, shape (seeds,).
        resamples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        The mean, with NaN bounds where nothing was repeated: one seed with one value.

    Raises:
        ValueError: there is no value, one is not finite, or seeds and bases do not match.
    """
    data = np.asarray(values, dtype=np.float64)
    data = data[:, None] if data.ndim == 1 else data
    _checked(data)
    labels, base = np.unique(np.asarray(bases), return_inverse=True)
    if base.shape != (len(data),):
        raise ValueError(f"expected one base for each of the {len(data)} seeds, got {base.size}")
    units = next((n for n in (len(labels), *data.shape) if n > 1), 1)
    mean = float(data.mean())
    if units == 1:
        return Interval(mean, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), resamples)  # (resamples, bases)
    weights = np.empty((resamples, len(data)))
    for i in range(len(labels)):
        members = np.flatnonzero(base == i)
        weights[:, members] = rng.multinomial(drawn[:, i] * len(members), np.full(len(members), 1 / len(members)))
    by_prompt = data.mean(1)[None] if data.shape[1] == 1 else _over_prompts(data, resamples, rng)
    means = (weights * by_prompt).sum(1) / weights.sum(1)
    tail = float(scipy_stats.norm.cdf(-np.sqrt(units / (units - 1)) * scipy_stats.t.ppf((1 + LEVEL) / 2, units - 1)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def _over_prompts(data: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of every seed over resampled prompts, shape (resamples, seeds), a hundred resamples at a time."""
    prompts = data.shape[1]
    even = np.full(prompts, 1 / prompts)
    parts = [rng.multinomial(prompts, even, min(100, resamples - i)) @ data.T for i in range(0, resamples, 100)]
    return np.asarray(np.concatenate(parts) / prompts)


def holm(p_values: ArrayLike) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """P-values corrected for their number (Holm, Scandinavian Journal of Statistics 6 (1979) 65), in the order given.

    Rejecting where the corrected value is at most α keeps the chance of any false rejection at α, whatever the tests'
    dependence.

    Raises:
        ValueError: there is none, or one lies outside [0, 1].
    """
    p = _checked(p_values)
    if (p < 0).any() or (p > 1).any():
        raise ValueError(f"expected p-values between 0 and 1, got {p[(p < 0) | (p > 1)]}")
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(np.minimum(1, p[order] * np.arange(len(p), 0, -1)))
    return corrected


def _checked(values: ArrayLike) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    data = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(data) == 0 or not np.isfinite(data).all():
        raise ValueError(f"expected at least one finite value, got {data if len(data) else 'none'}")
    return data
