"""A refresh by gradient descent, and what Theorem 1 says of it (C8): how fast it takes back what lies in a subspace.

θ_A is the policy after A was trained, δ a later update, e_t = θ_t − θ_A for the points θ_t of a refresh from θ_A + δ.
With the Hessian H at θ_A, g_A(θ_t) = H e_t + r_t; P projects on the subspace S, Q = I − P. Once V, an orthonormal basis of
S, and HV are known, all quantities of the theorem follow from e_t and g_A(θ_t) without further products with H.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from crossdomain import bounds
from crossdomain.bounds import SubspaceConstants, Vector
from crossdomain.curvature import Hessian, gradient
from crossdomain.damage import CHUNK, Subspace, moved
from crossdomain.objectives import Objective, Parameters


class Path(NamedTuple):
    """The points of a refresh.

    Attributes:
        displacements: e_t = θ_t − θ_A, shape (T + 1, p).
        gradients: of the loss that is descended, at θ_t, shape (T + 1, p).
    """

    displacements: Tensor
    gradients: Tensor


def descent(objective: Objective, origin: Parameters, delta: Tensor, alpha: float, steps: int) -> Path:
    """Gradient descent θ_{t+1} = θ_t − α g(θ_t) from θ_0 = θ_A + δ.

    Args:
        objective: the loss.
        origin: θ_A.
        delta: δ, shape (p,).
        alpha: the step, positive.
        steps: T, at least 1.

    Raises:
        ValueError: the step or their number is out of range.
    """
    if alpha <= 0:
        raise ValueError(f"alpha = {alpha}: expected a positive step")
    return _walk(objective, origin, delta, steps, lambda t, g: alpha)


def descent_by_lengths(objective: Objective, origin: Parameters, delta: Tensor, lengths: Sequence[float]) -> Path:
    """Steps of given lengths against the gradient: what else moves as far as a refresh does (a control).

    Args:
        objective: a loss.
        origin: θ_A.
        delta: δ, shape (p,).
        lengths: ‖θ_{t+1} − θ_t‖ of each step.

    Raises:
        ValueError: there is no step.
    """
    return _walk(objective, origin, delta, len(lengths), lambda t, g: lengths[t] / float(g.norm()))


def _walk(
    objective: Objective, origin: Parameters, delta: Tensor, steps: int, step: Callable[[int, Tensor], float]
) -> Path:
    if steps < 1:
        raise ValueError(f"steps = {steps}: expected at least 1")
    path = Path(*(delta.new_empty(steps + 1, len(delta)) for _ in Path._fields))
    path.displacements[0] = delta
    for t, (e, g) in enumerate(zip(*path, strict=True)):
        g[:] = gradient(objective, moved(origin, e))
        if t < steps:
            torch.sub(e, g, alpha=step(t, g), out=path.displacements[t + 1])
    return path


@dataclass(frozen=True)
class CurvedSubspace:
    """A subspace S with what H does to it.

    Attributes:
        basis: V, orthonormal columns, shape (p, k).
        curved: HV, shape (p, k).
    """

    basis: Tensor
    curved: Tensor

    @classmethod
    def under(cls, hessian: Hessian, subspace: Subspace) -> CurvedSubspace:
        """A subspace under a Hessian, by k products."""
        like = next(iter(hessian.params.values()))
        values = torch.as_tensor(subspace.basis, dtype=like.dtype)
        basis = like.new_zeros(subspace.size, values.shape[1])
        basis[slice(None) if subspace.coordinates is None else subspace.coordinates] = values
        columns = [hessian(column.contiguous()) for column in basis.T]
        return cls(basis, torch.stack(columns, 1))

    def leading(self, k: int) -> CurvedSubspace:
        """The span of the first k basis vectors.

        Raises:
            ValueError: there are fewer.
        """
        width = self.basis.shape[1]
        if not 1 <= k <= width:
            raise ValueError(f"k = {k}: expected 1 to {width}, the vectors of the basis")
        return CurvedSubspace(self.basis[:, :k], self.curved[:, :k])

    @cached_property
    def constants(self) -> SubspaceConstants:
        """μ, L and κ of Theorem 1, without further products; in float64, a chunk of the rows of V and HV at a time."""
        width = self.basis.shape[1]
        rows = max(1, CHUNK // width)
        # VᵀHV, and the inner products of QHV = HV − V(VᵀHV).
        inside, outside = torch.zeros(2, width, width, dtype=torch.float64)
        for v, hv in zip(self.basis.split(rows), self.curved.split(rows), strict=True):
            inside += v.double().T @ hv.double()
        for v, hv in zip(self.basis.split(rows), self.curved.split(rows), strict=True):
            leaked = hv.double() - v.double() @ inside
            outside += leaked.T @ leaked
        curvatures, leakage = torch.linalg.eigvalsh((inside + inside.T) / 2), torch.linalg.eigvalsh(outside)
        return SubspaceConstants(float(curvatures[0]), float(curvatures[-1]), math.sqrt(max(0.0, float(leakage[-1]))))

    def projections(self, displacements: Tensor) -> pd.DataFrame:
        """Where the points of a refresh lie.

        Args:
            displacements: e_t, shape (T + 1, p), beginning with δ.

        Returns:
            A row a point: `step`; `inside`, ‖Pe_t‖, and `share`, that over ‖Pδ‖; `outside`, ‖Qe_t‖; `along`, the component
            of Pe_t in the direction of Pδ over ‖Pδ‖, negative once the refresh has overshot. Shares of a Pδ of zero are
            NaN.
        """
        z = (displacements @ self.basis).double()  # (T + 1, k)
        start = z[0].norm() if z[0].any() else torch.tensor(torch.nan)
        whole = displacements.norm(dim=1).double()
        return pd.DataFrame(
            {
                "step": range(len(z)),
                "inside": z.norm(dim=1),
                "share": z.norm(dim=1) / start,
                "outside": (whole**2 - z.square().sum(1)).clamp(min=0).sqrt(),
                "along": z @ z[0] / start**2,
            }
        )

    def contraction(self, path: Path, alpha: float) -> pd.DataFrame:
        """The points of a gradient descent against Theorem 1.

        Args:
            path: of `descent`.
            alpha: its step.

        Returns:
            The rows of `projections`, with `remainder`, ‖Pr_t‖; `bound`, the theorem's; `one_step`, what it says of this
            point from the one before; `paper_bound`, the one without leakage and remainder. Bounds are NaN where the
            theorem's hypotheses 0 < μ and α < 2/L fail.
        """
        found = self.projections(path.displacements)
        rest = path.gradients @ self.basis - path.displacements @ self.curved
        found["remainder"] = rest.double().norm(dim=1).numpy()
        inside, outside, remainder = (found[name].to_numpy() for name in ("inside", "outside", "remainder"))
        constants = self.constants
        if not (constants.mu > 0 and 0 < alpha < 2 / constants.L):
            return found.assign(bound=np.nan, one_step=np.nan, paper_bound=np.nan)
        gamma = bounds.contraction_rate(alpha, constants.mu, constants.L)
        each = gamma * inside + alpha * (constants.kappa * outside + remainder)
        return found.assign(
            bound=_bounds(constants, alpha, inside[0], outside, remainder),
            one_step=np.concatenate([[np.nan], each[:-1]]),
            paper_bound=bounds.contraction_bound(alpha, constants.mu, constants.L, len(found) - 1, inside[0]),
        )


def _bounds(constants: SubspaceConstants, alpha: float, start: float, outside: Vector, remainder: Vector) -> Vector:
    """Theorem 1's bound at every t, each with its own maxima over s < t: tighter than those over the whole refresh."""
    found = [start]
    for t in range(1, len(outside)):
        q_sup, r_sup = float(outside[:t].max()), float(remainder[:t].max())
        sequence = bounds.contraction_bound(
            alpha, constants.mu, constants.L, t, start, kappa=constants.kappa, q_sup=q_sup, r_sup=r_sup
        )
        found.append(float(sequence[-1]))
    return np.array(found)
