"""The theory chapter's statements against losses whose constants are known, and against hypotheses that fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import svdvals
from scipy.sparse.linalg import aslinearoperator

from crossdomain import bounds, paths

Array = NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(2, 9)
SLACK = 1e-9  # relative: what rounding in float64 may add to a quantity that meets its bound


@dataclass(frozen=True)
class Loss:
    """gᵀx + ½ xᵀHx + Σ c_j h(a_jᵀx) for orthonormal a_j: all derivatives in closed form, minimum or not.

    `h` is one of `SHAPES`, a function whose derivatives up to the second vanish at 0; its third is between −1 and 1 where
    that can be, so that max |c_j| is the Lipschitz constant of the Hessian.
    """

    g: Array
    H: Array
    a: Array  # (p, p), orthonormal columns
    c: Array
    shape: str

    def value(self, x: Array) -> float:
        h, _, _ = SHAPES[self.shape]
        return float(self.g @ x + x @ self.H @ x / 2 + self.c @ h(self.a.T @ x))

    def gradient(self, x: Array) -> Array:
        _, h1, _ = SHAPES[self.shape]
        return self.g + self.H @ x + self.a @ (self.c * h1(self.a.T @ x))

    def hessian(self, x: Array) -> Array:
        _, _, h2 = SHAPES[self.shape]
        return self.H + (self.a * (self.c * h2(self.a.T @ x))) @ self.a.T

    def lipschitz(self, radius: float) -> float:
        """Lipschitz constant of the Hessian within that distance of 0."""
        return float(np.abs(self.c).max()) * (6 * radius if self.shape == "quartic" else 1)


Functions = tuple[Callable[[Array], Array], Callable[[Array], Array], Callable[[Array], Array]]
SHAPES: dict[str, Functions] = {
    "cubic": (lambda u: u**3 / 6, lambda u: u**2 / 2, lambda u: u),
    "sine": (lambda u: u - np.sin(u), lambda u: 1 - np.cos(u), lambda u: np.sin(u)),
    "quartic": (lambda u: u**4 / 4, lambda u: u**3, lambda u: 3 * u**2),
    "none": (lambda u: 0 * u, lambda u: 0 * u, lambda u: 0 * u),
}


def symmetric(rng: np.random.Generator, size: int) -> Array:
    """Of both signs, as the Hessian of an expected reward is."""
    matrix = rng.normal(size=(size, size))
    return matrix + matrix.T


def semidefinite(rng: np.random.Generator, size: int) -> Array:
    factor = rng.normal(size=(size, size))
    return factor @ factor.T


def orthonormal(rng: np.random.Generator, size: int, columns: int) -> Array:
    return np.linalg.qr(rng.normal(size=(size, columns)))[0]


def random_loss(rng: np.random.Generator, size: int, shape: str, H: Array | None = None) -> Loss:
    H = symmetric(rng, size) if H is None else H
    return Loss(rng.normal(size=size), H, orthonormal(rng, size, size), rng.normal(size=size), shape)


def curved_on(rng: np.random.Generator, H: Array, V: Array) -> Array:
    """H changed on the span of V alone, so that its curvature there is between 0.5 and 4."""
    k = V.shape[1]
    rotation = orthonormal(rng, k, k)
    wanted = rotation @ np.diag(rng.uniform(0.5, 4, k)) @ rotation.T
    return H + V @ (wanted - V.T @ H @ V) @ V.T


def descend(gradient: Callable[[Array], Array], start: Array, alpha: float, steps: int) -> list[Array]:
    path = [start]
    for _ in range(steps):
        path.append(path[-1] - alpha * gradient(path[-1]))
    return path


def norms(vectors: list[Array]) -> Array:
    return np.array([np.linalg.norm(vector) for vector in vectors])


# --- Proposition 1: the damage expansion ---


@given(SEEDS, SIZES, st.sampled_from(["cubic", "sine", "quartic", "none"]), st.floats(1e-3, 10))
def test_the_expansion_error_never_exceeds_its_bound(seed: int, size: int, shape: str, length: float) -> None:
    rng = np.random.default_rng(seed)
    loss = random_loss(rng, size, shape)
    delta = rng.normal(size=size) * length
    damage = loss.value(delta) - loss.value(np.zeros(size))
    error = abs(damage - loss.g @ delta - delta @ loss.H @ delta / 2)
    norm = float(np.linalg.norm(delta))
    rho = 0.0 if shape == "none" else loss.lipschitz(norm)
    scale = abs(damage) + abs(loss.g @ delta) + abs(delta @ loss.H @ delta)
    assert error <= bounds.expansion_remainder_bound(rho, norm) + SLACK * scale


@pytest.mark.parametrize("length", [0.1, 1.0, 7.0])
def test_a_cube_attains_the_expansion_bound(length: float) -> None:
    rho = 3.0
    assert bounds.expansion_remainder_bound(rho, length) == pytest.approx(rho * length**3 / 6, rel=1e-14)
    cube = Loss(np.zeros(1), np.zeros((1, 1)), np.eye(1), np.array([rho]), "cubic")
    assert cube.value(np.array([length])) == pytest.approx(bounds.expansion_remainder_bound(rho, length), rel=1e-14)


def test_a_lipschitz_constant_measured_at_the_start_alone_is_not_enough() -> None:
    quartic = Loss(np.zeros(1), np.zeros((1, 1)), np.eye(1), np.ones(1), "quartic")
    near, far = quartic.lipschitz(0.1), quartic.lipschitz(2.0)
    damage = quartic.value(np.array([2.0]))
    assert bounds.expansion_remainder_bound(near, 2.0) < damage < bounds.expansion_remainder_bound(far, 2.0)


@given(SEEDS, SIZES, st.floats(1, 5), st.floats(0, 1))
def test_within_the_window_the_second_order_term_is_the_damage_to_one_part_in_c(
    seed: int, size: int, factor: float, where: float
) -> None:
    rng = np.random.default_rng(seed)
    loss = random_loss(rng, size, "cubic")
    direction = rng.normal(size=size)
    direction /= np.linalg.norm(direction)
    curvature = abs(direction @ loss.H @ direction)
    # a gradient for which a window exists, at the strength the corollary allows at most or less
    epsilon = where * 3 * curvature**2 / (8 * factor**2 * loss.lipschitz(0)) * 0.999
    loss = Loss(loss.g / np.linalg.norm(loss.g) * epsilon, loss.H, loss.a, loss.c, "cubic")
    window = bounds.second_order_window(curvature, epsilon, loss.lipschitz(0), factor)
    assert window is not None
    for length in np.linspace(*window, 5)[1:]:  # not at the lower end, which is 0 without a gradient
        second = length**2 * (direction @ loss.H @ direction) / 2
        damage = loss.value(length * direction) - loss.value(np.zeros(size))
        assert abs(damage - second) <= abs(second) / factor * (1 + 1e-7)


@pytest.mark.parametrize(("curvature", "epsilon", "rho", "factor"), [(2.0, 0.1, 0.5, 1.0), (3.0, 0.02, 4.0, 2.5)])
def test_the_window_ends_where_the_terms_balance(curvature: float, epsilon: float, rho: float, factor: float) -> None:
    window = bounds.second_order_window(curvature, epsilon, rho, factor)
    roots = np.roots([factor * rho / 6, -curvature / 2, factor * epsilon])
    assert window == pytest.approx(sorted(roots), rel=1e-10)


def test_the_window_closes_at_the_curvature_the_corollary_names() -> None:
    factor, rho, epsilon = 2.0, 3.0, 0.5
    least = factor * np.sqrt(8 * rho * epsilon / 3)
    assert bounds.second_order_window(least * 0.999, epsilon, rho, factor) is None
    low, high = bounds.second_order_window(least * 1.000001, epsilon, rho, factor) or (0, 0)
    assert low == pytest.approx(high, rel=1e-2)


def test_without_a_gradient_or_third_order_the_window_is_open_at_that_end() -> None:
    assert bounds.second_order_window(2.0, 0.0, 0.5, 1.0) == (0.0, pytest.approx(3 * 2.0 / 0.5))
    assert bounds.second_order_window(2.0, 0.3, 0.0, 1.0) == (pytest.approx(2 * 0.3 / 2.0), np.inf)


# --- Lemmas 2 and 3: the KL objective ---


def softmax_policy(seed: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
    """Log-probabilities (prompts, responses) of a small non-linear policy, and parameters of it."""
    torch_rng = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 4, generator=torch_rng, dtype=torch.float64)

    def log_policy(theta: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(x @ theta[:8].reshape(4, 2))
        return torch.log_softmax(hidden @ theta[8:].reshape(2, 5), dim=1)

    return log_policy, torch.randn(18, generator=torch_rng, dtype=torch.float64)


def kl_from(log_policy: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    reference = log_policy(at).detach()
    return (reference.exp() * (reference - log_policy(theta))).sum(1).mean()


@pytest.mark.parametrize("seed", range(3))
def test_kl_has_no_gradient_and_the_fisher_for_its_hessian(seed: int) -> None:
    log_policy, at = softmax_policy(seed)

    def kl(theta: torch.Tensor) -> torch.Tensor:
        return kl_from(log_policy, at, theta)

    gradient = torch.autograd.functional.jacobian(kl, at)
    hessian = torch.autograd.functional.hessian(kl, at)
    scores = torch.autograd.functional.jacobian(log_policy, at)  # (prompts, responses, parameters)
    fisher = torch.einsum("xy,xyi,xyj->ij", log_policy(at).exp(), scores, scores) / 3
    assert float(gradient.abs().max()) <= 1e-15
    torch.testing.assert_close(hessian, fisher, rtol=1e-10, atol=1e-13)
    assert np.linalg.eigvalsh(hessian.numpy())[0] > -1e-13


@pytest.mark.parametrize("logit", [-1.5, 1.5])
def test_the_hessian_of_an_expected_reward_has_the_sign_of_what_is_left_to_learn(logit: float) -> None:
    """Two responses, one right: −π curves down while π < ½, so that μ > 0 fails there, and up above."""
    z = torch.tensor(logit, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda u: -torch.sigmoid(u), z)
    assert np.sign(float(hessian)) == np.sign(logit)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("length", [0.01, 0.3, 3.0])
def test_kl_bounds_the_change_of_any_reward(seed: int, length: float) -> None:
    log_policy, at = softmax_policy(seed)
    rng = torch.Generator().manual_seed(seed)
    theta = at + length * torch.randn(18, generator=rng, dtype=torch.float64)
    change = log_policy(theta).exp() - log_policy(at).exp()
    worst = change.clamp(min=0).sum(1).mean()  # the reward of 1 where the policy gained, the worst there is
    kl = float(kl_from(log_policy, at, theta))
    assert 0 < float(worst) <= np.sqrt(kl / 2)


# --- Proposition 2: concentration ---


@given(SEEDS, SIZES, st.data())
def test_the_three_terms_are_those_of_dense_projectors_and_sum_to_the_second_order(
    seed: int, size: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    H, delta = symmetric(rng, size), rng.normal(size=size)
    V = orthonormal(rng, size, data.draw(st.integers(1, size)))
    P = V @ V.T
    Q = np.eye(size) - P
    found = bounds.concentration(H, V, delta)
    expected = (delta @ P @ H @ P @ delta / 2, delta @ P @ H @ Q @ delta, delta @ Q @ H @ Q @ delta / 2)
    scale = np.linalg.norm(H, 2) * (delta @ delta)
    assert (found.conflict, found.cross, found.rest) == pytest.approx(expected, abs=1e-12 * scale)
    assert found.second_order == pytest.approx(delta @ H @ delta / 2, abs=1e-12 * scale)
    kappa, eta = svdvals(P @ H @ Q)[0], svdvals(Q @ H @ Q)[0]
    allowed = bounds.concentration_bound(kappa, eta, *norms([P @ delta, Q @ delta]))
    assert abs(found.cross + found.rest) <= allowed + 1e-12 * scale


def test_aligned_parts_attain_the_concentration_bound() -> None:
    kappa, eta, a, b = 0.7, 0.4, 2.0, 3.0
    H = np.array([[5.0, kappa], [kappa, eta]])
    found = bounds.concentration(H, np.eye(2)[:, :1], np.array([a, b]))
    assert found.cross + found.rest == pytest.approx(bounds.concentration_bound(kappa, eta, a, b), rel=1e-14)


@given(SEEDS, SIZES, st.data())
def test_constants_of_a_subspace_are_those_of_dense_projectors(seed: int, size: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    H = symmetric(rng, size)
    V = orthonormal(rng, size, data.draw(st.integers(1, size)))
    P = V @ V.T
    found = bounds.subspace_constants(H, V)
    scale = float(np.linalg.norm(H, 2))
    assert found.kappa == pytest.approx(svdvals(P @ H @ (np.eye(size) - P))[0], abs=1e-12 * scale)
    shifted = np.linalg.eigvalsh(
        P @ (H + 2 * scale * np.eye(size)) @ P
    )  # on the complement 0, on the subspace above it
    assert (found.mu, found.L) == pytest.approx(
        (shifted[-V.shape[1]] - 2 * scale, shifted[-1] - 2 * scale), abs=1e-11 * scale
    )


def test_eigenvectors_of_the_whole_hessian_leak_nothing_but_those_of_a_route_do() -> None:
    rng = np.random.default_rng(0)
    H = symmetric(rng, 8)
    whole = np.linalg.eigh(H)[1][:, -2:]
    assert bounds.subspace_constants(H, whole).kappa < 1e-13
    route = np.zeros((8, 2))
    route[:5] = np.linalg.eigh(H[:5, :5])[1][:, -2:]  # eigenvectors of P_R H P_R, R the first five coordinates
    assert bounds.subspace_constants(H, route).kappa == pytest.approx(
        np.linalg.norm(H[5:, :5] @ route[:5], 2), rel=1e-12
    )


@given(SEEDS, SIZES, st.data())
def test_on_an_invariant_subspace_of_a_semidefinite_hessian_the_captured_share_is_a_share(
    seed: int, size: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    H = semidefinite(rng, size)
    V = np.linalg.eigh(H)[1][:, -data.draw(st.integers(1, size)) :]
    assert -1e-9 <= bounds.concentration(H, V, rng.normal(size=size)).captured_share <= 1 + 1e-9


@pytest.mark.parametrize(
    ("H", "share"),
    [
        ([[1.0, 0.9], [0.9, 1.0]], 5.0),  # semidefinite, but it leaks: the parts of δ cancel
        ([[1.0, 0.0], [0.0, -2.0]], -1.0),  # no leakage, but indefinite
    ],
)
def test_without_its_hypotheses_the_captured_share_is_no_share(H: list[list[float]], share: float) -> None:
    found = bounds.concentration(np.array(H), np.eye(2)[:, :1], np.array([1.0, -1.0]))
    assert found.captured_share == pytest.approx(share)


def test_the_share_of_no_damage_is_not_a_number() -> None:
    assert np.isnan(bounds.concentration(np.eye(2), np.eye(2)[:, :1], np.zeros(2)).captured_share)


def test_updates_without_any_preference_put_into_a_subspace_its_share_of_the_trace() -> None:
    """Averaged over an orthonormal frame, as over the sphere: what a captured share must be compared with."""
    rng = np.random.default_rng(3)
    H, V = semidefinite(rng, 7), orthonormal(rng, 7, 2)
    frame = [bounds.concentration(H, V, delta) for delta in orthonormal(rng, 7, 7).T]
    found = sum(c.conflict for c in frame) / sum(c.second_order for c in frame)
    assert found == pytest.approx(np.trace(V.T @ H @ V) / np.trace(H), rel=1e-12)


def test_an_operator_gives_what_its_matrix_gives() -> None:
    rng = np.random.default_rng(1)
    H, V, delta, g = symmetric(rng, 6), orthonormal(rng, 6, 2), rng.normal(size=6), rng.normal(size=6)
    operator, mask = aslinearoperator(H), np.arange(6) < 3
    assert bounds.concentration(operator, V, delta) == bounds.concentration(H, V, delta)
    assert bounds.subspace_constants(operator, V) == bounds.subspace_constants(H, V)
    assert bounds.rollback_change(g, operator, delta, mask, 0.5) == bounds.rollback_change(g, H, delta, mask, 0.5)


# --- Theorem 1: the refresh contracts ---


@given(SEEDS, SIZES, st.sampled_from(["none", "cubic", "sine", "quartic"]), st.floats(0.01, 1), st.data())
def test_gradient_descent_stays_within_the_contraction_bound(
    seed: int, size: int, shape: str, step: float, data: st.DataObject
) -> None:
    """Leakage, negative curvature outside, a gradient at θ_A and a non-quadratic loss: all at once."""
    rng = np.random.default_rng(seed)
    V = orthonormal(rng, size, data.draw(st.integers(1, size)))
    loss = random_loss(rng, size, shape, curved_on(rng, symmetric(rng, size), V))
    constants = bounds.subspace_constants(loss.H, V)
    alpha = step * 1.999 / constants.L
    path = descend(loss.gradient, 0.1 * rng.normal(size=size), alpha, 4)
    inside = [V @ (V.T @ e) for e in path]
    rest = norms([e - p for e, p in zip(path, inside, strict=True)])
    remainders = norms([V.T @ (loss.gradient(e) - loss.H @ e) for e in path])
    rounding = 1e-12 * (1 + np.maximum.accumulate(norms(path)))
    for steps in range(1, len(path)):
        bound = bounds.contraction_bound(
            alpha,
            constants.mu,
            constants.L,
            steps,
            float(np.linalg.norm(inside[0])),
            constants.kappa,
            float(rest[:steps].max()),
            float(remainders[:steps].max()),
        )
        assert bound.shape == (steps + 1,)
        assert (norms(inside[: steps + 1]) <= bound * (1 + SLACK) + rounding[: steps + 1]).all()


@given(SEEDS, SIZES, st.sampled_from(["none", "cubic", "sine", "quartic"]), st.floats(1e-3, 5))
def test_the_remainder_of_the_gradient_never_exceeds_its_bound(seed: int, size: int, shape: str, length: float) -> None:
    rng = np.random.default_rng(seed)
    loss = random_loss(rng, size, shape)
    x = rng.normal(size=size) * length
    remainder = float(np.linalg.norm(loss.gradient(x) - loss.H @ x))
    distance = float(np.linalg.norm(x))
    rho = 0.0 if shape == "none" else loss.lipschitz(distance)
    allowed = bounds.gradient_remainder_bound(float(np.linalg.norm(loss.g)), rho, distance)
    assert remainder <= allowed * (1 + SLACK) + SLACK * float(np.linalg.norm(loss.H, 2)) * distance


def test_at_the_checkpoint_itself_the_remainder_is_the_gradient() -> None:
    loss = random_loss(np.random.default_rng(0), 3, "cubic")
    assert bounds.gradient_remainder_bound(float(np.linalg.norm(loss.g)), 2.0, 0.0) == np.linalg.norm(
        loss.gradient(np.zeros(3))
    )


@pytest.mark.parametrize("alpha", [0.1, 0.4, 0.49])  # below 1/L, then above it but below 2/L
def test_the_papers_bound_is_attained_where_nothing_leaks(alpha: float) -> None:
    """H = diag(1, 4): the slower of the two directions has the rate of the theorem."""
    H = np.diag([1.0, 4.0])
    gamma = bounds.contraction_rate(alpha, 1.0, 4.0)
    slowest = np.eye(2)[np.argmax(np.abs(1 - alpha * np.diag(H)))]
    path = descend(lambda e: H @ e, slowest, alpha, 8)
    np.testing.assert_allclose(norms(path), bounds.contraction_bound(alpha, 1.0, 4.0, 8, 1.0), rtol=1e-12)
    assert (gamma == pytest.approx(1 - alpha)) == (alpha <= 2 / (1 + 4))


def test_a_constant_remainder_attains_its_floor() -> None:
    mu, alpha, r = 2.0, 0.3, np.array([-0.5])
    path = descend(lambda e: mu * e + r, np.array([1.0]), alpha, 20)
    np.testing.assert_allclose(norms(path), bounds.contraction_bound(alpha, mu, mu, 20, 1.0, r_sup=0.5), rtol=1e-12)


def test_leakage_attains_its_floor_which_no_number_of_steps_lowers() -> None:
    mu, kappa, alpha = 2.0, 0.6, 0.3
    H = np.array([[mu, kappa], [kappa, kappa**2 / mu]])
    stuck = np.array([-kappa / mu, 1.0])  # its gradient is zero
    path = descend(lambda e: H @ e, stuck, alpha, 10)
    bound = bounds.contraction_bound(alpha, mu, mu, 10, kappa / mu, kappa=kappa, q_sup=1.0)
    np.testing.assert_allclose(np.abs([e[0] for e in path]), bound, rtol=1e-12)


@pytest.mark.parametrize(("alpha", "grows"), [(0.45, False), (0.5, True), (0.55, True)])
def test_a_step_of_twice_the_inverse_curvature_or_longer_does_not_contract_and_gets_no_bound(
    alpha: float, grows: bool
) -> None:
    H = np.diag([1.0, 4.0])
    path = descend(lambda e: H @ e, np.array([0.0, 1.0]), alpha, 20)
    assert (norms(path)[-1] >= 1) == grows
    if grows:
        with pytest.raises(ValueError, match=r"0 < alpha < 2/L = 0.5.*at most 2/\(mu \+ L\) = 0.4"):
            bounds.contraction_bound(alpha, 1.0, 4.0, 20, 1.0)


def test_where_the_loss_curves_down_descent_carries_away_and_there_is_no_bound() -> None:
    H = np.diag([-0.5, 4.0])
    assert norms(descend(lambda e: H @ e, np.array([1.0, 0.0]), 0.2, 10))[-1] > 1
    with pytest.raises(ValueError, match=r"mu=-0.5.*0 < mu ≤ L.*fewer eigenvectors"):
        bounds.contraction_rate(0.2, -0.5, 4.0)


def test_leaving_out_the_leakage_would_break_the_bound() -> None:
    """The paper's form of the bound fails on the same path that the full one holds on."""
    H = np.array([[2.0, 0.6], [0.6, 1.0]])
    delta = np.array([0.0, 1.0])
    path = descend(lambda e: H @ e, delta, 0.3, 3)
    inside = np.abs([e[0] for e in path])
    assert (inside[1:] > bounds.contraction_bound(0.3, 2.0, 2.0, 3, 0.0)[1:]).all()
    assert (inside <= bounds.contraction_bound(0.3, 2.0, 2.0, 3, 0.0, kappa=0.6, q_sup=1.0)).all()


@given(SEEDS, SIZES, st.floats(0.01, 1), st.floats(0.01, 0.5))
def test_a_share_tau_is_left_after_as_many_steps_as_the_corollary_says(
    seed: int, size: int, step: float, tau: float
) -> None:
    eigenvalues = np.random.default_rng(seed).uniform(0.5, 4, size)
    mu, L = float(eigenvalues.min()), float(eigenvalues.max())
    alpha = step * 2 / (mu + L) * (1 - 1e-12)
    steps = int(np.ceil(np.log(1 / tau) / (alpha * mu)))
    assert bounds.contraction_bound(alpha, mu, L, steps, 1.0)[-1] <= tau * (1 + SLACK)


@given(SEEDS, SIZES, st.floats(0.01, 0.99))
def test_damage_on_an_invariant_subspace_contracts_at_the_square_of_the_rate(seed: int, size: int, step: float) -> None:
    rng = np.random.default_rng(seed)
    eigenvalues = rng.uniform(0.5, 4, size)
    rotation = orthonormal(rng, size, size)
    H = rotation @ np.diag(eigenvalues) @ rotation.T
    mu, L = float(eigenvalues.min()), float(eigenvalues.max())
    alpha = 2 * step / L
    path = descend(lambda e: H @ e, rng.normal(size=size), alpha, 6)
    damage = np.array([e @ H @ e / 2 for e in path])
    rates = bounds.contraction_bound(alpha, mu, L, 6, 1.0)
    assert (damage <= damage[0] * rates**2 * (1 + SLACK) + 1e-14).all()


# --- Proposition 3: what a refresh costs other domains ---


@given(SEEDS, SIZES, st.sampled_from(["cubic", "sine"]), st.floats(0.01, 0.3))
def test_collateral_damage_never_exceeds_its_bound(seed: int, size: int, shape: str, alpha: float) -> None:
    """A is refreshed by its own loss; C's derivatives are those where the refresh starts."""
    rng = np.random.default_rng(seed)
    refreshed, other = random_loss(rng, size, "sine", semidefinite(rng, size)), random_loss(rng, size, shape)
    path = descend(refreshed.gradient, rng.normal(size=size), alpha, 5)
    start, end = path[0], path[-1]
    top = float(np.linalg.eigvalsh(other.hessian(start))[-1])
    displacement = float(np.linalg.norm(end - start))
    travelled = alpha * float(norms([refreshed.gradient(theta) for theta in path[:-1]]).sum())
    gradient = float(np.linalg.norm(other.gradient(start)))
    allowed = bounds.collateral_bound(gradient, top, other.lipschitz(0), displacement)
    assert displacement <= travelled * (1 + SLACK)
    assert allowed <= bounds.collateral_bound(gradient, top, other.lipschitz(0), travelled) * (1 + SLACK)
    scale = abs(other.value(start)) + abs(other.value(end))
    assert other.value(end) - other.value(start) <= allowed + SLACK * scale


def test_a_domain_that_is_worst_placed_attains_the_collateral_bound() -> None:
    other = Loss(np.array([0.5]), np.array([[2.0]]), np.eye(1), np.array([3.0]), "cubic")
    rise = other.value(np.array([0.7]))
    assert bounds.collateral_bound(0.5, 2.0, 3.0, 0.7) == pytest.approx(rise, rel=1e-14)


def test_the_collateral_bound_limits_harm_and_not_gain() -> None:
    other = Loss(np.array([-1.0]), np.array([[-8.0]]), np.eye(1), np.zeros(1), "cubic")
    assert bounds.collateral_bound(1.0, -8.0, 0.0, 1.0) == 1.0
    assert other.value(np.array([1.0])) == -5.0  # falls by more than the bound


@given(SEEDS, st.integers(3, 9), st.integers(0, 30), st.floats(0.01, 1))
def test_a_short_refresh_repairs_the_subspace_and_leaves_the_rest_where_it_was(
    seed: int, size: int, steps: int, step: float
) -> None:
    """A gap in the spectrum: curvature in [1, 4] on two eigenvectors, at most 0.01 on the others."""
    rng = np.random.default_rng(seed)
    rotation = orthonormal(rng, size, size)
    eta = 0.01
    eigenvalues = np.concatenate([rng.uniform(1, 4, 2), rng.uniform(0, eta, size - 2)])
    H = rotation @ np.diag(eigenvalues) @ rotation.T
    V, W = rotation[:, :2], rotation[:, 2:]
    delta = rng.normal(size=size)
    alpha = step / float(eigenvalues.max())
    end = descend(lambda e: H @ e, delta, alpha, steps)[-1]
    conflict = float(np.linalg.norm(V.T @ delta))
    mu, L = float(eigenvalues[:2].min()), float(eigenvalues[:2].max())
    left = bounds.contraction_bound(alpha, mu, L, steps, conflict)[-1]
    assert np.linalg.norm(V.T @ end) <= left * (1 + SLACK) + 1e-12
    assert np.linalg.norm(W.T @ (end - delta)) <= steps * alpha * eta * np.linalg.norm(W.T @ delta) + 1e-12
    assert np.linalg.norm(V.T @ (end - delta)) <= conflict * (1 + SLACK)


# --- Proposition 4: rollback ---


@given(SEEDS, SIZES, st.floats(-1, 2))
def test_rollback_changes_the_predicted_damage_by_exactly_the_formula(seed: int, size: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    model = random_loss(rng, size, "none")
    delta, mask = rng.normal(size=size), rng.random(size) < 0.5
    back = np.where(mask, (1 - share) * delta, delta)
    found = bounds.rollback_change(model.g, model.H, delta, mask, share)
    scale = float(np.linalg.norm(model.g) + np.linalg.norm(model.H, 2)) * (1 + delta @ delta)
    assert found == pytest.approx(model.value(back) - model.value(delta), abs=1e-11 * scale)


@given(SEEDS, SIZES, st.floats(0, 1))
def test_rollback_changes_the_actual_damage_by_the_formula_up_to_two_remainders(
    seed: int, size: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    loss = random_loss(rng, size, "sine")
    delta, mask = rng.normal(size=size), rng.random(size) < 0.5
    back = np.where(mask, (1 - share) * delta, delta)
    found = bounds.rollback_change(loss.g, loss.H, delta, mask, share)
    remainder = sum(bounds.expansion_remainder_bound(loss.lipschitz(0), float(n)) for n in norms([delta, back]))
    assert abs(loss.value(back) - loss.value(delta) - found) <= remainder + 1e-10


@given(SEEDS, SIZES, st.floats(0, 2))
def test_the_fisher_form_is_the_general_one_for_a_diagonal_without_gradient(seed: int, size: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    fisher, delta, mask = rng.random(size), rng.normal(size=size), rng.random(size) < 0.5
    general = bounds.rollback_change(np.zeros(size), np.diag(fisher), delta, mask, share)
    assert bounds.fisher_rollback_change(fisher, delta, mask, share) == pytest.approx(general, abs=1e-12)


def test_by_the_fisher_all_of_a_coordinate_is_taken_back_and_gives_its_score_whatever_its_sign() -> None:
    fisher, mask = np.array([2.0, 3.0]), np.array([True, False])
    changes = [
        bounds.fisher_rollback_change(fisher, sign * np.array([0.5, 1.0]), mask, share)
        for sign in (-1, 1)
        for share in (0.5, 1.0, 1.5)
    ]
    score = 2.0 * 0.5**2 / 2
    assert changes == pytest.approx([-0.75 * score, -score, -0.75 * score] * 2)


def test_taking_back_one_of_two_coordinates_that_compensate_each_other_does_harm() -> None:
    """The Fisher's diagonal promises repair; what it leaves out, the curvature between coordinates, turns it round."""
    H = np.array([[1.0, -0.9], [-0.9, 1.0]])
    delta, mask = np.ones(2), np.array([True, False])
    assert bounds.fisher_rollback_change(np.diag(H), delta, mask, 1.0) == -0.5
    assert bounds.rollback_change(np.zeros(2), H, delta, mask, 1.0) == pytest.approx(0.4)


# --- Proposition 5: alternating refresh ---


def log_sum_exp(seed: int) -> tuple[Callable[[Array], float], Callable[[Array], Array], Callable[[Array], Array]]:
    """A smooth convex loss, far from quadratic, with its gradient and Hessian."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(6, 4)), rng.normal(size=6)

    def weights(x: Array) -> Array:
        z = A @ x + b
        w: Array = np.exp(z - z.max())
        return w / w.sum()

    def hessian(x: Array) -> Array:
        w = weights(x)
        mean = A.T @ w
        result: Array = (A.T * w) @ A - np.outer(mean, mean)
        return result

    return lambda x: float(np.logaddexp.reduce(A @ x + b)), lambda x: A.T @ weights(x), hessian


def slope(alphas: Array, errors: Array) -> float:
    return float(np.polyfit(np.log(alphas), np.log(errors), 1)[0])


def test_the_error_of_the_alternating_expansion_is_of_third_order_and_only_in_the_right_order() -> None:
    (_, gradient_A, hessian_A), (_, gradient_B, hessian_B) = log_sum_exp(1), log_sum_exp(2)
    x = np.random.default_rng(3).normal(size=4)
    alphas = np.geomspace(1e-3, 1e-2, 6)
    errors: dict[str, list[float]] = {
        "A first": [],
        "B first": [],
        "averaged": [],
        "wrong order": [],
        "first order": [],
    }
    for alpha in alphas:
        steps = (alpha, 0.5 * alpha)
        after_A, after_B = x - steps[0] * gradient_A(x), x - steps[1] * gradient_B(x)
        A_first = after_A - steps[1] * gradient_B(after_A) - x
        B_first = after_B - steps[0] * gradient_A(after_B) - x
        found = bounds.alternating_refresh(*steps, gradient_A(x), gradient_B(x), hessian_A(x), hessian_B(x))
        for name, actual, second in (
            ("A first", A_first, found.A_first),
            ("B first", B_first, found.B_first),
            ("averaged", (A_first + B_first) / 2, found.averaged),
            ("wrong order", A_first, found.B_first),
            ("first order", A_first, 0 * x),
        ):
            errors[name].append(float(np.linalg.norm(actual - found.first_order - second)))
    for name in ("A first", "B first", "averaged"):
        assert slope(alphas, np.array(errors[name])) == pytest.approx(3, abs=0.05), name
    for name in ("wrong order", "first order"):
        assert slope(alphas, np.array(errors[name])) == pytest.approx(2, abs=0.05), name


def test_the_averaged_term_climbs_the_inner_product_of_the_gradients() -> None:
    (_, gradient_A, hessian_A), (_, gradient_B, hessian_B) = log_sum_exp(1), log_sum_exp(2)
    x, h = np.random.default_rng(3).normal(size=4), 1e-5
    found = bounds.alternating_refresh(0.2, 0.3, gradient_A(x), gradient_B(x), hessian_A(x), hessian_B(x))
    differences = [
        (gradient_A(x + h * e) @ gradient_B(x + h * e) - gradient_A(x - h * e) @ gradient_B(x - h * e)) / (2 * h)
        for e in np.eye(4)
    ]
    np.testing.assert_allclose(found.averaged, 0.2 * 0.3 / 2 * np.array(differences), rtol=1e-7, atol=1e-9)


@given(SEEDS, SIZES, st.sampled_from(["none", "cubic", "sine"]), st.floats(0, 1), st.floats(0, 1))
def test_a_cycle_never_leaves_the_bound_around_its_expansion(
    seed: int, size: int, shape: str, alpha_A: float, alpha_B: float
) -> None:
    rng = np.random.default_rng(seed)
    A, B = random_loss(rng, size, shape), random_loss(rng, size, shape)
    after_A = -alpha_A * A.gradient(np.zeros(size))
    cycle = after_A - alpha_B * B.gradient(after_A)
    found = bounds.alternating_refresh(alpha_A, alpha_B, A.g, B.g, A.H, B.H)
    rho = 0.0 if shape == "none" else B.lipschitz(0)
    allowed = bounds.alternating_remainder_bound(alpha_A, alpha_B, rho, float(np.linalg.norm(A.g)))
    assert np.linalg.norm(cycle - found.first_order - found.A_first) <= allowed * (1 + SLACK) + 1e-12


def test_a_cube_attains_the_bound_of_the_alternating_expansion() -> None:
    one = np.ones(1)
    B = Loss(0 * one, np.zeros((1, 1)), np.eye(1), 2.0 * one, "cubic")
    after_A = -0.3 * one
    cycle = after_A - 0.4 * B.gradient(after_A)
    found = bounds.alternating_refresh(0.3, 0.4, one, B.g, np.zeros((1, 1)), B.H)
    assert abs(cycle - found.first_order - found.A_first)[0] == pytest.approx(
        bounds.alternating_remainder_bound(0.3, 0.4, 2.0, 1.0), rel=1e-12
    )


@given(SEEDS, SIZES, st.floats(0.01, 1))
def test_a_cycle_lowers_the_weighted_loss_as_the_corollary_says(seed: int, size: int, step: float) -> None:
    rng = np.random.default_rng(seed)
    H_A, H_B, b = semidefinite(rng, size), semidefinite(rng, size), rng.normal(size=size)
    w_A, w_B, x = 0.7, 0.3, rng.normal(size=size)
    H = w_A * H_A + w_B * H_B
    alpha = step / float(np.linalg.eigvalsh(H)[-1])

    def weighted(theta: Array) -> float:
        return float(w_A * theta @ H_A @ theta / 2 + w_B * (theta - b) @ H_B @ (theta - b) / 2)

    g_A, g_B = H_A @ x, H_B @ (x - b)
    after_A = x - alpha * w_A * g_A
    cycle = after_A - alpha * w_B * H_B @ (after_A - b)
    drift = alpha * w_A * w_B * float(np.linalg.eigvalsh(H_B)[-1]) * float(np.linalg.norm(g_A))
    joint = float(np.linalg.norm(w_A * g_A + w_B * g_B))
    assert weighted(cycle) - weighted(x) <= -alpha / 2 * (joint**2 - drift**2) + SLACK * weighted(x)


def test_a_stationary_point_of_the_sum_is_left_again_by_the_curvature_of_the_second() -> None:
    """L_A = x and L_B = x²/2 − 2x: the gradients cancel at 1, but the cycle rests where G = α H_B g_A, at 1 + α."""
    alpha = 0.1
    found = bounds.alternating_refresh(alpha, alpha, [1.0], [-1.0], np.zeros((1, 1)), np.ones((1, 1)))
    assert found.first_order == pytest.approx([0.0])
    assert found.A_first == pytest.approx([alpha**2])
    x = 1.0
    for _ in range(400):
        x -= alpha
        x -= alpha * (x - 2)
    assert x == pytest.approx(1 + alpha, rel=1e-12)


# --- The chapter and this file agree ---


def test_every_test_the_chapter_names_is_here_and_every_statement_names_one() -> None:
    page = (paths.root() / "book" / "theory.md").read_text()
    named = re.findall(r"::(test_\w+)`", page)
    assert [name for name in named if name not in globals()] == []
    statements = re.findall(
        r"^````\{prf:(?:proposition|theorem|corollary|lemma)\}.*?^````$", page, re.MULTILINE | re.DOTALL
    )
    assert len(statements) == 14
    assert [text.splitlines()[0] for text in statements if "::test_" not in text] == []


# --- What enters is checked ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bounds.expansion_remainder_bound(-1.0, 1.0), r"rho=-1.0: expected a finite number ≥ 0"),
        (lambda: bounds.expansion_remainder_bound(1.0, np.nan), r"step_norm=nan"),
        (lambda: bounds.second_order_window(0.0, 0.1, 1.0, 1.0), r"curvature=0.0: expected .* > 0"),
        (lambda: bounds.second_order_window(1.0, 0.1, 1.0, 0.5), r"factor=0.5: expected at least 1"),
        (lambda: bounds.concentration(np.eye(3), np.eye(2), np.ones(2)), r"expected shape \(2, 2\).*got \(3, 3\)"),
        (
            lambda: bounds.concentration(np.eye(3), np.eye(3)[:, :1], np.ones(2)),
            r"delta: expected shape \(3,\).*\(2,\)",
        ),
        (lambda: bounds.concentration(np.eye(2), np.ones((2, 2)), np.ones(2)), r"orthonormal.*numpy.linalg.qr"),
        (lambda: bounds.concentration(np.eye(2), np.ones(2), np.ones(2)), r"basis: expected shape \(p, k\)"),
        (lambda: bounds.concentration(np.eye(2), np.eye(2), np.array([1.0, np.inf])), r"delta: expected finite"),
        (lambda: bounds.subspace_constants(np.triu(np.ones((2, 2))), np.eye(2)), r"symmetric"),
        (lambda: bounds.contraction_rate(0.1, 2.0, 1.0), r"0 < mu ≤ L"),
        (lambda: bounds.contraction_rate(0.1, 0.0, 1.0), r"mu=0.0, L=1.0"),
        (lambda: bounds.contraction_rate(0.0, 1.0, 1.0), r"0 < alpha < 2/L"),
        (lambda: bounds.contraction_bound(0.1, 1.0, 1.0, 3, 1.0, kappa=-0.1), r"kappa=-0.1"),
        (lambda: bounds.collateral_bound(1.0, np.nan, 0.0, 1.0), r"top_eigenvalue=nan"),
        (lambda: bounds.rollback_change([1.0], np.eye(2), np.ones(2), [True, False], 1.0), r"g: expected shape \(2,\)"),
        (lambda: bounds.rollback_change(np.ones(2), np.eye(2), np.ones(2), [0, 1], 1.0), r"mask: expected booleans"),
        (lambda: bounds.fisher_rollback_change([-1.0], [1.0], [True], 1.0), r"fisher: expected squared gradients"),
        (
            lambda: bounds.alternating_refresh(1, 1, [1.0], [1.0, 2.0], np.eye(1), np.eye(1)),
            r"g_B: expected shape \(1,\)",
        ),
        (lambda: bounds.alternating_remainder_bound(0.1, -0.1, 1.0, 1.0), r"alpha_second=-0.1"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
