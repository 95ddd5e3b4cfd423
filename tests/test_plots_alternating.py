"""Figures of chapter 7 draw the data they are given."""

import numpy as np
import pandas as pd

from crossdomain.alternating import A_ALONE, A_FIRST, JOINT, LOSS_A, PARAMETERS
from crossdomain.plots import alternating as draw

TITLES = {"math": "Math", "qa": "QA"}


def test_deviations_are_drawn_in_percent_and_their_orders_as_dots() -> None:
    table = pd.DataFrame(
        {"a": "math", "b": "qa", "seed": [0, 0, 1, 1], "multiple": [0.1, 1.0] * 2, "order": A_FIRST, "corrected": False,
         "quantity": PARAMETERS, "relative": [0.01, 0.1, 0.03, 0.3]}
    )  # fmt: skip
    table = pd.concat([table, table.assign(b="cw", relative=9.0)])  # another pair, not drawn on the left
    orders = pd.DataFrame(
        {"order": [A_FIRST, A_ALONE], "corrected": False, "quantity": [PARAMETERS, LOSS_A], "slope": [2.01, 0.99]}
    )
    left, right = draw.deviations(table, orders, TITLES).axes
    line = next(line for line in left.lines if line.get_label() == "A first")
    np.testing.assert_allclose(line.get_ydata(), [2, 20])
    assert left.get_title() == "A = Math, B = QA"
    drawn = {float(np.asarray(line.get_xdata())[0]) for line in right.lines if len(np.asarray(line.get_xdata())) == 1}
    assert drawn == {2.01, 0.99}


def test_descents_are_drawn_as_points_of_reward() -> None:
    table = pd.DataFrame(
        {"a": "math", "b": "qa", "way": np.repeat([JOINT, A_FIRST], 2), "seed": 0, "cycle": [0, 1] * 2,
         "held_out_a": [-0.2, -0.3, -0.2, -0.25], "held_out_b": -0.5, "gradient": 1.0, "min_norm": 0.5, "cosine": 0.1,
         "moved": [0, 2.0] * 2, "gap": [0, 0, 0, 0.5]}
    )  # fmt: skip
    axes = draw.descents(table, TITLES).axes
    line = next(line for line in axes[0].lines if line.get_label() == "Math first")
    np.testing.assert_allclose(line.get_ydata(), [20, 25])
    apart = next(line for line in axes[5].lines if line.get_label() == "Math first")
    np.testing.assert_allclose(apart.get_ydata(), [np.nan, 25])
    assert not any(line.get_label() == "joint steps" for line in axes[5].lines)


def test_refreshes_have_a_bar_a_domain_and_their_totals() -> None:
    changes = pd.DataFrame(
        {"step": np.repeat(["alternating", "refresh Math"], 2), "domain": ["math", "qa"] * 2, "seed": 0, "split": "test",
         "decoding": "T=1", "change": [5.0, 1, 8, -2]}
    )  # fmt: skip
    changes = pd.concat([changes, changes.assign(decoding="greedy", change=99.0)])
    totals = pd.DataFrame(
        {"method": ["no refresh", "alternating", "refresh Math"], "average": [50.0, 53, 53], "worst": [40.0, 41, 39]}
    )
    left, right = draw.refreshes(changes, totals, TITLES).axes
    assert [bar.get_width() for bar in left.patches] == [5, 8, 1, -2]
    assert [text.get_text() for text in right.get_yticklabels()] == ["no refresh", "alternating", "refresh Math"]
    drawn = sorted({float(np.asarray(line.get_xdata())[0]) for line in right.lines})
    assert drawn == [39, 40, 41, 50, 53]
