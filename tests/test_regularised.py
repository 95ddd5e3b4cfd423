"""EWC and projected gradients: autograd of the penalty, closed forms, conditions of optimality, another solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn

from crossdomain import regularised
from crossdomain.curvature import ParameterSpace
from crossdomain.objectives import Objective
from crossdomain.regularised import Anchor, GradientCallback, projected

P = 6


def vectors(seed: int, count: int, size: int = P) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(count)]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(2, 2)  # six parameters


def step(callback: GradientCallback, model: nn.Module | None) -> None:
    callback.on_pre_optimizer_step(None, None, None, model=model)  # type: ignore[arg-type]


# --- EWC ---


def test_the_penalty_is_the_gradient_of_the_sum_of_quadratic_forms() -> None:
    model = network()
    anchors = [Anchor(torch.rand(P), torch.randn(P)) for _ in range(2)]
    x = torch.randn(5, 2)
    strength = 0.7

    def theta() -> Tensor:
        return torch.cat([p.reshape(-1) for p in model.parameters()])

    model(x).square().sum().backward()
    step(GradientCallback(regularised.elastic_penalty(anchors, strength)), model)
    found = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    penalty = torch.stack([(a.fisher * (theta() - a.params) ** 2).sum() for a in anchors]).sum()
    (model(x).square().sum() + strength / 2 * penalty).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found, expected)


def test_at_the_anchor_ewc_changes_nothing() -> None:
    model = network()
    params = {name: p.detach() for name, p in model.named_parameters()}
    (gradient,) = vectors(1, 1)
    anchor = Anchor(torch.rand(P), ParameterSpace(params).flatten(params))
    found = regularised.elastic_penalty([anchor], 100.0)(gradient.float(), params)
    assert torch.equal(found, gradient.float())


# --- Projection ---


def test_one_protected_gradient_has_the_closed_form() -> None:
    gradient, other = vectors(2, 2)
    conflicting = -other * torch.sign(gradient @ other)
    expected = gradient - (gradient @ conflicting) / (conflicting @ conflicting) * conflicting
    torch.testing.assert_close(projected(gradient, [conflicting]), expected)
    torch.testing.assert_close(projected(gradient, [-conflicting]), gradient)  # they agree: nothing to do


@given(st.integers(0, 500), st.integers(1, 4), st.floats(-6, 6))
def test_what_is_projected_meets_the_conditions_of_the_nearest_point(seed: int, count: int, magnitude: float) -> None:
    gradient, *protected = vectors(seed, 1 + count)
    protected[0] = protected[0] * 10**magnitude  # gradients of domains differ in size
    found = projected(gradient, protected)
    units = [g / g.norm() for g in protected]
    assert all(unit @ found >= -1e-9 * gradient.norm() for unit in units)
    assert (found - gradient) @ found == pytest.approx(0, abs=1e-9 * float(gradient @ gradient))  # of a cone
    assert found.norm() <= gradient.norm() * (1 + 1e-9)
    torch.testing.assert_close(projected(found, protected), found, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_another_solver_finds_the_same_point(seed: int) -> None:
    gradient, *protected = (v.numpy() for v in vectors(seed, 4))
    answer = minimize(
        lambda u: 0.5 * ((u - gradient) ** 2).sum(),
        np.zeros(P),
        jac=lambda u: u - gradient,
        constraints=[{"type": "ineq", "fun": lambda u, g=g: g @ u, "jac": lambda u, g=g: g} for g in protected],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found = projected(torch.as_tensor(gradient), [torch.as_tensor(g) for g in protected])
    np.testing.assert_allclose(found.numpy(), answer.x, atol=1e-5)


def test_dependent_and_zero_gradients_do_no_harm() -> None:
    gradient, other = vectors(3, 2)
    other = -other * torch.sign(gradient @ other)
    alone = projected(gradient, [other])
    torch.testing.assert_close(projected(gradient, [other, other, torch.zeros(P, dtype=torch.float64)]), alone)
    assert projected(torch.zeros(P), [torch.ones(P)]).tolist() == [0.0] * P


def test_a_policys_gradient_is_projected_against_those_of_losses() -> None:
    model = network()
    target = torch.randn(P, generator=torch.Generator().manual_seed(4))

    def outputs(params: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        theta = torch.cat([params[name].reshape(-1) for name in params])
        return ((theta - target) ** 2).sum() * batch["weight"]

    loss = Objective("distance", "one row", [{"weight": torch.ones(1)}], outputs, lambda out, batch: out)
    params = {name: p.detach() for name, p in model.named_parameters()}
    theta = ParameterSpace(params).flatten(params)
    away = target - theta  # a step against this gradient goes away from the target
    for parameter, part in zip(model.parameters(), ParameterSpace(params).unflatten(away).values(), strict=True):
        parameter.grad = part.clone()
    step(GradientCallback(regularised.projection([loss])), model)
    found = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found, torch.zeros(P), atol=1e-5, rtol=0)


def test_a_frozen_parameter_is_refused() -> None:
    model = network()
    for parameter in list(model.parameters())[:1]:
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(ValueError, match="1 of 2 parameters have a gradient"):
        step(GradientCallback(lambda gradient, params: gradient), model)
