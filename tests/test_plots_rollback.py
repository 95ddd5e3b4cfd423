"""Figures of chapter 6 draw the data they are given."""

import numpy as np
import pandas as pd
import pytest

from crossdomain import rollback_sets
from crossdomain.plots import rollback as draw
from crossdomain.rollback_sets import FISHER, RANDOM

CASES = {rollback_sets.NEXT: "Math, hurt by QA"}
FRONT = pd.DataFrame(
    [
        {"case": rollback_sets.NEXT, "seed": seed, "score": score, "percent": percent, "share": 1.0,
         "regained": factor * percent + seed, "lost": percent / 10 + cost}
        for score, factor, cost in ((FISHER, 2.0, 0.0), (RANDOM, 1.0, 1.0))
        for percent in (1, 10)
        for seed in (0, 1)
    ]
)  # fmt: skip
DAMAGES = pd.DataFrame({"case": rollback_sets.NEXT, "seed": [0, 1], "damage": [20.0, 30.0], "gain": 5.0})


def bold(axis, label: str) -> np.ndarray:  # type: ignore[no-untyped-def]
    (line,) = [line for line in axis.lines if line.get_label() == label]
    return np.asarray([line.get_xdata(), line.get_ydata()], dtype=float)


def test_regained_and_lost_are_drawn_by_size_with_the_damage() -> None:
    left, right = draw.by_size(FRONT, DAMAGES, (FISHER, RANDOM), CASES).axes
    assert bold(left, FISHER).tolist() == [[1, 10], [2.5, 20.5]]
    assert bold(right, RANDOM).tolist() == [[1, 10], [1.1, 2.0]]
    assert any(np.asarray(line.get_ydata()).tolist() == [25, 25] for line in left.lines)


def test_the_frontier_marks_what_nothing_betters() -> None:
    (axis,) = draw.frontier(FRONT, DAMAGES, (FISHER, RANDOM), CASES).axes
    assert bold(axis, FISHER).tolist() == [[0.1, 1.0], [2.5, 20.5]]
    marked = [line for line in axis.lines if line.get_markersize() == 8]
    assert sorted(np.asarray(marked[0].get_xdata()).tolist()) == [0.1, 1.0]  # both of the Fisher's, none of random's


def test_shares_begin_at_nothing_taken_back() -> None:
    rows = [FRONT[FRONT["percent"] == 10].assign(share=share) for share in (0.5, 1.0)]
    left, _ = draw.by_share(pd.concat(rows), (FISHER,)).axes
    assert left.get_title() == "10 % of the parameters"
    assert bold(left, FISHER).tolist() == [[0, 0.5, 1], [0, 20.5, 20.5]]


def test_predictions_with_the_hessian_are_in_points_and_the_fishers_in_nats() -> None:
    table = pd.DataFrame({"score": FISHER, "hessian": [-0.1, -0.2], "fisher": [-3.0, -4.0], "actual": [-0.1, -0.3]})
    left, right = draw.predicted(table).axes
    np.testing.assert_allclose(bold(left, FISHER), [[-10, -20], [-10, -30]])
    np.testing.assert_allclose(bold(right, FISHER), [[-3, -4], [-10, -30]])


def test_pairs_show_the_damage_as_a_bar_and_each_score_on_it() -> None:
    rows = [
        {"a": "math", "b": "qa", "percent": 10.0, "seed": seed, "draw": 0, "score": score, "damage": 8.0, "gain": 3.0,
         "regained": value + seed, "lost": 1.0}
        for score, value in ((FISHER, 5.0), (RANDOM, 1.0))
        for seed in (0, 1)
    ]  # fmt: skip
    left, right = draw.pairs(pd.DataFrame(rows), 10, {"math": "Math", "qa": "QA"}).axes
    assert [bar.get_width() for bar in left.patches] == [8] and [bar.get_width() for bar in right.patches] == [3]
    assert bold(left, FISHER)[0].tolist() == [5.5] and bold(left, RANDOM)[0].tolist() == [1.5]
    assert [label.get_text() for label in left.get_yticklabels()] == ["Math, hurt by QA"]


@pytest.mark.parametrize(
    "score", [*rollback_sets.LEADING, *rollback_sets.FILTERS, *rollback_sets.CONTROLS, rollback_sets.REWARD]
)
def test_every_score_has_its_own_look(score: str) -> None:
    assert list(draw.SCORES.values()).count(draw.SCORES[score]) == 1
