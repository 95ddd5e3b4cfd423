"""Damage of an update on losses whose derivatives are known in closed form, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crossdomain import damage
from crossdomain.curvature import Hessian
from crossdomain.objectives import Objective

P = 8  # parameters: `w` (2, 3) and `b` (2,)
ROWS = 3


def polynomial(cubic: float = 0.0, seed: int = 0) -> tuple[Objective, dict[str, Tensor], Tensor, Tensor]:
    """gᵀx + ½ xᵀHx + (cubic/6) Σx³ with different g in every row: the objective, θ_A = 0, mean g and H."""
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(ROWS, P, generator=generator, dtype=torch.float64)
    square = torch.randn(P, P, generator=generator, dtype=torch.float64)
    H = (square + square.T) / 2

    def outputs(params: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        x = torch.cat([params["w"].flatten(), params["b"]])
        return batch["g"] @ x + 0.5 * x @ H @ x + cubic / 6 * (x**3).sum()

    objective = Objective("polynomial", "rows", [{"g": g[:2]}, {"g": g[2:]}], outputs, lambda out, batch: out)
    params = {"w": torch.zeros(2, 3, dtype=torch.float64), "b": torch.zeros(2, dtype=torch.float64)}
    return objective, params, g.mean(0), H


def update(seed: int = 1) -> Tensor:
    return torch.randn(P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole_space(H: Tensor) -> damage.Subspace:
    values, vectors = np.linalg.eigh(H.numpy())
    return damage.Subspace(vectors[:, np.argsort(values)[::-1]], None, P)


def test_the_terms_of_the_expansion_are_those_of_the_polynomial() -> None:
    objective, params, g, H = polynomial()
    delta = update()
    found = damage.Local(objective, params).expansion(delta)
    expected = (g @ delta, 0.5 * delta @ H @ delta, g.norm(), delta.norm())
    np.testing.assert_allclose([found.first, found.second, found.gradient_norm, found.norm], expected, rtol=1e-12)


def test_a_quadratic_loss_has_no_remainder_at_any_length() -> None:
    objective, params, *_ = polynomial()
    table = damage.taylor_damage(objective, params, update(), [0.1, 1, 10])
    np.testing.assert_allclose(table["remainder"], 0, atol=1e-11)
    np.testing.assert_allclose(table["second"], table["second"][1] * table["t"] ** 2, rtol=1e-12)


def test_a_cubic_loss_leaves_its_cubic_term_which_the_bound_covers() -> None:
    objective, params, *_ = polynomial(cubic=0.3)
    delta = update()
    table = damage.taylor_damage(objective, params, delta, [0.5, 1, 2])
    np.testing.assert_allclose(table["remainder"], 0.05 * float((delta**3).sum()) * table["t"] ** 3, rtol=1e-9)
    assert (table["rho"] <= 0.3 + 1e-9).all()  # the Hessian's diagonal moves by 0.3 |x| at most
    np.testing.assert_allclose(table["rho"], table["rho"][0], rtol=1e-9)


def test_no_update_does_no_damage() -> None:
    objective, params, *_ = polynomial(cubic=0.3)
    row = damage.taylor_damage(objective, params, torch.zeros(P, dtype=torch.float64), [1]).iloc[0]
    assert (row[["actual", "first", "second", "remainder"]] == 0).all() and np.isnan(row["rho"])


def test_the_standard_error_is_that_of_the_paired_differences() -> None:
    objective, params, *_ = polynomial()
    delta = update()
    difference = objective.per_prompt(damage.moved(params, delta)) - objective.per_prompt(params)
    found = damage.Local(objective, params).actual(delta)
    assert found.value == pytest.approx(difference.mean().item())
    assert found.standard_error == pytest.approx((difference.std() / ROWS**0.5).item())


def test_cross_terms_are_the_blocks_of_the_quadratic_form_and_sum_to_it() -> None:
    objective, params, _, H = polynomial()
    delta = update()
    table = damage.cross_terms(objective, params, delta, {"w": "matrix", "b": "bias"})
    assert list(table.index) == list(table.columns) == ["matrix", "bias"]
    w, b = delta[:6], delta[6:]
    assert table.loc["matrix", "bias"] == pytest.approx((0.5 * w @ H[:6, 6:] @ b).item())
    assert table.loc["bias", "bias"] == pytest.approx((0.5 * b @ H[6:, 6:] @ b).item())
    assert table.to_numpy().sum() == pytest.approx((0.5 * delta @ H @ delta).item())


def test_all_eigenvectors_capture_everything_and_the_first_k_their_eigenvalues() -> None:
    objective, params, g, H = polynomial()
    delta, subspace = update(), whole_space(H)
    table = damage.captured(damage.Local(objective, params), delta, subspace, [1, 3, P]).set_index("k")
    values = np.sort(np.linalg.eigvalsh(H.numpy()))[::-1]
    coefficients = subspace.basis.T @ delta.numpy()
    total = (delta @ H @ delta).item()
    for k in (1, 3, P):
        assert table.loc[k, "quadratic_share"] == pytest.approx((values * coefficients**2)[:k].sum() / total)
        part = torch.as_tensor(subspace.basis[:, :k] @ coefficients[:k])
        assert table.loc[k, "inside"] == pytest.approx((g @ part + 0.5 * part @ H @ part).item(), abs=1e-12)
        rest = delta - part
        assert table.loc[k, "outside"] == pytest.approx((g @ rest + 0.5 * rest @ H @ rest).item(), abs=1e-12)
        assert table.loc[k, "cross"] == pytest.approx(0, abs=1e-10)  # eigenvectors do not leak
    assert table.loc[P, "norm_share"] == pytest.approx(1)


def test_a_subspace_of_some_coordinates_moves_no_others() -> None:
    delta = update()
    subspace = damage.random_subspace(P, 2, coordinates=torch.tensor([1, 4, 6]), seed=3)
    part = subspace.project(delta)
    assert part[[0, 2, 3, 5, 7]].tolist() == [0.0] * 5
    dense = np.zeros((P, 2))
    dense[[1, 4, 6]] = subspace.basis
    np.testing.assert_allclose(part, dense @ dense.T @ delta.numpy(), atol=1e-12)


def test_coordinates_are_taken_in_the_order_of_their_scores() -> None:
    delta = update()
    scores = torch.tensor([0.1, 5, 0, 3, 9, 0, 0, 0.2], dtype=torch.float64)
    subspace = damage.coordinate_subspace(scores, 3)
    for k, kept in ((1, [4]), (2, [1, 4]), (3, [1, 3, 4])):
        assert subspace.project(delta, k).nonzero().flatten().tolist() == kept


@given(st.integers(1, P), st.integers(0, 100))
def test_projections_are_idempotent_and_never_lengthen(k: int, seed: int) -> None:
    delta = update(seed)
    subspace = damage.random_subspace(P, k, seed=seed)
    part = subspace.project(delta)
    torch.testing.assert_close(subspace.project(part), part)
    assert part.norm() <= delta.norm() * (1 + 1e-12)


def test_leakage_is_the_norm_of_the_off_diagonal_block() -> None:
    objective, params, _, H = polynomial()
    subspace = damage.random_subspace(P, 3, seed=5)
    P_S = subspace.basis @ subspace.basis.T
    expected = np.linalg.norm(P_S @ H.numpy() @ (np.eye(P) - P_S), 2)
    hessian = Hessian(objective, params)
    assert damage.leakage(hessian, subspace, 3) == pytest.approx(expected)
    assert damage.leakage(hessian, whole_space(H), 4) == pytest.approx(0, abs=1e-10)


def test_the_hessian_drifts_by_the_third_derivative() -> None:
    objective, params, _, H = polynomial(cubic=0.3)
    delta = update()
    unit = delta / delta.norm()
    table = damage.hessian_drift(objective, params, delta, [0.5, 2]).set_index("t")
    assert table.loc[0, "curvature"] == pytest.approx((unit @ H @ unit).item())
    expected = 0.3 * (delta * unit).norm() / delta.norm()
    np.testing.assert_allclose(table["rho"].dropna(), expected.item(), rtol=1e-10)


def test_participation_ratio_counts_equal_contributions() -> None:
    assert damage.participation_ratio(np.array([2.0, 2, 2, 0])) == pytest.approx(3)
    assert damage.participation_ratio(np.array([0.0, -5, 0])) == pytest.approx(1)
    with pytest.raises(ValueError, match="not zero"):
        damage.participation_ratio(np.zeros(3))


def test_directions_needed_start_with_the_largest() -> None:
    contributions = np.array([1.0, 6, 3])
    assert damage.directions_needed(contributions, 10, 0.5) == 1
    assert damage.directions_needed(contributions, 10, 0.9) == 2
    assert damage.directions_needed(contributions, 20, 0.9) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o, p: damage.taylor_damage(o, p, update(), [0.0]), "positive multiples"),
        (lambda o, p: damage.random_subspace(P, 2).project(update(), 3), "expected 1 to 2"),
        (lambda o, p: damage.random_subspace(P, 2).project(update()[:4]), r"shape \(8,\), got \(4,\)"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    objective, params, *_ = polynomial()
    with pytest.raises(ValueError, match=message):
        call(objective, params)
