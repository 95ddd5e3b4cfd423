"""Leading eigenpairs and traces of an objective's curvature, from matrix-vector products alone.

Products are taken in the precision of the parameters; vectors and results are NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from crossdomain.curvature import ParameterSpace
from crossdomain.objectives import Estimate, Parameters

Array = NDArray[np.floating[Any]]
Product = Callable[[Tensor], Tensor]


class HessianOperator(LinearOperator):
    """The Hessian of an objective at given parameters, or its restriction P_R H P_R to some coordinates, as an operator.

    Args:
        product: v ↦ Hv for vectors of shape (p,): `curvature.Hessian(objective, params)`, or what stands for the Hessian,
            such as `partial(curvature.ggn_vp, objective, params)`.
        params: where it is taken, p numbers in all.
        subset: mask (p,) or indices of the coordinates R to keep; the operator then acts on vectors of their values
            alone, in ascending order. None keeps all.

    Attributes:
        coordinates: indices of the coordinates kept, ascending; None for all.
        products: matrix-vector products done so far.

    Raises:
        ValueError: the subset is empty or does not fit the parameters; or, from a product, the vector has another shape
            or is not finite.
        FloatingPointError: from a product, the result is not finite.
    """

    def __init__(self, product: Product, params: Parameters, subset: Tensor | None = None) -> None:
        self._multiply = product
        self.products = 0
        self._like = next(iter(params.values()))
        self._space = ParameterSpace(params)
        self.coordinates = None if subset is None else self._space.coordinates(subset).to(self._like.device)
        size = self._space.size if self.coordinates is None else len(self.coordinates)
        super().__init__(  # type: ignore[call-arg]  # SciPy's types know of __new__ alone
            dtype=self._like.new_empty(0).cpu().numpy().dtype, shape=(size, size)
        )

    def matvec(self, x: Any) -> Any:
        """The product with a vector of shape (n,) or (n, 1)."""
        size = self.shape[1]
        if np.shape(x) not in ((size,), (size, 1)):  # SciPy's own message names no shapes
            raise ValueError(f"expected a vector of shape ({size},), got {np.shape(x)}")
        return super().matvec(x)

    def _matvec(self, x: Array) -> Array:
        self.products += 1
        values = torch.from_numpy(np.array(x, dtype=self.dtype).reshape(-1)).to(self._like.device)
        if self.coordinates is None:
            return self._multiply(values).cpu().numpy()
        vector = self._like.new_zeros(self._space.size)
        vector[self.coordinates] = values
        return self._multiply(vector)[self.coordinates].cpu().numpy()

    def _adjoint(self) -> HessianOperator:
        return self


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenpairs of a symmetric operator on n coordinates, the largest eigenvalue first.

    Attributes:
        values: eigenvalues, shape (k,).
        vectors: orthonormal columns, shape (n, k).
    """

    values: Array
    vectors: Array


def top_eigenpairs(
    operator: LinearOperator,
    k: int,
    *,
    tol: float = 1e-3,
    seed: int = 0,
    restarts: int | None = None,
    basis: int | None = None,
) -> Eigenpairs:
    """The k largest (most positive) eigenvalues of a symmetric operator, by implicitly restarted Lanczos (ARPACK).

    It keeps `basis` vectors of size n.

    Args:
        operator: symmetric, of size n.
        k: 1 ≤ k < n.
        tol: residuals are at most about this share of their eigenvalues; 0 is machine precision.
        seed: of the starting vector.
        restarts: give up after this many; None is ARPACK's 10 n.
        basis: Lanczos vectors, more than k: many save restarts, and so products; None is max(2 k + 1, 20).

    Raises:
        ValueError: k is out of range.
        RuntimeError: fewer than k converged; the message says how many.
    """
    size = operator.shape[0]
    if not 1 <= k < size:
        raise ValueError(f"k = {k}: expected 1 ≤ k < {size}, the operator's size")
    start = np.random.default_rng(seed).standard_normal(size).astype(operator.dtype)
    try:
        values, vectors = eigsh(operator, k, which="LA", v0=start, ncv=basis, tol=tol, maxiter=restarts)
    except ArpackNoConvergence as error:
        raise RuntimeError(
            f"{len(error.eigenvalues)} of {k} eigenpairs converged to a relative residual of {tol:g}: "
            "allow more restarts, a larger tol, or ask for fewer"
        ) from error
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    return Eigenpairs(values, vectors)


def residuals(operator: LinearOperator, found: Eigenpairs) -> Array:
    """‖A u − λ u‖ of each pair, shape (k,), by k products: some eigenvalue is at most that far from λ."""
    norms: Array = np.linalg.norm(operator.matmat(found.vectors) - found.vectors * found.values, axis=0)
    return norms


def hutchinson_trace(operator: LinearOperator, samples: int, *, seed: int = 0) -> Estimate:
    """The trace of A ≈ mean of zᵀA z over random signs z (Hutchinson, 1990): unbiased, one vector in memory.

    Args:
        operator: of size n.
        samples: products taken, at least 1; the standard error falls as their square root.
        seed: of the signs.

    Raises:
        ValueError: there are no samples.
    """
    if samples < 1:
        raise ValueError(f"samples = {samples}: expected at least 1")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(samples):
        signs = _signs(rng, operator, ())
        found.append(float(signs @ operator.matvec(signs)))
    return Estimate.of(torch.tensor(found, dtype=torch.float64))


def xtrace(operator: LinearOperator, samples: int, *, seed: int = 0) -> Estimate:
    """The trace of A by XTrace (Epperly, Tropp and Webber, 2024): far more precise where few eigenvalues dominate.

    Unbiased: each random vector is the Hutchinson sample of what the others' range leaves of A, whose own trace is
    exact; the estimate is the mean over vectors. It is exact for a matrix of rank below `samples`. The standard error
    is the authors', from the spread of the vectors' estimates (which are not independent).

    Args:
        operator: of size n.
        samples: random vectors, 2 ≤ samples ≤ n; twice as many products are taken, and 4 · samples vectors kept.
        seed: of the vectors.

    Raises:
        ValueError: the number of samples is out of range.
    """
    size = operator.shape[0]
    if not 2 <= samples <= size:
        raise ValueError(f"samples = {samples}: expected 2 ≤ samples ≤ {size}, the operator's size")
    omega = _signs(np.random.default_rng(seed), operator, (samples,))
    image = operator.matmat(omega)
    basis, upper = np.linalg.qr(image)
    basis_image = operator.matmat(basis)
    # Leaving vector i out of the range projects out one more direction of it: basis @ left_out[:, i]. Where the vectors
    # are dependent (A of low rank), any small pivot does: the direction it leads to is outside the range.
    pivots = np.abs(upper.diagonal())
    smallest = np.finfo(upper.dtype).eps * (pivots.max() or 1)
    upper[np.diag_indices(samples)] += np.where(pivots < smallest, smallest, 0)
    left_out = solve_triangular(upper, np.eye(samples, dtype=upper.dtype), trans="T")
    left_out = left_out / np.linalg.norm(left_out, axis=0)
    inside = basis.T @ basis_image
    ranges = np.trace(inside) - np.einsum("ji,jk,ki->i", left_out, inside, left_out)

    def without(coefficients: Array) -> Array:
        """Coefficients of each vector in its own reduced range, from those in the whole one."""
        reduced: Array = coefficients - left_out * np.einsum("ji,ji->i", left_out, coefficients)
        return reduced

    rest = image - basis_image @ without(basis.T @ omega)  # A (I − Q_i Q_iᵀ) ω_i
    rest -= basis @ without(basis.T @ rest)
    return Estimate.of(torch.as_tensor(ranges + np.einsum("ji,ji->i", omega, rest)).double())


def _signs(rng: np.random.Generator, operator: LinearOperator, columns: tuple[int, ...]) -> Array:
    return rng.choice(np.array([-1, 1], dtype=operator.dtype), size=(operator.shape[0], *columns))
