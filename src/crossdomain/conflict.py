"""Whether domains' gradients conflict, and whether noise alone would show as much (C3).

A gradient is estimated from few rollouts, so two domains' cosine is pulled to zero and that of a small module scatters
widely. Gradients are therefore estimated in k equal parts: the parts of one domain say how much is noise. All functions
take the inner products of all parts of all domains (`directions.grams`), with labels such as `math/0`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crossdomain.directions import Array, Grams, cosines, matrix_cosines

FLIPS = 512  # random sign patterns at most


def label(domain: str, part: int) -> str:
    """The label of one part of a domain's gradient."""
    return f"{domain}/{part}"


def domain_cosines(found: Grams) -> pd.DataFrame:
    """Cosines of all pairs of domains over all matrices (1-D tensors left out), with their noise ceiling.

    Args:
        found: inner products of the parts of all domains' gradients.

    Returns:
        A row a pair: `a`, `b`, `cosine` of the mean gradients; `split_half_a`, `split_half_b`, the cosine of the mean of a
        domain's even parts with that of its odd parts; `corrected`, the cosine with noise taken out, ⟨ḡ_a, ḡ_b⟩ over the
        root of the unbiased ‖E g_a‖² ‖E g_b‖² (from products of different parts); NaN where noise leaves one of these no
        larger than zero. Cosines with a gradient that is zero are NaN.
    """
    gram, parts = found.total(matrices=True), _parts(found)
    mean = _of_means(gram, parts)
    cosine = cosines(mean)
    halves, signals = {}, {}
    for domain, rows in parts.items():
        own = gram[np.ix_(rows, rows)]
        even, odd = np.arange(len(rows)) % 2 == 0, np.arange(len(rows)) % 2 == 1
        pair = np.stack([even, odd]).astype(float)
        halves[domain] = float(cosines(pair @ own @ pair.T)[0, 1])
        signals[domain] = float((own.sum() - np.trace(own)) / (len(rows) * (len(rows) - 1)))
    found_rows = []
    for (i, a), (j, b) in combinations(enumerate(parts), 2):
        power = signals[a] * signals[b] if min(signals[a], signals[b]) > 0 else np.nan
        found_rows.append(
            {
                "a": a,
                "b": b,
                "cosine": float(cosine[i, j]),
                "split_half_a": halves[a],
                "split_half_b": halves[b],
                "corrected": float(mean[i, j] / np.sqrt(power)),
            }
        )
    return pd.DataFrame(found_rows)


def module_cosines(found: Grams) -> pd.DataFrame:
    """Cosines of all pairs of domains' mean gradients in every matrix: as `directions.matrix_cosines`."""
    parts = _parts(found)
    return matrix_cosines(Grams(list(parts), found.names, found.dimensions, _of_means(found.tensors, parts), {}))


def extremes(found: Grams, seed: int = 0) -> pd.DataFrame:
    """The most conflicting and the most synergistic matrix of every pair of domains, against noise alone.

    The null is a randomisation test: flipping the signs of some of domain b's parts cancels its signal and keeps its noise.
    The largest cosine over all matrices of a's gradient with such noise is what noise alone gives; likewise the smallest.

    Args:
        found: inner products of the parts of all domains' gradients.
        seed: of the sign patterns, where not all of them are used.

    Returns:
        A row a pair and extreme: `a`, `b`, `extreme` (conflict or synergy), `name` of the matrix, `cosine`, `noise` (the
        median extreme under the null), `p` (one-sided) and `patterns`, the number of sign patterns. Domains without a
        gradient, as where all rewards of a group are equal in every group, have no rows.
    """
    parts, matrices = _parts(found), _matrices(found)
    moving = [domain for domain, own in parts.items() if found.tensors[matrices][:, own][:, :, own].any()]
    rows = []
    for a, b in combinations(moving, 2):
        between = found.tensors[matrices][:, parts[a]][:, :, parts[b]].mean(1)  # (matrices, parts of b): ⟨ḡ_a, g_b,l⟩
        own_a = found.tensors[matrices][:, parts[a]][:, :, parts[a]].mean((1, 2))
        own_b = found.tensors[matrices][:, parts[b]][:, :, parts[b]]
        signs = _flips(len(parts[b]), seed)
        observed = _cosine(between, own_a, own_b, np.ones((1, len(parts[b]))))[0]
        null = _cosine(between, own_a, own_b, signs)  # (patterns, matrices)
        for extreme, sign in (("conflict", -1.0), ("synergy", 1.0)):
            best = int(np.argmax(sign * observed))
            largest = (sign * null).max(1)
            exceeding = int((largest >= sign * observed[best]).sum())
            rows.append(
                {
                    "a": a,
                    "b": b,
                    "extreme": extreme,
                    "name": found.names[matrices[best]],
                    "cosine": float(observed[best]),
                    "noise": float(sign * np.median(largest)),
                    "p": (1 + exceeding) / (1 + len(signs)),
                    "patterns": len(signs),
                }
            )
    return pd.DataFrame(rows, columns=["a", "b", "extreme", "name", "cosine", "noise", "p", "patterns"])


def _cosine(between: Array, own_a: Array, own_b: Array, signs: Array) -> Array:
    """Cosines of ḡ_a with signed means of b's parts in every matrix, (patterns, matrices)."""
    parts = signs.shape[1]
    product = signs @ between.T / parts
    norms = np.einsum("sk,mkl,sl->sm", signs, own_b, signs) / parts**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nan_to_num(product / np.sqrt(own_a[None] * norms)))


def _flips(parts: int, seed: int) -> Array:
    """Sign patterns with as many + as −, which leave nothing of a signal: all of them, or `FLIPS` random ones."""
    every = list(combinations(range(parts), parts // 2))
    if len(every) > FLIPS:
        rng = np.random.default_rng(seed)
        every = [every[i] for i in rng.choice(len(every), FLIPS, replace=False)]
    signs = np.ones((len(every), parts))
    for row, minus in enumerate(every):
        signs[row, list(minus)] = -1
    return signs


def _parts(found: Grams) -> dict[str, list[int]]:
    """Positions of each domain's parts among the vectors."""
    parts: dict[str, list[int]] = {}
    for i, name in enumerate(found.labels):
        parts.setdefault(name.rpartition("/")[0], []).append(i)
    odd = {domain: len(rows) for domain, rows in parts.items() if len(rows) < 2 or len(rows) % 2}
    if odd:
        raise ValueError(f"gradients in {odd} parts: expected an even number of them, 2 or more, for every domain")
    return parts


def _matrices(found: Grams) -> NDArray[np.int64]:
    return np.flatnonzero(np.asarray(found.dimensions) > 1)


def _of_means(gram: Array, parts: dict[str, list[int]]) -> Array:
    """Inner products of the means of each domain's parts, (…, domains, domains)."""
    mixing = np.zeros((len(parts), gram.shape[-1]))
    for row, columns in enumerate(parts.values()):
        mixing[row, columns] = 1 / len(columns)
    return np.asarray(mixing @ gram @ mixing.T)
