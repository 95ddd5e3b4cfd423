"""Figures of chapter 8 draw the data they are given."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from crossdomain.plots import alternatives as draw

NAMES = {"math": "Math", "qa": "QA"}
TITLES = {"sequence": "the sequence", "kl": "KL", "absent": "not made"}


def table() -> pd.DataFrame:
    rows = [
        {"seed": seed, "method": method, "longer": longer, "average": 50 + 2 * seed + 10 * longer + 5 * (method == "kl"),
         "worst": 40.0, "steps": 5, "seconds": 100.0 + 20 * longer}
        for seed in (0, 1) for method in ("sequence", "kl") for longer in (False, True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def marks(axis, size: float) -> list[tuple[float, float]]:  # type: ignore[no-untyped-def]
    lines = [line for line in axis.lines if line.get_markersize() == size]
    return [(float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_methods_have_a_row_each_with_the_mean_of_both_versions() -> None:
    axis = draw.methods(table(), TITLES).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["the sequence", "KL"]
    assert sorted(marks(axis, 8)) == [(51, 0), (56, 1), (61, 0), (66, 1)]
    assert len(marks(axis, 3)) == 8  # a small mark a seed


def test_domains_are_compared_with_the_first_method() -> None:
    scores = pd.DataFrame(
        {"seed": 0, "method": ["sequence", "sequence", "kl", "kl"], "longer": True, "domain": ["math", "qa"] * 2,
         "score": [60.0, 30, 50, 35]}
    )  # fmt: skip
    axis = draw.domains(scores, TITLES, NAMES).axes[0]
    assert sorted(marks(axis, 7)) == [(30, 0), (35, 1), (50, 1), (60, 0)]
    assert sorted(line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":") == [30, 60]


def test_every_method_has_a_number_at_its_longer_version() -> None:
    axis = draw.costs(table(), TITLES).axes[0]
    assert {text.get_text(): text.xy for text in axis.texts} == {"1": (120, 61), "2": (120, 66)}


def test_orders_are_sorted_by_their_average() -> None:
    rows = [
        {
            "seed": 0,
            "order": "-".join(order),
            "refreshed": refreshed,
            "average": 50 + 5 * (order[0] == "qa") + refreshed,
        }
        for order in permutations(NAMES)
        for refreshed in (False, True)
    ]
    axis = draw.orders(pd.DataFrame(rows), NAMES).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["QA → Math", "Math → QA"]


def test_losses_lie_at_the_number_of_later_stages() -> None:
    scores = pd.DataFrame({"refreshed": [False, False, True], "domain": ["math", "qa", "qa"], "later": [1, 0, 0],
                           "lost": [4.0, 0, 9]})  # fmt: skip
    points = {(round(x), y) for x, y in marks(draw.lost_by_place(scores, NAMES).axes[0], 4)}
    assert points == {(1, 4), (0, 0)}


def test_predictions_of_orders_are_drawn_in_points() -> None:
    sums = pd.DataFrame({"seed": [2, 2], "predicted": [0.1, 0.3], "lost": [5.0, 9]})
    line = draw.predicted_orders(sums).axes[0].lines[0]
    assert np.asarray(line.get_xdata()).tolist() == pytest.approx([10, 30]) and line.get_label() == "seed 2"
