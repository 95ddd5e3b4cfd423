"""Operators, eigenpairs and traces against dense matrices and curvlinops."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import Tensor

from crossdomain.curvature import Hessian, ggn_vp
from crossdomain.objectives import Estimate, Microbatch, Objective, Parameters
from crossdomain.spectrum import HessianOperator, hutchinson_trace, residuals, top_eigenpairs, xtrace

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)  # a dependency's
    import curvlinops

SIZE = 30
Trace = Callable[..., Estimate]


def symmetric(eigenvalues: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """A matrix of these eigenvalues in a random basis."""
    n = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return (basis * eigenvalues) @ basis.T


SPECTRUM = np.concatenate([[9.0, 5.0, 3.0], np.linspace(1, -4, SIZE - 3)])


def quadratic(matrix: NDArray[np.float64], dtype: torch.dtype = torch.float64) -> tuple[Objective, dict[str, Tensor]]:
    """½ θᵀHθ, with θ in two tensors."""
    H = torch.tensor(matrix, dtype=dtype)

    def outputs(params: Parameters, batch: Microbatch) -> Tensor:
        theta = torch.cat([params["first"].reshape(-1), params["second"]])
        return (theta @ batch["H"] @ theta)[:, None] / 2  # type: ignore[no-any-return]

    params = {"first": torch.ones(3, 2, dtype=dtype), "second": torch.ones(len(matrix) - 6, dtype=dtype)}
    return Objective("energy", "one row", [{"H": H[None]}], outputs, lambda energy, _: energy[:, 0]), params


# --- The operator ---


def operator_of(objective: Objective, params: Parameters, subset: Tensor | None = None) -> HessianOperator:
    return HessianOperator(Hessian(objective, params), params, subset)


def test_the_operator_is_the_hessian_and_counts_its_products() -> None:
    H = symmetric(SPECTRUM)
    operator = operator_of(*quadratic(H))
    assert operator.shape == (SIZE, SIZE)
    assert operator.dtype == np.float64
    np.testing.assert_allclose(operator @ np.eye(SIZE), H, rtol=1e-12, atol=1e-12)
    assert operator.products == SIZE
    np.testing.assert_allclose(operator.matvec(np.ones((SIZE, 1))), H.sum(1, keepdims=True), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(operator.T @ np.ones(SIZE), H.sum(0), rtol=1e-12, atol=1e-12)
    assert operator.products == SIZE + 2


@given(st.lists(st.booleans(), min_size=SIZE, max_size=SIZE).filter(any))
def test_a_restricted_operator_is_a_principal_submatrix(mask: list[bool]) -> None:
    H = symmetric(SPECTRUM)
    kept = np.flatnonzero(mask)
    operator = operator_of(*quadratic(H), subset=torch.tensor(mask))
    assert operator.coordinates is not None
    assert operator.coordinates.tolist() == kept.tolist()
    assert operator.shape == (len(kept), len(kept))
    x = np.linspace(-1, 1, len(kept))
    np.testing.assert_allclose(operator @ x, H[np.ix_(kept, kept)] @ x, rtol=1e-12, atol=1e-12)


def test_a_subset_may_be_given_by_indices() -> None:
    objective, params = quadratic(symmetric(SPECTRUM))
    by_mask = operator_of(objective, params, subset=torch.arange(SIZE) % 7 == 2)
    by_index = operator_of(objective, params, subset=torch.tensor([23, 9, 2, 16]))
    x = np.array([1.0, -2.0, 3.0, 4.0, 5.0])
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(5,\)"):
        by_index.matvec(x)
    np.testing.assert_array_equal(by_mask @ x[:4], by_index @ x[:4])


def test_another_product_may_stand_for_the_hessian() -> None:
    objective, params = quadratic(symmetric(SPECTRUM))
    flat = HessianOperator(partial(ggn_vp, objective, params), params)  # the loss is linear in its output
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        assert not (flat @ np.ones(SIZE)).any()


def test_a_float32_operator_is_float32() -> None:
    H = symmetric(SPECTRUM)
    operator = operator_of(*quadratic(H, torch.float32))
    assert operator.dtype == np.float32
    found = operator @ np.ones(SIZE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, H.sum(1), rtol=1e-4, atol=1e-5)


def test_subsets_and_vectors_that_do_not_fit_are_refused() -> None:
    objective, params = quadratic(symmetric(SPECTRUM))
    with pytest.raises(ValueError, match="empty"):
        operator_of(objective, params, subset=torch.zeros(SIZE, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask of shape \(30,\), got \(29,\)"):
        operator_of(objective, params, subset=torch.ones(SIZE - 1, dtype=torch.bool))
    operator = operator_of(objective, params)
    with pytest.raises(ValueError, match=r"shape \(30,\), got \(29,\)"):
        operator.matvec(np.ones(SIZE - 1))
    with pytest.raises(ValueError, match="1 of its 30 are not"):
        operator.matvec(np.array([np.nan] + [0.0] * (SIZE - 1)))


# --- Eigenpairs ---


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_top_eigenpairs_are_those_of_the_dense_matrix(dtype: torch.dtype, rtol: float) -> None:
    H = symmetric(SPECTRUM)
    operator = operator_of(*quadratic(H, dtype))
    found = top_eigenpairs(operator, 4, tol=1e-12 if dtype == torch.float64 else 1e-6)
    values, vectors = np.linalg.eigh(H)
    np.testing.assert_allclose(found.values, values[::-1][:4], rtol=rtol)
    overlaps = np.abs(np.einsum("ni,ni->i", found.vectors, vectors[:, ::-1][:, :4]))
    np.testing.assert_allclose(overlaps, 1, atol=10 * rtol)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(4), atol=10 * rtol)
    assert (residuals(operator, found) < 10 * rtol * found.values).all()
    assert found.vectors.dtype == operator.dtype


def test_top_eigenpairs_of_a_subset_are_those_of_the_submatrix() -> None:
    H = symmetric(SPECTRUM)
    kept = np.arange(0, SIZE, 2)
    operator = operator_of(*quadratic(H), subset=torch.tensor(kept))
    found = top_eigenpairs(operator, 3, tol=1e-12)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(H[np.ix_(kept, kept)])[::-1][:3], rtol=1e-10)
    assert found.vectors.shape == (15, 3)


def test_residuals_are_what_they_say_and_within_the_tolerance() -> None:
    H = symmetric(SPECTRUM)
    found = top_eigenpairs(aslinearoperator(H), 3, tol=1e-3)
    taken = residuals(aslinearoperator(H), found)
    np.testing.assert_allclose(
        taken, np.linalg.norm(H @ found.vectors - found.vectors * found.values, axis=0), rtol=1e-8
    )
    assert (taken <= 1e-3 * found.values).all()


def test_eigenpairs_depend_on_the_seed_alone() -> None:
    operator = aslinearoperator(symmetric(SPECTRUM))
    first, again, other = (top_eigenpairs(operator, 3, tol=1e-2, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.vectors, again.vectors)
    assert not np.array_equal(first.vectors, other.vectors)


@pytest.mark.parametrize("k", [0, SIZE, SIZE + 1])
def test_a_number_of_eigenpairs_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k = {k}: expected 1 ≤ k < 30"):
        top_eigenpairs(aslinearoperator(symmetric(SPECTRUM)), k)


def test_eigenpairs_that_do_not_converge_are_refused() -> None:
    H = symmetric(np.linspace(1, 1.01, 300))
    with pytest.raises(RuntimeError, match=r"\d of 5 eigenpairs converged .* allow more restarts"):
        top_eigenpairs(aslinearoperator(H), 5, tol=1e-12, restarts=1)


# --- Traces ---


def test_hutchinson_is_exact_for_a_diagonal_matrix() -> None:
    diagonal = np.linspace(-1, 2, SIZE)
    found = hutchinson_trace(aslinearoperator(np.diag(diagonal)), 3)
    assert found == pytest.approx((diagonal.sum(), 0), abs=1e-12)


@pytest.mark.parametrize("trace", [hutchinson_trace, xtrace])
def test_traces_are_right_within_their_standard_errors(trace: Trace) -> None:
    H = symmetric(np.concatenate([[40.0, 20.0, 10.0], np.linspace(1, -1, 97)]))
    found = [trace(aslinearoperator(H), 12, seed=seed) for seed in range(200)]
    values = np.array([estimate.value for estimate in found])
    errors = np.array([estimate.standard_error for estimate in found])
    assert abs(values.mean() - np.trace(H)) < 4 * values.std() / np.sqrt(len(values))
    assert values.std() / 2 < np.sqrt(np.square(errors).mean()) < 2 * values.std()


def test_xtrace_is_more_precise_than_hutchinson_with_as_many_products() -> None:
    H = symmetric(np.concatenate([[40.0, 20.0, 10.0], np.linspace(1, -1, 97)]))
    operator = aslinearoperator(H)
    errors = [
        np.std([trace(operator, samples, seed=seed).value for seed in range(50)])
        for trace, samples in ((hutchinson_trace, 24), (xtrace, 12))
    ]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_xtrace_is_exact_for_a_matrix_of_low_rank(rank: int) -> None:
    H = symmetric(np.concatenate([np.linspace(1, -3, rank), np.zeros(50 - rank)]))
    found = xtrace(aslinearoperator(H), 6)
    assert found == pytest.approx((np.trace(H), 0), abs=1e-9)


def test_xtrace_survives_directions_without_any_curvature() -> None:
    H = np.diag([2.0, 1.0] + [0.0] * 8)
    assert xtrace(aslinearoperator(H), 4) == pytest.approx((3, 0), abs=1e-9)
    assert xtrace(aslinearoperator(np.zeros((10, 10))), 4) == pytest.approx((0, 0), abs=1e-12)


def test_xtrace_is_the_estimate_of_curvlinops_with_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    H = symmetric(SPECTRUM)
    samples = 6
    omega = iter(np.random.default_rng(3).choice([-1.0, 1.0], size=(SIZE, samples)).T)
    monkeypatch.setattr("curvlinops.trace.epperly2024xtrace.random_vector", lambda *_: torch.tensor(next(omega)))
    expected = float(curvlinops.xtrace(torch.tensor(H), 2 * samples))
    assert xtrace(aslinearoperator(H), samples, seed=3).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("trace", [hutchinson_trace, xtrace])
def test_traces_depend_on_the_seed_alone(trace: Trace) -> None:
    operator = aslinearoperator(symmetric(SPECTRUM))
    assert trace(operator, 4, seed=1) == trace(operator, 4, seed=1) != trace(operator, 4, seed=2)


@pytest.mark.parametrize(("trace", "samples"), [(hutchinson_trace, 0), (xtrace, 1), (xtrace, SIZE + 1)])
def test_numbers_of_samples_out_of_range_are_refused(trace: Trace, samples: int) -> None:
    operator: LinearOperator = aslinearoperator(symmetric(SPECTRUM))
    with pytest.raises(ValueError, match=f"samples = {samples}: expected"):
        trace(operator, samples)
