"""Alternating refresh on losses whose derivatives are known in closed form, and on a small network, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor

from crossdomain import alternating
from crossdomain.alternating import A_FIRST, AVERAGED, B_FIRST, JOINT, LOSS_A, LOSS_B, PARAMETERS
from crossdomain.curvature import gradient
from crossdomain.damage import moved
from crossdomain.objectives import Objective

P = 6
ALPHAS = np.geomspace(3e-4, 3e-3, 5).tolist()


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic(seed: int) -> tuple[Objective, Tensor, Tensor]:
    """½ (x − c)ᵀ H (x − c): the objective, H ⪰ 0 and c."""
    root, c = randn(P, P, seed=seed), randn(P, seed=seed + 100)
    H = root @ root.T / P

    def outputs(params: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        away = params["x"] - c
        return (0.5 * away @ H @ away).expand(len(batch["row"]))

    return Objective("quadratic", "rows", [{"row": torch.zeros(2)}], outputs, lambda out, batch: out), H, c


def network(seed: int) -> Objective:
    """The squared error of a two-layer network on a task of its own."""
    inputs, targets = randn(5, 3, seed=seed), randn(5, seed=seed + 1)

    def outputs(params: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        return (batch["x"] @ params["in"]).tanh() @ params["out"]

    def losses(out: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return (out - batch["y"]) ** 2

    return Objective("squared error", "rows", [{"x": inputs, "y": targets}], outputs, losses)


START = {"x": randn(P, seed=9)}
WEIGHTS = {"in": randn(3, 4, seed=20), "out": randn(4, seed=21)}


def test_a_cycle_of_quadratics_is_the_joint_step_and_the_second_hessian_on_the_first_gradient() -> None:
    (A, H_A, c_A), (B, H_B, c_B) = quadratic(1), quadratic(2)
    here, g_A, g_B = torch.zeros(P).double(), H_A @ (START["x"] - c_A), H_B @ (START["x"] - c_B)
    expected = -0.1 * (g_A + g_B) + 0.01 * H_B @ g_A
    torch.testing.assert_close(alternating.steps([A, B], START, here, 0.1), expected, rtol=1e-12, atol=1e-12)


def test_a_cycle_begins_where_it_is_told() -> None:
    A, H, c = quadratic(1)
    start = randn(P, seed=5)
    found = alternating.steps([A], START, start, 0.1)
    torch.testing.assert_close(found, start - 0.1 * H @ (START["x"] + start - c), rtol=1e-12, atol=1e-12)


def test_on_quadratics_nothing_is_left_after_the_correction_and_the_deviation_is_of_second_order() -> None:
    table = alternating.deviations(quadratic(1)[0], quadratic(2)[0], START, ALPHAS)
    cycles = table[table["order"].isin(alternating.ORDERS)]
    plain = cycles[~cycles["corrected"]]
    assert cycles.loc[cycles["corrected"], "error"].max() < 1e-13 < 1e-8 < plain["error"].min()
    slopes = alternating.error_orders(plain, ALPHAS[-1])
    assert len(slopes) == 9 and slopes["slope"].to_numpy() == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("order", [A_FIRST, B_FIRST, AVERAGED])
@pytest.mark.parametrize("quantity", [PARAMETERS, LOSS_A, LOSS_B])
def test_on_a_network_the_deviation_is_of_second_order_and_of_third_after_the_correction(
    order: str, quantity: str
) -> None:
    table = alternating.deviations(network(5), network(55), WEIGHTS, ALPHAS)
    found = alternating.error_orders(table, ALPHAS[-1]).set_index(["order", "quantity", "corrected"])["slope"]
    assert found[order, quantity, False] == pytest.approx(2, abs=0.1)
    assert found[order, quantity, True] == pytest.approx(3, abs=0.1)


def test_the_controls_deviate_at_a_lower_order() -> None:
    table = alternating.deviations(network(5), network(55), WEIGHTS, ALPHAS)
    found = alternating.error_orders(table, ALPHAS[-1]).set_index(["quantity", "order", "corrected"])["slope"]
    for order in (alternating.A_WRONG, alternating.B_WRONG):  # the correction of the other order does not do
        assert found[PARAMETERS, order, True] == pytest.approx(2, abs=0.1)
    for order in (alternating.A_ALONE, alternating.B_ALONE):  # nor do two steps on one loss for one on each
        assert found[PARAMETERS, order, False] == pytest.approx(1, abs=0.1)


def test_swapping_the_losses_swaps_the_orders() -> None:
    keys = ["order", "corrected", "quantity"]
    A, B = network(1), network(2)
    plain, swapped = (alternating.deviations(*both, WEIGHTS, [0.01]).set_index(keys) for both in ((A, B), (B, A)))
    orders = [(A_FIRST, B_FIRST, False), (A_FIRST, B_FIRST, True), (alternating.A_WRONG, alternating.B_WRONG, True)]
    for order, other, corrected in orders:
        for first, second in ((PARAMETERS, PARAMETERS), (LOSS_A, LOSS_B)):
            error = swapped.loc[(other, corrected, second), "error"]
            assert plain.loc[(order, corrected, first), "error"] == pytest.approx(error, rel=1e-9)


def test_relative_deviations_are_shares_of_what_the_joint_step_changes() -> None:
    (A, H_A, c_A), (B, H_B, c_B) = quadratic(1), quadratic(2)
    g_A, g_B = H_A @ (START["x"] - c_A), H_B @ (START["x"] - c_B)
    row = alternating.deviations(A, B, START, [0.1]).query("order == @A_FIRST and not corrected").iloc[0]
    assert row["quantity"] == PARAMETERS
    assert row["relative"] == pytest.approx(0.1 * float((H_B @ g_A).norm() / (g_A + g_B).norm()), rel=1e-9)


def test_the_order_is_that_of_the_steps_that_count() -> None:
    table = alternating.deviations(quadratic(1)[0], quadratic(2)[0], START, [1e-3, 1e-2, 1e-1])
    few = alternating.error_orders(table[~table["corrected"]], 1e-3)
    assert few["slope"].isna().all()  # one step has no slope
    bent = table.assign(error=table["error"].where(table["alpha"] < 0.05, 1e9))
    kept = alternating.error_orders(bent[~bent["corrected"] & bent["order"].isin(alternating.ORDERS)], 1e-2)
    assert kept["slope"].to_numpy() == pytest.approx(2, abs=0.1)


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_shortest_combination_is_the_one_a_search_finds(seed: int, size: int) -> None:
    g_A, g_B = randn(size, seed=seed), randn(size, seed=seed + 1)
    gamma, norm = alternating.min_norm(g_A, g_B)
    assert 0 <= gamma <= 1
    found = minimize_scalar(
        lambda x: float((x * g_A + (1 - x) * g_B).norm() ** 2), bounds=(0, 1), method="bounded", options={"xatol": 1e-9}
    )
    assert norm**2 == pytest.approx(found.fun, abs=1e-6)
    assert norm <= min(float(g_A.norm()), float(g_B.norm())) + 1e-12


def test_opposite_gradients_are_pareto_stationary_and_equal_ones_are_not() -> None:
    g = randn(4, seed=0)
    gamma, norm = alternating.min_norm(g, -3 * g)
    assert (gamma, norm) == (pytest.approx(0.75), pytest.approx(0, abs=1e-12))
    assert alternating.min_norm(g, g) == (0.5, pytest.approx(float(g.norm())))


def test_cycles_come_close_to_the_minimum_of_the_sum_and_a_step_on_one_loss_does_not() -> None:
    (A, H_A, c_A), (B, H_B, c_B) = quadratic(1), quadratic(2)
    alpha = 0.5 / float(torch.linalg.eigvalsh(H_A + H_B)[-1])
    table = alternating.descents(A, B, START, alpha, 150, (A, B)).set_index(["way", "cycle"])
    best = torch.linalg.solve(H_A + H_B, H_A @ c_A + H_B @ c_B)
    sums = table["loss_a"] + table["loss_b"]
    minimum = sum(float(0.5 * (best - c) @ H @ (best - c)) for H, c in ((H_A, c_A), (H_B, c_B)))
    assert sums[JOINT, 150] == pytest.approx(minimum, rel=1e-3)
    assert minimum * (1 - 1e-9) <= sums[A_FIRST, 150] <= minimum * 1.2
    assert sums[alternating.A_ALONE, 150] > 1.5 * minimum
    # Gradients cancel at the minimum of the sum: it is Pareto-stationary.
    assert table.loc[(JOINT, 150), "gradient"] < 1e-2 * table.loc[(JOINT, 0), "gradient"]
    assert table.loc[(JOINT, 150), "min_norm"] < 1e-2 * table.loc[(JOINT, 0), "min_norm"]


def test_the_ways_take_the_steps_they_are_named_after() -> None:
    A, B = network(1), network(2)
    table = alternating.descents(A, B, WEIGHTS, 0.01, 2, (A, B)).set_index(["way", "cycle"])
    for way, turns in {
        A_FIRST: [A, B],
        B_FIRST: [B, A],
        alternating.A_ALONE: [A, A],
        alternating.B_ALONE: [B, B],
    }.items():
        end = alternating.steps(turns * 2, WEIGHTS, torch.zeros(16, dtype=torch.float64), 0.01)
        assert table.loc[(way, 2), "moved"] == pytest.approx(float(end.norm()), rel=1e-9)
        assert table.loc[(way, 2), "loss_a"] == pytest.approx(A.value(moved(WEIGHTS, end)).value, rel=1e-9)


def test_every_way_begins_at_the_same_point_and_gaps_are_from_the_joint_steps() -> None:
    A, B = network(1), network(2)
    table = alternating.descents(A, B, WEIGHTS, 0.01, 3, (B, A)).set_index(["way", "cycle"])
    assert table.xs(0, level="cycle").drop_duplicates().shape[0] == 1
    assert (table["loss_a"] == table["held_out_b"]).all()
    assert (table.loc[JOINT, "gap"] == 0).all()
    here = torch.zeros(16, dtype=torch.float64)
    joint = -0.01 * (gradient(A, WEIGHTS) + gradient(B, WEIGHTS))
    expected = alternating.steps([A, B], WEIGHTS, here, 0.01) - joint
    assert table.loc[(JOINT, 1), "moved"] == pytest.approx(float(joint.norm()), rel=1e-9)
    assert table.loc[(A_FIRST, 1), "gap"] == pytest.approx(float(expected.norm()), rel=1e-9)


def test_a_loss_that_never_changes_has_no_relative_deviation_and_no_order() -> None:
    still = Objective(
        "zero", "rows", [{"row": torch.zeros(2)}], lambda q, batch: 0 * q["x"].sum() + batch["row"], lambda out, _: out
    )
    table = alternating.deviations(quadratic(1)[0], still, START, [0.01, 0.1]).query("quantity == @LOSS_B")
    assert table["relative"].isna().all() and (table["error"] == 0).all()
    assert alternating.error_orders(table, 1).empty


def test_steps_that_cannot_be_taken_are_refused() -> None:
    A = quadratic(1)[0]
    with pytest.raises(ValueError, match="alpha = 0"):
        alternating.deviations(A, A, START, [0.1, 0])
    with pytest.raises(ValueError, match="cycles = 0"):
        alternating.descents(A, A, START, 0.1, 0, (A, A))
