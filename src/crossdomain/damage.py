"""Damage of a later update to an earlier domain: its Taylor expansion (C6) and how few directions hold it (C7).

θ_A is the policy after A was trained, δ a later update, L_A the loss of A, Δ(t) = L_A(θ_A + tδ) − L_A(θ_A). Everything
is exact up to floating point: derivatives by `curvature`, actual damages by evaluating the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossdomain.curvature import Hessian, ParameterSpace, gradient, hvp
from crossdomain.objectives import Estimate, Objective, Parameters

Array = NDArray[np.floating[Any]]

CHUNK = 2**24  # numbers converted to float64 at a time


class Expansion(NamedTuple):
    """The first two terms of the damage of an update, at full length (t = 1).

    Attributes:
        first: gᵀδ.
        second: ½ δᵀHδ.
        gradient_norm: ‖g‖.
        norm: ‖δ‖.
    """

    first: float
    second: float
    gradient_norm: float
    norm: float


class Local:
    """An objective around given parameters: its losses, gradient and Hessian there, each computed once for all updates.

    Args:
        objective: L_A.
        params: θ_A.
        keep: the graph of the gradient for more Hessian products, as `Hessian` has it; a waste of memory for one update.
    """

    def __init__(self, objective: Objective, params: Parameters, *, keep: bool = True) -> None:
        self.objective, self.params = objective, params
        self.hessian = Hessian(objective, params, keep=keep)

    @cached_property
    def gradient(self) -> Tensor:
        """g, shape (p,)."""
        return gradient(self.objective, self.params)

    @cached_property
    def losses(self) -> Tensor:
        """The loss of each prompt, shape (prompts,)."""
        return self.objective.per_prompt(self.params)

    def expansion(self, delta: Tensor) -> Expansion:
        """The damage of an update δ, shape (p,), to second order (Proposition 1)."""
        return Expansion(_dot(self.gradient, delta), self.second_order(delta), _norm(self.gradient), _norm(delta))

    def second_order(self, delta: Tensor) -> float:
        """½ δᵀHδ alone, without the gradient that `expansion` takes."""
        return second_order(self.hessian, delta)

    def actual(self, delta: Tensor) -> Estimate:
        """The damage L_A(θ_A + δ) − L_A(θ_A), with its standard error over prompts, paired."""
        return Estimate.of(self.objective.per_prompt(moved(self.params, delta)) - self.losses)


def second_order(hessian: Hessian, delta: Tensor) -> float:
    """½ δᵀHδ."""
    return 0.5 * _dot(hessian(delta), delta)


def moved(params: Parameters, delta: Tensor) -> dict[str, Tensor]:
    """θ + δ."""
    parts = ParameterSpace(params).unflatten(delta)
    return {name: value + parts[name] for name, value in params.items()}


def taylor_damage(
    objective: Objective, params: Parameters, delta: Tensor, t: Sequence[float] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
) -> pd.DataFrame:
    """Actual and predicted damage along tδ (Proposition 1).

    Args:
        objective: L_A.
        params: θ_A.
        delta: δ, shape (p,).
        t: multiples of δ, positive.

    Returns:
        A row a t: `t`, `actual` and its `standard_error` over prompts, `first` = t gᵀδ, `second` = ½ t² δᵀHδ, `predicted`,
        their sum, `remainder`, actual − predicted, and `rho`, the constant of the cubic bound that this point needs:
        6 |remainder| / (t‖δ‖)³, NaN if δ is zero.

    Raises:
        ValueError: a t is not positive.
    """
    if min(t) <= 0:
        raise ValueError(f"t = {min(t)}: expected positive multiples of the update")
    around = Local(objective, params, keep=False)
    terms, rows = around.expansion(delta), []
    for factor in t:
        found = around.actual(factor * delta)
        first, second = factor * terms.first, factor**2 * terms.second
        remainder = found.value - first - second
        rows.append(
            {
                "t": factor,
                "actual": found.value,
                "standard_error": found.standard_error,
                "first": first,
                "second": second,
                "predicted": first + second,
                "remainder": remainder,
                "rho": 6 * abs(remainder) / (factor * terms.norm) ** 3 if terms.norm else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def cross_terms(objective: Objective, params: Parameters, delta: Tensor, groups: Mapping[str, str]) -> pd.DataFrame:
    """½ δᵀHδ taken apart by groups of parameters: entry (i, j) is ½ δ_iᵀ H δ_j, and all of them sum to it.

    Args:
        objective: L_A.
        params: θ_A.
        delta: δ, shape (p,).
        groups: the group of each parameter, by its name.

    Returns:
        A symmetric matrix indexed by group, in order of appearance.
    """
    space = ParameterSpace(params)
    names = list(dict.fromkeys(groups[name] for name in space.shapes))
    parts, values = space.unflatten(delta), np.zeros((len(names), len(names)))
    hessian = Hessian(objective, params)
    for j, group in enumerate(names):
        curved = hessian(_only(space, delta, [name for name in space.shapes if groups[name] == group]))
        for name, part in space.unflatten(curved).items():
            values[names.index(groups[name]), j] += 0.5 * _dot(parts[name].flatten(), part.flatten())
    return pd.DataFrame((values + values.T) / 2, index=names, columns=names)


@dataclass(frozen=True)
class Subspace:
    """A subspace of the parameters, of some of the coordinates only.

    Attributes:
        basis: orthonormal columns over the coordinates, (n, k).
        coordinates: which of the p parameters they are, ascending, (n,); None for all.
        size: p.
    """

    basis: Array
    coordinates: Tensor | None
    size: int

    def project(self, delta: Tensor, k: int | None = None) -> Tensor:
        """Pδ for the first k basis vectors (all by default), shape (p,).

        Raises:
            ValueError: k is larger than the basis, or δ has another length.
        """
        if delta.shape != (self.size,):
            raise ValueError(f"expected an update of shape ({self.size},), got {tuple(delta.shape)}")
        width = self.basis.shape[1]
        if k is not None and not 1 <= k <= width:
            raise ValueError(f"k = {k}: expected 1 to {width}, the vectors of the basis")
        basis = torch.as_tensor(self.basis[:, :k], dtype=delta.dtype)
        if self.coordinates is None:
            return basis @ (basis.T @ delta)
        found = torch.zeros_like(delta)
        found[self.coordinates] = basis @ (basis.T @ delta[self.coordinates])
        return found


def coordinate_subspace(scores: Tensor, k: int) -> Subspace:
    """The span of the k coordinates with the largest scores, the largest first."""
    top = torch.topk(scores, k).indices
    ascending, rank = top.sort()
    basis = np.zeros((k, k))
    basis[np.arange(k), rank.numpy()] = 1
    return Subspace(basis, ascending, len(scores))


def random_subspace(
    size: int, k: int, *, coordinates: Tensor | None = None, seed: int = 0, dtype: type[np.floating[Any]] = np.float64
) -> Subspace:
    """A uniformly random k-dimensional subspace of all parameters or of some coordinates, its basis in a precision."""
    n = size if coordinates is None else len(coordinates)
    gaussian = np.random.default_rng(seed).standard_normal((n, k), dtype=dtype)
    return Subspace(np.linalg.qr(gaussian)[0], coordinates, size)


def captured(around: Local, delta: Tensor, subspace: Subspace, k: Sequence[int]) -> pd.DataFrame:
    """How much of the damage lies in the first k directions of a subspace (Proposition 2, C7).

    Args:
        around: L_A at θ_A.
        delta: δ, shape (p,).
        subspace: whose directions.
        k: how many of them, a row each.

    Returns:
        A row a k: `k`; `norm_share`, ‖Pδ‖²/‖δ‖²; `quadratic_share`, (Pδ)ᵀH(Pδ) / δᵀHδ; `inside`, the actual damage of
        moving along Pδ alone, and `outside`, of moving along δ − Pδ alone, with the whole update's `actual`, all as
        losses; `cross`, (Pδ)ᵀH(Qδ), the leakage term of the expansion.
    """
    whole, curved = around.actual(delta).value, around.hessian(delta)
    total = _dot(curved, delta)
    rows = []
    for dimension in k:
        part = subspace.project(delta, dimension)
        inner = 2 * around.second_order(part)
        rows.append(
            {
                "k": dimension,
                "norm_share": _dot(part, part) / _dot(delta, delta),
                "quadratic_share": inner / total,
                "inside": around.actual(part).value,
                "outside": around.actual(delta - part).value,
                "actual": whole,
                "cross": _dot(curved, part) - inner,
            }
        )
    return pd.DataFrame(rows)


def participation_ratio(contributions: Array) -> float:
    """(Σ|c|)² / Σc²: how many directions share a sum; 1 if one holds it all, n if n hold it alike.

    Raises:
        ValueError: there is no contribution, or all are zero.
    """
    sizes = np.abs(np.asarray(contributions, dtype=float))
    if sizes.size == 0 or not sizes.any():
        raise ValueError("expected at least one contribution that is not zero")
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def directions_needed(contributions: Array, total: float, share: float) -> int | None:
    """How many of the contributions, the largest first, make up a share of a total; None if all of them do not."""
    sums = np.cumsum(np.sort(np.asarray(contributions, dtype=float))[::-1])
    enough = np.flatnonzero(sums >= share * total)
    return int(enough[0]) + 1 if len(enough) else None


def leakage(hessian: Hessian, subspace: Subspace, k: int) -> float:
    """κ = ‖PHQ‖ for the first k directions of a subspace (Proposition 2, Theorem 1): the spectral norm, by k products."""
    columns = []
    for i in range(k):
        unit = torch.zeros(subspace.size, dtype=next(iter(hessian.params.values())).dtype)
        vector = torch.as_tensor(subspace.basis[:, i], dtype=unit.dtype)
        unit[slice(None) if subspace.coordinates is None else subspace.coordinates] = vector
        curved = hessian(unit)
        columns.append(curved - subspace.project(curved, k))
    return float(torch.linalg.matrix_norm(torch.stack(columns, 1), 2))


def hessian_drift(objective: Objective, params: Parameters, delta: Tensor, t: Sequence[float]) -> pd.DataFrame:
    """How far the Hessian moves along an update, in the update's own direction u = δ/‖δ‖.

    Returns:
        A row a t: `t`, `curvature` = uᵀH(θ_A + tδ)u, and `rho` = ‖(H(θ_A + tδ) − H(θ_A))u‖ / (t‖δ‖), a lower bound of the
        Lipschitz constant ρ (NaN at t = 0).
    """
    norm = _norm(delta)
    unit = delta / norm
    start = hvp(objective, params, unit)
    rows = [{"t": 0.0, "curvature": _dot(start, unit), "rho": float("nan")}]
    for factor in t:
        there = hvp(objective, moved(params, factor * delta), unit)
        rows.append({"t": factor, "curvature": _dot(there, unit), "rho": _norm(there - start) / (factor * norm)})
    return pd.DataFrame(rows)


def _only(space: ParameterSpace, delta: Tensor, names: Sequence[str]) -> Tensor:
    """δ on some parameters, 0 elsewhere."""
    kept = space.unflatten(delta)
    return space.flatten({name: kept[name] if name in names else torch.zeros_like(kept[name]) for name in kept})


def _dot(a: Tensor, b: Tensor) -> float:
    """In float64, a chunk at a time: whole vectors of a large model would take four times their memory."""
    return float(sum(x.double() @ y.double() for x, y in zip(a.split(CHUNK), b.split(CHUNK), strict=True)))


def _norm(a: Tensor) -> float:
    return float(a.double().norm())
