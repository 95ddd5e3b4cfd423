"""Figures of chapter 5 draw the data they are given."""

import numpy as np
import pandas as pd

from crossdomain import recovery
from crossdomain.plots import refresh as draw

TITLES = {"math": "Math", "qa": "QA"}


def contraction() -> pd.DataFrame:
    rows = [
        {
            "seed": seed,
            "on": on,
            "multiple": multiple,
            "space": space,
            "k": k,
            "step": step,
            "inside": 2 * (1 - 0.2 * step * multiple),
            "share": 1 - 0.2 * step * multiple + 0.1 * seed * step,
            "along": 1 - 0.3 * step,
            "bound": 3.0 if on == "math" else np.nan,
            "paper_bound": 2 * 0.5**step if on == "math" else np.nan,
        }
        for seed in (0, 1)
        for on, multiples in (("math", (0.5, 1.0)), ("qa", (1.0,)))
        for multiple in multiples
        for space in (recovery.WHOLE, recovery.ROUTE, recovery.RANDOM)
        for k in (1, 4)
        for step in (0, 1, 2)
    ]
    return pd.DataFrame(rows)


def drawn(axis, label: str) -> list[float]:  # type: ignore[no-untyped-def]
    line = next(line for line in axis.lines if line.get_label() == label)
    return np.asarray(line.get_ydata()).tolist()


def test_shares_are_drawn_by_step_size_with_their_mean_in_bold() -> None:
    axes = draw.contraction(contraction(), "math", TITLES).axes
    np.testing.assert_allclose(drawn(axes[0], "α = 1/λ_max"), [1, 0.85, 0.7])
    np.testing.assert_allclose(drawn(axes[0], "control: as long steps on QA"), [1, 0.85, 0.7])
    np.testing.assert_allclose(drawn(axes[2], "α = 0.5/λ_max"), [1, 0.7, 0.4])


def test_bounds_are_shares_of_the_update_in_every_dimension() -> None:
    figure = draw.bounds(contraction(), "math")
    assert [axis.get_title() for axis in figure.axes] == ["all, k = 1", "all, k = 4", "route, k = 1", "route, k = 4"]
    np.testing.assert_allclose(drawn(figure.axes[0], "Theorem 1, with leakage and remainder"), 1.5)
    np.testing.assert_allclose(drawn(figure.axes[0], "the paper's, without"), [1, 0.5, 0.25])


def test_losses_are_those_above_the_undamaged_and_scores_their_change() -> None:
    losses = pd.DataFrame(
        {"seed": 0, "on": ["math"] * 2 + ["qa"] * 2, "multiple": 1.0, "step": [0, 1] * 2, "test_loss": [-0.6, -0.7] * 2,
         "undamaged": -0.8}
    )  # fmt: skip
    scores = pd.DataFrame(
        {"seed": 0, "on": "math", "multiple": 1.0, "step": [0, 0, 5, 5], "domain": ["math", "qa"] * 2,
         "score": [60.0, 50, 66, 49]}
    )  # fmt: skip
    left, right = draw.descents(losses, scores, "math", TITLES).axes
    np.testing.assert_allclose(drawn(left, "α = 1/λ_max"), [0.2, 0.1])
    np.testing.assert_allclose(drawn(left, "steps on QA"), [0.2, 0.1])
    np.testing.assert_allclose(drawn(right, "QA"), [0, -1])


def test_grpo_refreshes_are_told_apart_by_rate_and_batch() -> None:
    rows = contraction().query("on == 'math'").assign(rate=lambda x: 1e-4 * x["multiple"], batch=64, own=False)
    axes = draw.grpo(rows.assign(outside=[3.0, 6.0, 9.0] * (len(rows) // 3))).axes
    np.testing.assert_allclose(drawn(axes[2], "rate 5.0e-05, 64 a step"), [1, 2, 3])
    np.testing.assert_allclose(drawn(axes[0], "rate 1.0e-04, 64 a step"), [1, 0.85, 0.7])


def test_the_matrix_has_the_refreshed_domain_in_the_row_and_what_was_lost_below() -> None:
    table = pd.DataFrame(
        {"refreshed": ["math", "math", "qa", "qa"], "domain": ["math", "qa"] * 2, "change": [8.0, -1, 2, 3],
         "low": [6.0, -2, 2, np.nan], "high": [10.0, 0, 2, np.nan], "lost": [9.0, -1] * 2}
    )  # fmt: skip
    axis = draw.recovery_matrix(table, TITLES).axes[0]
    assert [text.get_text() for text in axis.texts] == ["+8.0\n±2.0", "−1.0\n±1.0", "+2.0\n±0.0", "+3.0"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["Math\n(lost 9.0)", "QA\n(lost −1.0)"]


def test_the_budget_is_in_completions() -> None:
    table = pd.DataFrame(
        {"seed": 0, "rate": 1e-4, "batch": 64, "own": True, "step": [5, 10], "completions": [320, 640],
         "gained": [3.0, 4.0], "others": [-0.5, -1.0]}
    )  # fmt: skip
    left, right = draw.budget(table).axes
    line = next(line for line in left.lines if line.get_label() == "rate 1.0e-04, 64 a step, the profile's")
    assert np.asarray(line.get_xydata()).tolist() == [[320, 3], [640, 4]]
    assert np.asarray(right.lines[0].get_xydata()).tolist() == [[-1, 4]]


def test_collateral_has_a_row_a_domain_and_displacement() -> None:
    table = pd.DataFrame(
        {
            "seed": [0, 1],
            "domain": "qa",
            "displacement": "GRPO",
            "actual": [0.01, 0.03],
            "predicted": 0.02,
            "bound": 0.5,
        }
    )
    left, right = draw.collateral(table, TITLES).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["QA: GRPO"]
    assert (left.patches[0].get_width(), right.patches[0].get_width()) == (0.02, 0.5)
