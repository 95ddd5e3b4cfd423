"""Alternating refresh of two losses, A and B, by gradient descent (Proposition 5; C11).

A *cycle* takes a step α on one loss, then a step α on the other, where the first has led; a *joint step* takes α on
L_A + L_B. Points are displacements e from given parameters θ, vectors of shape (p,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from crossdomain import bounds
from crossdomain.curvature import ParameterSpace, gradient, hvp
from crossdomain.damage import moved
from crossdomain.objectives import Objective, Parameters
from crossdomain.spectrum import HessianOperator

A_FIRST, B_FIRST, AVERAGED = ORDERS = ("A first", "B first", "mean of both orders")
JOINT, A_ALONE, B_ALONE = "joint step", "A alone", "B alone"
A_WRONG, B_WRONG = "A first, corrected as B first", "B first, corrected as A first"
PARAMETERS, LOSS_A, LOSS_B = "parameters", "loss of A", "loss of B"


def steps(objectives: Sequence[Objective], params: Parameters, start: Tensor, alpha: float) -> Tensor:
    """Where a step α on each loss in turn leads from θ + start.

    Args:
        objectives: the losses in their order.
        params: θ.
        start: where the first step begins, shape (p,).
        alpha: the step.
    """
    point = start
    for objective in objectives:
        point = point - alpha * gradient(objective, moved(params, point))
    return point


def deviations(A: Objective, B: Objective, params: Parameters, alphas: Sequence[float]) -> pd.DataFrame:
    """How far a cycle ends from the joint step, and from Proposition 5's second-order correction of it.

    Controls: two steps on one loss alone, and the correction that belongs to the other order.

    Args:
        A: one loss.
        B: the other.
        params: θ, best in float64: the smallest deviations are of third order in α.
        alphas: steps, positive.

    Returns:
        A row an `alpha`, `order` of the steps (`ORDERS` and the controls), `corrected` (whether the second-order term is
        added to the joint step) and `quantity` (the parameters, the loss of A, the loss of B): the absolute `error` of the
        end, and `relative` to what the joint step changes of that quantity, NaN where that is nothing.

    Raises:
        ValueError: a step is not positive.
    """
    if min(alphas) <= 0:
        raise ValueError(f"alpha = {min(alphas)}: expected positive steps")
    g_A, g_B = gradient(A, params), gradient(B, params)
    H_A, H_B = (HessianOperator(partial(hvp, loss, params), params) for loss in (A, B))
    unit = bounds.alternating_refresh(1.0, 1.0, g_A.numpy(), g_B.numpy(), H_A, H_B)
    # What a deviation is called, where the steps end, and whose correction is added to the joint step.
    kinds: list[tuple[str, str, str | None]] = [(order, order, None) for order in (*ORDERS, A_ALONE, B_ALONE)]
    kinds += [(order, order, order) for order in ORDERS]
    kinds += [(A_WRONG, A_FIRST, B_FIRST), (B_WRONG, B_FIRST, A_FIRST)]
    losses, rows = {LOSS_A: A, LOSS_B: B}, []

    # Both are made anew where they are needed: kept for all orders, they are a dozen vectors of the model's size.
    def expected(alpha: float, correction: str | None) -> Tensor:
        joint = alpha * torch.from_numpy(unit.first_order)
        if correction is None:
            return joint
        term = {A_FIRST: unit.A_first, B_FIRST: unit.B_first}.get(correction)
        return joint + alpha**2 * torch.from_numpy(unit.averaged if term is None else term)

    def ends(alpha: float) -> Iterator[tuple[str, Tensor]]:
        first = steps([B], params, -alpha * g_A, alpha)
        yield A_FIRST, first
        second = steps([A], params, -alpha * g_B, alpha)
        yield B_FIRST, second
        yield AVERAGED, (first + second) / 2
        del first, second
        yield A_ALONE, steps([A], params, -alpha * g_A, alpha)
        yield B_ALONE, steps([B], params, -alpha * g_B, alpha)

    def values(e: Tensor) -> dict[str, float]:
        return {loss: objective.value(moved(params, e)).value for loss, objective in losses.items()}

    start = values(torch.zeros_like(g_A))
    for alpha in alphas:
        at = {correction: values(expected(alpha, correction)) for correction in (None, *ORDERS)}
        length = float(expected(alpha, None).norm())
        changes = {PARAMETERS: length, **{loss: at[None][loss] - start[loss] for loss in losses}}
        errors = {}
        for order, end in ends(alpha):
            reached = values(end)
            for kind in (kind for kind in kinds if kind[1] == order):
                correction = kind[2]
                apart = {loss: abs(reached[loss] - at[correction][loss]) for loss in losses}
                errors[kind] = {PARAMETERS: float((end - expected(alpha, correction)).norm()), **apart}
        rows += [
            {
                "alpha": alpha,
                "order": kind[0],
                "corrected": kind[2] is not None,
                "quantity": quantity,
                "error": error,
                "relative": error / abs(changes[quantity]) if changes[quantity] else np.nan,
            }
            for kind in kinds
            for quantity, error in errors[kind].items()
        ]
    return pd.DataFrame(rows)


def error_orders(table: pd.DataFrame, largest: float) -> pd.DataFrame:
    """The order in α of each kind of deviation: the slope of log error against log α.

    Args:
        table: of `deviations`.
        largest: the largest α that counts: the order is that of small steps.

    Returns:
        A row an `order`, `corrected` and `quantity`: `slope`, NaN where fewer than two errors are positive.
    """
    keys, rows = ["order", "corrected", "quantity"], []
    for key, part in table[(table["alpha"] <= largest * (1 + 1e-9)) & (table["error"] > 0)].groupby(keys, sort=False):
        slope = np.polyfit(np.log(part["alpha"]), np.log(part["error"]), 1)[0] if len(part) > 1 else np.nan
        rows.append(dict(zip(keys, key, strict=True)) | {"slope": float(slope)})
    return pd.DataFrame(rows, columns=[*keys, "slope"])


def min_norm(g_A: Tensor, g_B: Tensor) -> tuple[float, float]:
    """The shortest convex combination γ g_A + (1 − γ) g_B: 0 where the point is Pareto-stationary [Désidéri 2012].

    Returns:
        γ, and the norm of the combination.
    """
    difference = g_A - g_B
    squared = float(difference @ difference)
    gamma = 0.5 if squared == 0 else min(1.0, max(0.0, -float(g_B @ difference) / squared))
    return gamma, float((gamma * g_A + (1 - gamma) * g_B).norm())


def descents(
    A: Objective, B: Objective, params: Parameters, alpha: float, cycles: int, held_out: tuple[Objective, Objective]
) -> pd.DataFrame:
    """Cycles after cycles against as many joint steps, and against two steps a cycle on one loss alone.

    Args:
        A: one loss.
        B: the other.
        params: θ, where all begin.
        alpha: the step.
        cycles: how many.
        held_out: the same losses on prompts that are not descended on.

    Returns:
        A row a `way` and `cycle` (0 is the start): `loss_a`, `loss_b` and `held_out_a`, `held_out_b`; `gradient`,
        ‖∇(L_A + L_B)‖; `min_norm` and its `weight` γ (`min_norm`); `cosine` of the two gradients; `moved`, the distance
        from the start; `gap`, that from the joint steps.

    Raises:
        ValueError: α or the number of cycles is not positive.
    """
    if alpha <= 0 or cycles < 1:
        raise ValueError(f"alpha = {alpha}, cycles = {cycles}: expected a positive step and at least one cycle")

    # Every way's step, given the gradients where it starts, which are measured anyway.
    ways: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        JOINT: lambda e, g_A, g_B: e - alpha * (g_A + g_B),
        A_FIRST: lambda e, g_A, g_B: steps([B], params, e - alpha * g_A, alpha),
        B_FIRST: lambda e, g_A, g_B: steps([A], params, e - alpha * g_B, alpha),
        A_ALONE: lambda e, g_A, g_B: steps([A], params, e - alpha * g_A, alpha),
        B_ALONE: lambda e, g_A, g_B: steps([B], params, e - alpha * g_B, alpha),
    }
    rows, joint = [], list[Tensor]()
    for way, ahead in ways.items():
        e = next(iter(params.values())).new_zeros(ParameterSpace(params).size)
        for t in range(cycles + 1):
            if way == JOINT:
                joint.append(e)
            here = moved(params, e)
            g_A, g_B = gradient(A, here), gradient(B, here)
            gamma, shortest = min_norm(g_A, g_B)
            rows.append(
                {
                    "way": way,
                    "cycle": t,
                    "loss_a": A.value(here).value,
                    "loss_b": B.value(here).value,
                    "held_out_a": held_out[0].value(here).value,
                    "held_out_b": held_out[1].value(here).value,
                    "gradient": float((g_A + g_B).norm()),
                    "min_norm": shortest,
                    "weight": gamma,
                    "cosine": float(torch.nn.functional.cosine_similarity(g_A, g_B, dim=0)),
                    "moved": float(e.norm()),
                    "gap": float((e - joint[t]).norm()),
                }
            )
            if t < cycles:
                e = ahead(e, g_A, g_B)
    return pd.DataFrame(rows)
