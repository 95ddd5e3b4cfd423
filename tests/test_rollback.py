"""Rollback: sets against numpy, Proposition 4 in closed form and by a dense Hessian, the greedy set by enumeration."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import hessian
from torch.func import functional_call

from crossdomain import bounds, rollback
from crossdomain.curvature import ParameterSpace
from crossdomain.damage import moved
from crossdomain.objectives import Objective
from crossdomain.rollback import QuadraticModel

seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 12)
shares = st.floats(-0.5, 2)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic(seed: int, size: int, definite: bool = False) -> tuple[QuadraticModel, Tensor]:
    square = drawn(seed, size, size)
    H = square @ square.T if definite else (square + square.T) / 2
    g, delta = drawn(seed + 1, size), drawn(seed + 2, size)
    return QuadraticModel(lambda v: H @ v, g, delta, H @ delta), H


def some(seed: int, size: int) -> Tensor:
    order = rollback.random_ranking(size, seed)
    return order[: seed % size + 1]


def damage(model: QuadraticModel, H: Tensor, delta: Tensor) -> float:
    return float(model.gradient @ delta + 0.5 * delta @ H @ delta)


# --- Choosing coordinates ---


@given(seeds, sizes)
def test_rankings_are_numpys_stable_argsort(seed: int, size: int) -> None:
    scores = drawn(seed, size).round()  # with ties
    expected = np.argsort(-scores.numpy(), kind="stable")
    assert rollback.ranking(scores).tolist() == expected.tolist()
    allowed = drawn(seed + 1, size) > -0.5
    if allowed.any():
        assert rollback.ranking(scores, allowed).tolist() == [i for i in expected if allowed[i]]
    for count in (1, size // 2 + 1, size + 1):
        assert rollback.ranking(scores, count=count).tolist() == expected[:count].tolist()
        if allowed.any():
            assert rollback.ranking(scores, allowed, count).tolist() == [i for i in expected if allowed[i]][:count]


def test_scores_are_half_the_fisher_times_the_square() -> None:
    found = rollback.fisher_scores(torch.tensor([2.0, 0.0, 1.0]), torch.tensor([3.0, 5.0, -2.0]))
    assert found.tolist() == [9.0, 0.0, 2.0]


def test_an_update_opposes_another_where_their_signs_differ() -> None:
    later, own = torch.tensor([1.0, -1, 2, -2, 1, 0]), torch.tensor([1.0, 1, -1, -1, 0, 0])
    assert rollback.opposing(later, own).tolist() == [False, True, True, False, True, False]


def test_a_random_ranking_has_every_coordinate_once_and_depends_on_its_seed() -> None:
    one, other = (rollback.random_ranking(50, seed) for seed in (0, 1))
    assert sorted(one.tolist()) == list(range(50)) and not torch.equal(one, other)
    assert torch.equal(one, rollback.random_ranking(50, 0))


@given(seeds, sizes, st.floats(0, 1.2))
def test_a_set_as_long_as_wanted_is_the_shortest_prefix_that_is(seed: int, size: int, part: float) -> None:
    delta, order = drawn(seed, size), rollback.random_ranking(size, seed)
    norm = part * float(delta.norm())
    found = rollback.as_long(order, delta, norm)
    assert torch.equal(found, order[: len(found)])
    assert float(delta[found].norm()) >= norm * (1 - 1e-12) or len(found) == size
    assert len(found) == 1 or float(delta[found[:-1]].norm()) < norm


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rollback.ranking(torch.tensor([1.0, torch.nan])), "expected finite scores, 1 of 2"),
        (lambda: rollback.ranking(torch.ones(2), torch.zeros(2, dtype=torch.bool)), "leaves nothing to take back"),
        (lambda: rollback.ranking(torch.ones(2), torch.ones(3, dtype=torch.bool)), r"mask: expected shape \(2,\)"),
        (lambda: rollback.fisher_scores(torch.ones(3), torch.ones(2)), r"Fisher diagonal: expected shape \(2,\)"),
        (lambda: rollback.opposing(torch.ones(2), torch.ones(1)), r"own update: expected shape \(2,\)"),
        (lambda: quadratic(0, 3)[0].greedy(4, 1), "count = 4: expected 1 to 3"),
        (lambda: quadratic(0, 3)[0].greedy(0, 1), "count = 0: expected 1 to 3"),
    ],
)
def test_what_cannot_be_used_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


# --- Proposition 4 ---


@given(seeds, sizes, shares)
def test_the_predicted_change_is_that_of_the_quadratic_damage(seed: int, size: int, share: float) -> None:
    model, H = quadratic(seed, size)
    chosen = some(seed, size)
    before = model.delta.clone()
    left = rollback.rolled_back(model.delta, chosen, share)
    assert torch.equal(model.delta, before)
    difference = damage(model, H, left) - damage(model, H, model.delta)
    assert model.terms(chosen).change(share) == pytest.approx(difference, abs=1e-10)
    mask = np.isin(np.arange(size), chosen.numpy())
    stated = bounds.rollback_change(model.gradient, H.numpy(), model.delta, mask, share)
    assert model.terms(chosen).change(share) == pytest.approx(stated, abs=1e-10)


@given(seeds, sizes, shares)
def test_the_diagonal_form_is_that_of_the_proposition(seed: int, size: int, share: float) -> None:
    fisher, delta, chosen = drawn(seed, size).square(), drawn(seed + 1, size), some(seed, size)
    found = rollback.fisher_terms(rollback.fisher_scores(fisher, delta), chosen)
    mask = np.isin(np.arange(size), chosen.numpy())
    assert found.change(share) == pytest.approx(bounds.fisher_rollback_change(fisher, delta, mask, share), abs=1e-10)
    model = QuadraticModel(lambda v: fisher * v, torch.zeros_like(delta), delta, fisher * delta)
    assert found.change(share) == pytest.approx(model.terms(chosen).change(share), abs=1e-10)
    assert found.change(1.0) <= found.change(share) + 1e-12


def test_the_terms_of_a_network_are_those_of_its_dense_hessian() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)).double()
    params = {name: parameter.detach() for name, parameter in network.named_parameters()}
    data = {"x": drawn(1, 5, 2), "y": drawn(2, 5)}

    def outputs(p, batch):  # type: ignore[no-untyped-def]
        return functional_call(network, dict(p), (batch["x"],)).squeeze(1)

    objective = Objective("square", "rows", [data], outputs, lambda out, batch: (out - batch["y"]).square())
    space = ParameterSpace(params)
    flat = space.flatten(params)
    H = hessian(lambda v: objective.loss(space.unflatten(v), data), flat)
    delta, chosen = 1e-3 * drawn(3, space.size), torch.tensor([0, 4, 7, 11])
    part = torch.zeros_like(delta)
    part[chosen] = delta[chosen]
    model = QuadraticModel.of(objective, params, delta)
    found = model.terms(chosen)
    expected = (model.gradient @ part, part @ H @ delta, part @ H @ part)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    left = rollback.rolled_back(delta, chosen, 1.0)
    actual = objective.value(moved(params, left)).value - objective.value(moved(params, delta)).value
    assert found.change(1.0) == pytest.approx(actual, rel=1e-2)  # third order at this length


# --- The greedy set ---


def given_back(model: QuadraticModel, chosen: Tensor) -> float:
    return -model.terms(chosen).change(1.0)


@given(seeds, sizes)
def test_greedy_is_the_best_set_of_every_size_where_coordinates_do_not_interact(seed: int, size: int) -> None:
    diagonal, delta = drawn(seed, size).square(), drawn(seed + 1, size)
    model = QuadraticModel(lambda v: diagonal * v, torch.zeros_like(delta), delta, diagonal * delta)
    order = model.greedy(size, 40)
    for count in range(1, size + 1):
        best = torch.topk(diagonal * delta**2, count).values.sum() / 2
        assert given_back(model, order[:count]) == pytest.approx(float(best), rel=1e-9)


@given(seeds, st.integers(4, 12), st.integers(1, 12))
def test_greedy_is_as_good_from_any_first_batch_where_coordinates_do_not_interact(
    seed: int, size: int, first: int
) -> None:
    diagonal, delta = drawn(seed, size).square(), drawn(seed + 1, size)
    model = QuadraticModel(lambda v: diagonal * v, torch.zeros_like(delta), delta, diagonal * delta)
    assert model.greedy(size, 40, first=first).tolist() == model.greedy(size, 40).tolist()


def compared(seed: int, interaction: float) -> tuple[float, list[float], list[float]]:
    """What greedy, every set and the two scores' sets of 4 of 12 coordinates give back, without a gradient."""
    size, count = 12, 4
    square, delta = drawn(seed, size, size), drawn(seed + 1, size)
    off = interaction * (square @ square.T).fill_diagonal_(0)
    H = off + torch.diag(drawn(seed + 2, size).square() + off.abs().sum(1))  # definite, since its diagonal dominates
    model = QuadraticModel(lambda v: H @ v, torch.zeros_like(delta), delta, H @ delta)
    every = [given_back(model, torch.tensor(chosen)) for chosen in combinations(range(size), count)]
    rankings = (rollback.ranking(scores) for scores in (rollback.fisher_scores(H.diagonal(), delta), delta.abs()))
    return given_back(model, model.greedy(count, 40)), every, [given_back(model, order[:count]) for order in rankings]


@pytest.mark.parametrize("seed", range(0, 80, 10))
def test_greedy_is_among_the_best_of_all_sets_and_not_below_those_of_the_scores(seed: int) -> None:
    found, every, scored = compared(seed, interaction=0.02)
    assert max(every) * 0.97 <= found <= max(every) + 1e-12
    assert found >= max(scored) - 1e-12


def test_greedy_is_better_than_the_scores_on_average_where_coordinates_interact_strongly() -> None:
    problems = [compared(seed, interaction=1.0) for seed in range(0, 200, 10)]
    parts = np.array([np.array([found, *scored]) / max(every) for found, every, scored in problems])
    assert parts[:, 0].mean() > parts[:, 1:].mean(0).max()


def test_greedy_leaves_out_a_coordinate_that_makes_good_for_another() -> None:
    H = torch.tensor([[1.0, -0.9, 0.0], [-0.9, 1.0, 0.0], [0.0, 0.0, 0.3]], dtype=torch.float64)
    delta = torch.ones(3, dtype=torch.float64)
    model = QuadraticModel(lambda v: H @ v, torch.zeros(3, dtype=torch.float64), delta, H @ delta)
    assert model.greedy(1, 40).tolist() == [2]
    assert given_back(model, torch.tensor([0])) < 0 < given_back(model, torch.tensor([2]))


def test_a_greedy_ranking_never_goes_past_the_minimum_where_coordinates_act_together() -> None:
    size = 3000
    basis = torch.linalg.qr(drawn(0, size, 6)).Q
    values = torch.tensor([1.0, 0.5, 0.2, 0.1, 0.05, -0.05], dtype=torch.float64)
    delta = drawn(1, size)

    def product(vector: Tensor) -> Tensor:  # few directions with curvature: every coordinate pulls on the same ones
        return basis @ (values * (basis.T @ vector))

    model = QuadraticModel(product, torch.zeros_like(delta), delta, product(delta))
    order = model.greedy(size // 3, products=60)
    changes = np.array([given_back(model, order[:n]) for n in (1, 3, 10, 30, 100, 300, 1000)])
    total = 0.5 * float(delta @ product(delta))
    assert (np.diff(changes[:4]) > 0).all()
    assert changes.max() > 0.9 * total  # 30 to 100 of the 3000 are enough
    assert changes[-1] > 0.8 * changes.max()  # and the others that are wanted change little
    scores = rollback.ranking(rollback.fisher_scores((basis.square() * values.abs()).sum(1), delta))
    assert all(
        found >= given_back(model, scores[:n]) for n, found in zip((1, 3, 10, 30, 100, 300, 1000), changes, strict=True)
    )


def test_a_greedy_ranking_holds_every_coordinate_once_within_its_products() -> None:
    model, _ = quadratic(3, 60)
    products = []
    counting = QuadraticModel(
        lambda v: (products.append(1), model.product(v))[1], model.gradient, model.delta, model.curved
    )
    assert sorted(counting.greedy(60, products=7).tolist()) == list(range(60))
    assert len(products) <= 7
    assert sorted(counting.greedy(60, 40).tolist()) == list(range(60))
