"""The statements of the theory chapter as functions: what each proposition promises, from the constants it needs.

Notation is the chapter's: the loss L_A of a domain A has gradient g and Hessian H at the checkpoint θ_A, δ is a later
update, P projects orthogonally on the conflict subspace, which the columns of `basis` span, and Q = I − P. Norms are
Euclidean, those of matrices spectral. A Hessian is a symmetric array or a SciPy linear operator. All work is in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

Vector: TypeAlias = NDArray[np.float64]
Hessian: TypeAlias = "NDArray[np.float64] | LinearOperator[Any]"

ORTHONORMAL = 1e-5  # how far a basis may be from orthonormal: what single precision leaves over millions of parameters


# --- Damage: Propositions 1 and 2 ---


def expansion_remainder_bound(rho: float, step_norm: float) -> float:
    """Largest |Δ − gᵀδ − ½ δᵀHδ| of an update of that norm: ρ‖δ‖³/6 (Proposition 1; C6).

    Args:
        rho: Lipschitz constant of the Hessian along the update.
        step_norm: ‖δ‖.

    Raises:
        ValueError: a value is negative or not finite.
    """
    _check_bounds({"rho": rho, "step_norm": step_norm})
    return rho * step_norm**3 / 6


def second_order_window(curvature: float, epsilon: float, rho: float, factor: float) -> tuple[float, float] | None:
    """Norms of δ at which ½|δᵀHδ| is at least `factor` times all other terms of the damage (Corollary 1; C6).

    Args:
        curvature: |δᵀHδ| / ‖δ‖², positive: it depends on the direction of δ alone.
        epsilon: bound on ‖g‖.
        rho: Lipschitz constant of the Hessian along the update.
        factor: c ≥ 1; within the window ½ δᵀHδ is the damage up to a relative error of 1/c.

    Returns:
        The smallest and the largest such norm (infinite where rho is 0), or None where there is none: the first-order term
        rules shorter updates, and the third-order term takes over before the second has overtaken the first.

    Raises:
        ValueError: a value is out of its range.
    """
    _check_bounds({"epsilon": epsilon, "rho": rho})
    if not (np.isfinite(curvature) and curvature > 0):
        raise ValueError(
            f"curvature={curvature}: expected |δᵀHδ| / ‖δ‖² > 0; without curvature there is no second order"
        )
    if not (np.isfinite(factor) and factor >= 1):
        raise ValueError(
            f"factor={factor}: expected at least 1, the number of times the second-order term outweighs others"
        )
    discriminant = curvature**2 - 8 / 3 * factor**2 * rho * epsilon
    if discriminant < 0:
        return None
    root = curvature + discriminant**0.5
    return 4 * factor * epsilon / root, 1.5 * root / (factor * rho) if rho else np.inf


@dataclass(frozen=True)
class Concentration:
    """The second-order damage ½ δᵀHδ in the three terms of Proposition 2.

    Attributes:
        conflict: ½ (Pδ)ᵀH(Pδ).
        cross: (Pδ)ᵀH(Qδ).
        rest: ½ (Qδ)ᵀH(Qδ).
    """

    conflict: float
    cross: float
    rest: float

    @property
    def second_order(self) -> float:
        """Their sum, ½ δᵀHδ."""
        return self.conflict + self.cross + self.rest

    @property
    def captured_share(self) -> float:
        """Share of ½ δᵀHδ that Pδ alone makes; NaN where that is 0.

        In [0, 1] where H ⪰ 0 and κ = 0; else terms can cancel, and it may be above 1 or negative.
        """
        return self.conflict / self.second_order if self.second_order else np.nan


def concentration(H: Hessian, basis: ArrayLike, delta: ArrayLike) -> Concentration:
    """Split ½ δᵀHδ along a subspace, with two products with H (Proposition 2; C7).

    Args:
        H: the Hessian, shape (p, p).
        basis: orthonormal columns that span the conflict subspace, shape (p, k).
        delta: the update δ, shape (p,).

    Raises:
        ValueError: shapes do not match, H is not symmetric, or the columns are not orthonormal.
    """
    V = _basis(basis)
    d = _vector(delta, "delta", len(V))
    _check_hessian(H, len(V))
    inside = V @ (V.T @ d)
    outside = d - inside
    H_inside, H_outside = H @ inside, H @ outside
    return Concentration(
        conflict=float(inside @ H_inside) / 2, cross=float(inside @ H_outside), rest=float(outside @ H_outside) / 2
    )


def concentration_bound(kappa: float, eta: float, conflict_norm: float, rest_norm: float) -> float:
    """Largest |cross + rest|: κ‖Pδ‖‖Qδ‖ + ½η‖Qδ‖² (Proposition 2; C7).

    Args:
        kappa: leakage, ‖PHQ‖ or more.
        eta: curvature outside the subspace, ‖QHQ‖ or more.
        conflict_norm: ‖Pδ‖.
        rest_norm: ‖Qδ‖.

    Raises:
        ValueError: a value is negative or not finite.
    """
    _check_bounds({"kappa": kappa, "eta": eta, "conflict_norm": conflict_norm, "rest_norm": rest_norm})
    return kappa * conflict_norm * rest_norm + eta * rest_norm**2 / 2


@dataclass(frozen=True)
class SubspaceConstants:
    """What the theory needs to know of H about a subspace.

    Attributes:
        mu: smallest curvature on it: μI ⪯ PHP there. Negative or zero where the loss does not curve up everywhere.
        L: largest curvature on it: PHP ⪯ LI.
        kappa: leakage κ = ‖PHQ‖ between the subspace and the rest; 0 where eigenvectors of H span it.
    """

    mu: float
    L: float
    kappa: float


def subspace_constants(H: Hessian, basis: ArrayLike) -> SubspaceConstants:
    """Curvature and leakage of a subspace, with k products with H (Assumptions 3 and 4).

    With V the basis, PHP acts on the subspace as VᵀHV, and ‖PHQ‖ = ‖HV − V(VᵀHV)‖.

    Args:
        H: the Hessian, shape (p, p).
        basis: orthonormal columns, shape (p, k).

    Raises:
        ValueError: shapes do not match, H is not symmetric, or the columns are not orthonormal.
    """
    V = _basis(basis)
    _check_hessian(H, len(V))
    HV = np.column_stack([H @ V[:, i] for i in range(V.shape[1])])
    inside = V.T @ HV
    eigenvalues = np.linalg.eigvalsh((inside + inside.T) / 2)
    return SubspaceConstants(
        mu=float(eigenvalues[0]), L=float(eigenvalues[-1]), kappa=float(np.linalg.norm(HV - V @ inside, 2))
    )


# --- Refresh: Theorem 1 and Proposition 3 ---


def gradient_remainder_bound(epsilon: float, rho: float, distance: float) -> float:
    """Largest ‖r(θ)‖ of g_A(θ) = H(θ − θ_A) + r(θ) at that distance: ε + ½ρ‖θ − θ_A‖² (Lemma 4).

    Args:
        epsilon: bound on ‖g‖; r(θ_A) = g.
        rho: Lipschitz constant of the Hessian between θ_A and θ.
        distance: ‖θ − θ_A‖.

    Raises:
        ValueError: a value is negative or not finite.
    """
    _check_bounds({"epsilon": epsilon, "rho": rho, "distance": distance})
    return epsilon + rho * distance**2 / 2


def contraction_rate(alpha: float, mu: float, L: float) -> float:
    """The rate γ = max(|1 − αμ|, |1 − αL|) < 1 of Theorem 1; it is 1 − αμ for α ≤ 2/(μ + L), so for α ≤ 1/L.

    Args:
        alpha: step of gradient descent.
        mu: smallest curvature on the subspace.
        L: largest curvature on it.

    Raises:
        ValueError: a hypothesis of the theorem fails: 0 < μ ≤ L and 0 < α < 2/L.
    """
    if not (np.isfinite([mu, L]).all() and 0 < mu <= L):
        raise ValueError(
            f"mu={mu}, L={L}: expected 0 < mu ≤ L; descent contracts only where the loss curves up, so choose a subspace "
            "(fewer eigenvectors) on which the smallest curvature is positive"
        )
    if not 0 < alpha < 2 / L:
        raise ValueError(
            f"alpha={alpha}: expected 0 < alpha < 2/L = {2 / L:g}; a longer step overshoots along the direction of "
            f"curvature L and diverges, use at most 2/(mu + L) = {2 / (mu + L):g}"
        )
    return max(abs(1 - alpha * mu), abs(1 - alpha * L))


def contraction_bound(
    alpha: float,
    mu: float,
    L: float,
    steps: int,
    start: float,
    kappa: float = 0.0,
    q_sup: float = 0.0,
    r_sup: float = 0.0,
) -> Vector:
    """Largest ‖P(θ_t − θ_A)‖ along a refresh by gradient descent from θ_0 = θ_A + δ (Theorem 1; C8).

    γᵗ‖Pδ‖ + (1 − γᵗ)/(1 − γ) · α(κ sup‖Q(θ_s − θ_A)‖ + sup‖P r_s‖). The paper's bound is κ = 0, r = 0, α ≤ 1/L.

    Args:
        alpha: step of gradient descent.
        mu: smallest curvature on the subspace.
        L: largest curvature on it.
        steps: T, the number of steps.
        start: ‖Pδ‖.
        kappa: leakage ‖PHQ‖.
        q_sup: largest ‖Q(θ_s − θ_A)‖ over s < T.
        r_sup: largest ‖P r_s‖ over s < T.

    Returns:
        The bound at t = 0 … T, shape (T + 1,).

    Raises:
        ValueError: a hypothesis of the theorem fails, or a value is negative or not finite.
    """
    _check_bounds({"steps": steps, "start": start, "kappa": kappa, "q_sup": q_sup, "r_sup": r_sup})
    gamma = contraction_rate(alpha, mu, L)
    powers = gamma ** np.arange(steps + 1, dtype=np.float64)
    return powers * start + (1 - powers) / (1 - gamma) * alpha * (kappa * q_sup + r_sup)


def collateral_bound(gradient_norm: float, top_eigenvalue: float, rho: float, displacement: float) -> float:
    """Largest rise of another domain's loss L_C under a refresh: ‖g_C‖‖d‖ + ½ max(0, λ_max)‖d‖² + ρ_C‖d‖³/6 (Prop. 3).

    A bound on harm alone: the loss may fall by more.

    Args:
        gradient_norm: ‖g_C‖ where the refresh starts, at θ_0.
        top_eigenvalue: largest eigenvalue of H_C there.
        rho: Lipschitz constant of H_C between θ_0 and θ_T.
        displacement: ‖d‖ = ‖θ_T − θ_0‖, or a bound on it.

    Raises:
        ValueError: a value is out of its range or not finite.
    """
    _check_bounds({"gradient_norm": gradient_norm, "displacement": displacement})
    if not np.isfinite(top_eigenvalue):
        raise ValueError(f"top_eigenvalue={top_eigenvalue}: expected a finite number")
    linear_and_quadratic = gradient_norm * displacement + max(0.0, top_eigenvalue) * displacement**2 / 2
    return linear_and_quadratic + expansion_remainder_bound(rho, displacement)


# --- Rollback: Proposition 4 ---


def rollback_change(g: ArrayLike, H: Hessian, delta: ArrayLike, mask: ArrayLike, share: float) -> float:
    """Exact change of gᵀδ + ½ δᵀHδ when a share of δ is taken back on some coordinates (Proposition 4; C10).

    −λ gᵀδ_I − λ δ_IᵀHδ + ½λ² δ_IᵀHδ_I. Negative: the rollback repairs.

    Args:
        g: the gradient, shape (p,).
        H: the Hessian, shape (p, p).
        delta: the update δ, shape (p,).
        mask: which coordinates form the set I, boolean, shape (p,).
        share: λ; 1 takes these coordinates back to θ_A.

    Raises:
        ValueError: shapes do not match, H is not symmetric, or the mask is not boolean.
    """
    d = _vector(delta, "delta")
    gradient = _vector(g, "g", len(d))
    _check_hessian(H, len(d))
    taken = np.where(_mask(mask, len(d)), d, 0.0)
    H_taken = H @ taken
    return float(-share * (gradient @ taken) - share * (H_taken @ d) + share**2 / 2 * (H_taken @ taken))


def fisher_rollback_change(fisher: ArrayLike, delta: ArrayLike, mask: ArrayLike, share: float) -> float:
    """The same for a diagonal Fisher and no gradient, as for the KL objective: −(λ − λ²/2) Σ_I F_ii δ_i² (Prop. 4; C10).

    Args:
        fisher: diagonal of the Fisher matrix of A at θ_A, not negative, shape (p,).
        delta: the update δ, shape (p,).
        mask: which coordinates form the set I, boolean, shape (p,).
        share: λ; 1 is best here, and takes back ½ F_ii δ_i² a coordinate.

    Raises:
        ValueError: shapes do not match, the mask is not boolean, or the diagonal has a negative entry.
    """
    d = _vector(delta, "delta")
    F = _vector(fisher, "fisher", len(d))
    if (F < 0).any():
        raise ValueError(f"fisher: expected squared gradients, all ≥ 0, got {F.min():g}")
    return float(-(share - share**2 / 2) * np.sum((F * d**2)[_mask(mask, len(d))]))


# --- Alternating refresh: Proposition 5 ---


@dataclass(frozen=True)
class AlternatingRefresh:
    """Where one step on A and one on B lead, to third order in the steps; vectors of shape (p,).

    Attributes:
        first_order: −(α_A g_A + α_B g_B), whichever comes first.
        A_first: the second-order term α_A α_B H_B g_A if A comes first.
        B_first: the second-order term α_A α_B H_A g_B if B comes first.
    """

    first_order: Vector
    A_first: Vector
    B_first: Vector

    @property
    def averaged(self) -> Vector:
        """The second-order term averaged over both orders: ½ α_A α_B ∇⟨g_A, g_B⟩."""
        return (self.A_first + self.B_first) / 2


def alternating_refresh(
    alpha_A: float, alpha_B: float, g_A: ArrayLike, g_B: ArrayLike, H_A: Hessian, H_B: Hessian
) -> AlternatingRefresh:
    """Expansion of one cycle of alternating refresh, all derivatives taken where it starts (Proposition 5; C11).

    Args:
        alpha_A: step on domain A.
        alpha_B: step on domain B.
        g_A: gradient of L_A, shape (p,).
        g_B: gradient of L_B, shape (p,).
        H_A: Hessian of L_A, shape (p, p).
        H_B: Hessian of L_B, shape (p, p).

    Raises:
        ValueError: shapes do not match, a Hessian is not symmetric, or a step is negative.
    """
    _check_bounds({"alpha_A": alpha_A, "alpha_B": alpha_B})
    a = _vector(g_A, "g_A")
    b = _vector(g_B, "g_B", len(a))
    _check_hessian(H_A, len(a))
    _check_hessian(H_B, len(a))
    return AlternatingRefresh(
        -(alpha_A * a + alpha_B * b), alpha_A * alpha_B * (H_B @ a), alpha_A * alpha_B * (H_A @ b)
    )


def alternating_remainder_bound(
    alpha_first: float, alpha_second: float, rho_second: float, first_gradient_norm: float
) -> float:
    """Largest distance of a cycle from its expansion in one order: ½ρ α_second α_first² ‖g_first‖² (Proposition 5; C11).

    Args:
        alpha_first: step on the domain that comes first.
        alpha_second: step on the one that comes second.
        rho_second: Lipschitz constant of the second one's Hessian along the first step.
        first_gradient_norm: norm of the first one's gradient.

    Raises:
        ValueError: a value is negative or not finite.
    """
    _check_bounds(
        {"alpha_first": alpha_first, "alpha_second": alpha_second, "first_gradient_norm": first_gradient_norm}
    )
    return alpha_second * gradient_remainder_bound(0.0, rho_second, alpha_first * first_gradient_norm)


# --- Checks of what enters ---


def _check_bounds(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name}={value}: expected a finite number ≥ 0 (a norm, constant or step)")


def _vector(values: ArrayLike, name: str, size: int | None = None) -> Vector:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or (size is not None and len(vector) != size):
        raise ValueError(f"{name}: expected shape ({size or 'p'},), one entry a parameter, got {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return vector


def _mask(values: ArrayLike, size: int) -> NDArray[np.bool_]:
    mask = np.asarray(values)
    if mask.shape != (size,) or mask.dtype != np.bool_:
        raise ValueError(f"mask: expected booleans of shape ({size},), got {mask.dtype} of shape {mask.shape}")
    return mask


def _basis(values: ArrayLike) -> Vector:
    V = np.asarray(values, dtype=np.float64)
    if V.ndim != 2 or not 0 < V.shape[1] <= V.shape[0]:
        raise ValueError(f"basis: expected shape (p, k) with 1 ≤ k ≤ p, got {V.shape}")
    fault = float(np.abs(V.T @ V - np.eye(V.shape[1])).max())
    if not fault <= ORTHONORMAL:  # so written that NaN is refused, too
        raise ValueError(f"basis: expected orthonormal columns, but VᵀV is {fault:g} off I; use numpy.linalg.qr")
    return V


def _check_hessian(H: Hessian, size: int) -> None:
    if tuple(H.shape) != (size, size):
        raise ValueError(f"Hessian: expected shape ({size}, {size}), a row a parameter, got {tuple(H.shape)}")
    if isinstance(H, np.ndarray) and not np.allclose(H, H.T, rtol=0, atol=1e-8 * np.abs(H).max()):
        raise ValueError("Hessian: expected a finite symmetric matrix; average it with its transpose")
