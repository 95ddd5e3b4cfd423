"""Collateral of a refresh on losses whose derivatives are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crossdomain import collateral
from crossdomain.objectives import Objective

P = 5


def loss(seed: int, cubic: float) -> tuple[Objective, dict[str, Tensor], Tensor, Tensor]:
    """gᵀx + ½ xᵀHx + (cubic/6) Σ|x|³ around θ_0 = 0, with g and H."""
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(P, generator=generator, dtype=torch.float64)
    square = torch.randn(P, P, generator=generator, dtype=torch.float64)
    H = (square + square.T) / 2

    def outputs(params: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        x = params["x"]
        return (g @ x + 0.5 * x @ H @ x + cubic / 6 * x.abs().pow(3).sum()).expand(len(batch["row"]))

    objective = Objective("cubic", "2 rows", [{"row": torch.zeros(2)}], outputs, lambda out, batch: out)
    return objective, {"x": torch.zeros(P, dtype=torch.float64)}, g, H


def test_a_row_holds_what_the_proposition_is_made_of() -> None:
    objective, params, g, H = loss(0, 0.0)
    d = 0.2 * torch.randn(P, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    row = collateral.collateral(objective, params, {"GRPO": d}).iloc[0]
    top = torch.linalg.eigvalsh(H)[-1]
    expected = {
        "norm": d.norm(),
        "gradient_norm": g.norm(),
        "first": g @ d,
        "second": 0.5 * d @ H @ d,
        "predicted": g @ d + 0.5 * d @ H @ d,
        "actual": g @ d + 0.5 * d @ H @ d,
        "top_eigenvalue": top,
        "bound": g.norm() * d.norm() + 0.5 * max(top.item(), 0) * d.norm() ** 2,
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(float(value), rel=1e-6), name
    assert row["rho"] == pytest.approx(0, abs=1e-9) and row["displacement"] == "GRPO"


@given(st.integers(0, 1000), st.floats(0, 3), st.floats(0.01, 2))
def test_harm_never_exceeds_the_bound(seed: int, cubic: float, length: float) -> None:
    objective, params, *_ = loss(seed, cubic)
    d = length * torch.randn(P, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    row = collateral.collateral(objective, params, {"": d}).iloc[0]
    assert row["actual"] <= row["bound"] * (1 + 1e-9)


def test_a_refresh_that_moved_nowhere_does_no_harm() -> None:
    objective, params, *_ = loss(0, 0.5)
    row = collateral.collateral(objective, params, {"": torch.zeros(P, dtype=torch.float64)}).iloc[0]
    assert row[["norm", "actual", "predicted", "bound", "rho"]].tolist() == [0] * 5


def test_the_top_eigenvalue_is_the_most_positive_one() -> None:
    objective, params, _, H = loss(4, 0.0)
    np.testing.assert_allclose(collateral.top_eigenvalue(objective, params), torch.linalg.eigvalsh(H)[-1], rtol=1e-6)


def test_a_large_model_gets_the_same_eigenvalue_from_fewer_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, params, _, H = loss(4, 0.0)
    monkeypatch.setattr(collateral, "LANCZOS_ELEMENTS", 1)
    expected = torch.linalg.eigvalsh(H)[-1]
    np.testing.assert_allclose(collateral.top_eigenvalue(objective, params), expected, rtol=collateral.TOLERANCE)


def test_a_constant_loss_has_no_curvature() -> None:
    objective = Objective(
        "nothing", "2 rows", [{"row": torch.zeros(2)}], lambda q, b: 0 * q["x"].sum() + b["row"], lambda o, b: o
    )
    params = {"x": torch.ones(P)}
    assert collateral.top_eigenvalue(objective, params) == 0
    assert collateral.collateral(objective, params, {"": torch.ones(P)})["bound"].item() == 0
