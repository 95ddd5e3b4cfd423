import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdomain import frontier

POINTS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=8)


def measured(score: str = "Fisher", draw: int = 0, percent: float = 1, **changes: float) -> pd.DataFrame:
    """Rows of one set: the change of A and of the others, in halves that differ by 2."""
    rows = [{"domain": domain, "change": c, "change_0": c + 1, "change_1": c - 1} for domain, c in changes.items()]
    key = {"seed": 0, "case": "x", "score": score, "percent": percent, "share": 1.0, "draw": draw}
    return pd.DataFrame(rows).assign(**key, coordinates=7, norm_share=0.25)


def test_lost_is_the_mean_of_the_others_and_draws_are_averaged() -> None:
    rows = pd.concat([measured("random", 0, a=4, b=-1, c=-3), measured("random", 1, a=2, b=0, c=0)])
    (row,) = frontier.frontier(rows, "a").to_dict("records")
    assert (row["regained"], row["lost"]) == (3, 1)
    assert (row["regained_0"], row["regained_1"], row["lost_0"], row["lost_1"]) == (4, 2, 0, 2)
    assert (row["coordinates"], row["norm_share"]) == (7, 0.25)


def test_damage_is_what_a_lost_and_gain_the_mean_of_the_others() -> None:
    levels = pd.DataFrame(
        {"seed": 0, "case": "x", "domain": ["a", "b", "c"], "before": [80.0, 40, 50], "after": [70.0, 60, 60]}
    )
    assert frontier.damages(levels, "a").to_dict("records") == [{"seed": 0, "case": "x", "damage": 10.0, "gain": 15.0}]


def sizes(*rows: tuple[float, float, float, float, float]) -> pd.DataFrame:
    """A front of one score: percent, regained and lost on each half."""
    table = pd.DataFrame(rows, columns=["percent", "regained_0", "lost_0", "regained_1", "lost_1"])
    return table.assign(seed=0, case="x", score="s", share=1.0)


def test_the_size_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    front = sizes((1, 1, 0, 2, 0), (10, 5, 0.5, 3, 2), (30, 9, 4, 8, 5))
    (row,) = frontier.within(front, allowed=1).to_dict("records")
    # The first half chooses 10 %, the second 1 %, since there 10 % loses too much.
    assert (row["regained"], row["lost"], row["percent"]) == ((3 + 1) / 2, (2 + 0) / 2, 5.5)


def test_nothing_is_taken_back_where_every_size_loses_too_much_or_regains_nothing() -> None:
    (row,) = frontier.within(sizes((1, -1, 0, -2, 0), (10, 5, 3, 5, 3)), allowed=1).to_dict("records")
    assert (row["regained"], row["lost"], row["percent"]) == (0, 0, 0)


def test_only_whole_rollbacks_count_towards_the_budget() -> None:
    front = pd.concat([sizes((1, 1, 0, 1, 0)), sizes((1, 9, 0, 9, 0)).assign(share=1.5)])
    assert frontier.within(front)["regained"].tolist() == [1]


def test_the_share_is_varied_in_some_cases_sizes_and_scores_only() -> None:
    rows = [
        sizes((p, 1, 0, 1, 0)).assign(share=share, case=c)
        for p, share, c in ((1, 1, "x"), (10, 1, "x"), (10, 0.5, "x"))
    ]
    found = frontier.varied(pd.concat([*rows, rows[1].assign(case="y"), rows[1].assign(score="other")]))
    assert found[["case", "score", "percent", "share"]].to_numpy().tolist() == [["x", "s", 10, 1], ["x", "s", 10, 0.5]]


def test_a_score_is_compared_with_a_control_of_the_same_size() -> None:
    rows = [measured("Fisher", percent=p, a=5 * p, b=-1) for p in (1, 2)]
    rows += [measured("random", percent=p, a=p, b=-3) for p in (1, 2)]
    found = frontier.beyond(frontier.frontier(pd.concat(rows), "a"), "Fisher", "random")
    assert found[["percent", "regained", "lost"]].to_numpy().tolist() == [[1, 4, -2], [2, 8, -2]]


@given(POINTS)
def test_the_pareto_front_holds_what_no_other_point_betters(points: list[tuple[int, int]]) -> None:
    regained, lost = np.array(points).T
    expected = [
        not any(r >= regained[i] and c <= lost[i] and (r > regained[i] or c < lost[i]) for r, c in points)
        for i in range(len(points))
    ]
    assert frontier.efficient(regained, lost).tolist() == expected


def test_agreement_is_of_order_for_both_and_of_size_for_the_hessian() -> None:
    actual = np.array([-0.01, -0.02, -0.03, -0.05])
    table = pd.DataFrame(
        {"seed": 0, "case": "x", "hessian": 1.1 * actual, "fisher": -np.sqrt(-actual), "actual": actual}
    )
    (row,) = frontier.agreement(table).to_dict("records")
    assert (row["hessian"], row["fisher"], row["error"]) == (pytest.approx(1), pytest.approx(1), pytest.approx(0.1))
    reverse = frontier.agreement(table.assign(hessian=-table["hessian"])).iloc[0]
    assert reverse["hessian"] == pytest.approx(-1)
