"""Refreshes by gradient descent: closed forms on quadratics, dense derivatives of a small network in float64, the bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crossdomain import damage, refresh
from crossdomain.curvature import Hessian
from crossdomain.objectives import Objective
from crossdomain.refresh import CurvedSubspace

P = 6


def quadratic(H: Tensor, g: Tensor) -> tuple[Objective, dict[str, Tensor]]:
    """gᵀx + ½ xᵀHx around θ_A = 0."""

    def outputs(params: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        x = params["x"]
        return (g @ x + 0.5 * x @ H @ x).expand(len(batch["row"]))

    objective = Objective("quadratic", "one row", [{"row": torch.zeros(1)}], outputs, lambda out, batch: out)
    return objective, {"x": torch.zeros(P, dtype=torch.float64)}


def symmetric(seed: int, low: float = -0.5, high: float = 4.0) -> Tensor:
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((P, P)))
    return torch.as_tensor(rotation @ np.diag(rng.uniform(low, high, P)) @ rotation.T)


def vector(seed: int) -> Tensor:
    return torch.randn(P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def eigenvectors(H: Tensor, k: int) -> damage.Subspace:
    values, vectors = np.linalg.eigh(H.numpy())
    return damage.Subspace(vectors[:, np.argsort(values)[::-1][:k]], None, P)


def network() -> tuple[Objective, dict[str, Tensor], Tensor]:
    """A small network in float64 with its dense Hessian at the parameters."""
    generator = torch.Generator().manual_seed(3)
    inputs, targets = (torch.randn(12, n, generator=generator, dtype=torch.float64) for n in (3, 1))
    params = {
        name: 0.7 * torch.randn(*shape, generator=generator, dtype=torch.float64)
        for name, shape in {"a": (4, 3), "b": (1, 4)}.items()
    }

    def outputs(q: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        return torch.tanh(batch["inputs"] @ q["a"].T) @ q["b"].T

    def losses(out: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return (out - batch["targets"]).square().sum(1)

    data = {"inputs": inputs, "targets": targets}
    objective = Objective("squares", "12 rows", [data], outputs, losses)

    def whole(flat: Tensor) -> Tensor:
        return losses(outputs({"a": flat[:12].view(4, 3), "b": flat[12:].view(1, 4)}, data), data).mean()

    flat = torch.cat([params["a"].flatten(), params["b"].flatten()])
    return objective, params, torch.autograd.functional.hessian(whole, flat)


def test_descent_on_a_quadratic_is_the_closed_form() -> None:
    H, g, delta, alpha = symmetric(0), vector(1), vector(2), 0.2
    path = refresh.descent(*quadratic(H, g), delta, alpha, 7)
    step, expected = torch.eye(P, dtype=torch.float64) - alpha * H, delta
    for t in range(8):
        torch.testing.assert_close(path.displacements[t], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(path.gradients[t], g + H @ expected, rtol=1e-12, atol=1e-12)
        expected = step @ expected - alpha * g


def test_descent_by_lengths_moves_that_far_against_the_gradient() -> None:
    path = refresh.descent_by_lengths(*quadratic(symmetric(0), vector(1)), vector(2), [0.1, 0.3])
    moves = path.displacements.diff(dim=0)
    torch.testing.assert_close(moves.norm(dim=1), torch.tensor([0.1, 0.3], dtype=torch.float64))
    cosines = torch.nn.functional.cosine_similarity(moves, path.gradients[:-1])
    torch.testing.assert_close(cosines, torch.full((2,), -1.0, dtype=torch.float64))


def test_each_direction_shrinks_by_its_own_curvature() -> None:
    H = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5, 0.1, -0.2], dtype=torch.float64))
    delta, alpha, zero = torch.ones(P, dtype=torch.float64), 0.3, torch.zeros(P, dtype=torch.float64)
    objective, params = quadratic(H, zero)
    path = refresh.descent(objective, params, delta, alpha, 4)
    curved = CurvedSubspace.under(Hessian(objective, params), eigenvectors(H, 2))
    found = curved.contraction(path, alpha)
    powers = np.arange(5)
    inside = np.hypot(np.abs(1 - 4 * alpha) ** powers, np.abs(1 - 2 * alpha) ** powers)
    np.testing.assert_allclose(found["inside"], inside, rtol=1e-12)
    np.testing.assert_allclose(found["share"], inside / inside[0], rtol=1e-12)
    np.testing.assert_allclose(found["along"], ((1 - 4 * alpha) ** powers + (1 - 2 * alpha) ** powers) / 2, rtol=1e-12)
    np.testing.assert_allclose(found["remainder"], 0, atol=1e-12)
    # Invariant, no remainder: Theorem 1's bound is the paper's, and γ = max(|1 − 1.2|, |1 − 0.6|).
    np.testing.assert_allclose(found["bound"], 2**0.5 * 0.4**powers, rtol=1e-9)
    np.testing.assert_allclose(found["paper_bound"], found["bound"], rtol=1e-9)


def test_overshooting_turns_the_sign_of_the_component_along_the_update() -> None:
    H = 2 * torch.eye(P, dtype=torch.float64)
    objective, params = quadratic(H, torch.zeros(P, dtype=torch.float64))
    curved = CurvedSubspace.under(Hessian(objective, params), eigenvectors(H, 1))
    found = curved.contraction(refresh.descent(objective, params, vector(2), 0.75, 2), 0.75)
    np.testing.assert_allclose(found["along"], [1, -0.5, 0.25])
    assert (found["inside"] <= found["bound"] * (1 + 1e-9)).all()


def test_without_a_stationary_start_the_papers_bound_breaks_and_the_theorems_holds() -> None:
    H, g = torch.eye(P, dtype=torch.float64), 5 * torch.ones(P, dtype=torch.float64)
    objective, params = quadratic(H, g)
    curved = CurvedSubspace.under(Hessian(objective, params), eigenvectors(H, 3))
    found = curved.contraction(refresh.descent(objective, params, vector(2), 0.5, 8), 0.5)
    assert (found["inside"] > found["paper_bound"]).iloc[-1]
    assert (found["inside"] <= found["bound"] * (1 + 1e-9)).all()
    np.testing.assert_allclose(found["remainder"], 5 * 3**0.5)  # r = g everywhere


@given(st.integers(0, 10_000), st.integers(1, P), st.floats(0.05, 1.95), st.booleans())
def test_no_descent_leaves_the_bound(seed: int, k: int, multiple: float, eigen: bool) -> None:
    H = symmetric(seed, low=0.2 if eigen else 0.5)
    objective, params = quadratic(H, vector(seed + 1))
    subspace = eigenvectors(H, k) if eigen else damage.random_subspace(P, k, seed=seed)
    curved = CurvedSubspace.under(Hessian(objective, params), subspace)
    alpha = multiple / curved.constants.L
    found = curved.contraction(refresh.descent(objective, params, vector(seed + 2), alpha, 6), alpha)
    slack = 1e-9 * (1 + found["inside"].max())
    assert (found["inside"] <= found["bound"] + slack).all()
    assert (found["inside"] <= found["one_step"].fillna(np.inf) + slack).all()
    assert (found["one_step"].iloc[1:] <= found["bound"].iloc[1:] + slack).all()


@pytest.mark.parametrize(("low", "high", "alpha"), [(1.0, 3.0, 5.0), (-3.0, -1.0, 0.1)])
def test_there_is_no_bound_where_a_hypothesis_fails(low: float, high: float, alpha: float) -> None:
    H = symmetric(0, low, high)
    objective, params = quadratic(H, vector(1))
    curved = CurvedSubspace.under(Hessian(objective, params), eigenvectors(H, 2))
    found = curved.contraction(refresh.descent(objective, params, vector(2), alpha, 2), alpha)
    assert found[["bound", "one_step", "paper_bound"]].isna().all().all() and found["inside"].notna().all()


def test_constants_and_remainder_of_a_network_are_those_of_dense_matrices() -> None:
    objective, params, H = network()
    size = len(H)
    subspace = damage.random_subspace(size, 3, coordinates=torch.arange(2, 14), seed=4)
    curved = CurvedSubspace.under(Hessian(objective, params), subspace)
    V = curved.basis
    projector = V @ V.T
    rest = torch.eye(size, dtype=torch.float64) - projector
    eigenvalues = torch.linalg.eigvalsh(V.T @ H @ V)
    known = curved.constants
    expected = [eigenvalues[0], eigenvalues[-1], torch.linalg.matrix_norm(projector @ H @ rest, 2)]
    np.testing.assert_allclose([known.mu, known.L, known.kappa], expected, rtol=1e-9)
    delta = 0.3 * torch.randn(size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    path = refresh.descent(objective, params, delta, 0.01, 3)
    found = curved.contraction(path, 0.01)
    for t, (e, g) in enumerate(zip(*path, strict=True)):
        row = found.iloc[t]
        measured = [row["inside"], row["outside"], row["remainder"]]
        np.testing.assert_allclose(measured, [(M).norm() for M in (projector @ e, rest @ e, projector @ (g - H @ e))])


def test_the_leading_directions_have_the_constants_of_their_own_span() -> None:
    objective, params, _ = network()
    subspace = damage.random_subspace(16, 4, seed=1)
    whole = CurvedSubspace.under(Hessian(objective, params), subspace)
    alone = CurvedSubspace.under(Hessian(objective, params), damage.Subspace(subspace.basis[:, :2], None, 16))
    first = whole.leading(2).constants
    np.testing.assert_allclose(
        [first.mu, first.L, first.kappa], [getattr(alone.constants, name) for name in ("mu", "L", "kappa")]
    )


def test_an_update_without_a_part_inside_has_no_shares() -> None:
    objective, params = quadratic(symmetric(0), vector(1))
    curved = CurvedSubspace.under(Hessian(objective, params), damage.coordinate_subspace(torch.arange(P).double(), 1))
    delta = torch.ones(P, dtype=torch.float64)
    delta[-1] = 0
    found = curved.projections(torch.stack([delta, vector(3)]))
    assert found[["share", "along"]].isna().all().all() and found["inside"].iloc[0] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o, p: refresh.descent(o, p, vector(0), 0.0, 3), "positive step"),
        (lambda o, p: refresh.descent(o, p, vector(0), 0.1, 0), "at least 1"),
        (lambda o, p: refresh.descent_by_lengths(o, p, vector(0), []), "at least 1"),
        (lambda o, p: CurvedSubspace.under(Hessian(o, p), eigenvectors(symmetric(0), 2)).leading(3), "expected 1 to 2"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call(*quadratic(symmetric(0), vector(1)))
