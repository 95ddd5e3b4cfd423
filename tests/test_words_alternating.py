"""Words of chapter 7 state the numbers they are given, and turn with them."""

import json

import numpy as np
import pandas as pd
import pytest

from crossdomain.alternating import A_ALONE, A_FIRST, A_WRONG, AVERAGED, B_ALONE, B_FIRST, JOINT, LOSS_A, PARAMETERS
from crossdomain.words import alternating as say

TITLES = {"math": "Math", "qa": "QA"}
KINDS = [
    (A_FIRST, False, 2.0), (B_FIRST, False, 2.0), (AVERAGED, False, 2.0), (A_ALONE, False, 1.0), (B_ALONE, False, 1.0),
    (A_FIRST, True, 3.0), (B_FIRST, True, 3.0), (AVERAGED, True, 3.0), (A_WRONG, True, 2.0),
]  # fmt: skip
OBJECTIVES = pd.DataFrame(
    {
        "domain": ["math", "qa"],
        "objective": ["exact reward of Math", "exact reward of QA"],
        "top_eigenvalue": [3.0, 2.0],
    }
)


def orders(slope: float = 2.0, seeds: int = 1) -> pd.DataFrame:
    rows = [
        {"a": "math", "b": "qa", "seed": seed, "order": order, "corrected": corrected, "quantity": quantity,
         "slope": (slope if order == A_FIRST and not corrected else value) + 0.01 * seed}
        for order, corrected, value in KINDS
        for quantity in (PARAMETERS, LOSS_A)
        for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def deviations(off: float = 0.08) -> pd.DataFrame:
    rows = [
        {"a": "math", "b": "qa", "seed": 0, "multiple": multiple, "order": order, "corrected": corrected,
         "quantity": PARAMETERS, "relative": 0.71 if order == A_ALONE else off}
        for order, corrected, _ in KINDS
        for multiple in (0.1, 1.0)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def descents(end: float = -0.6) -> pd.DataFrame:
    rows = [
        {"a": "math", "b": "qa", "way": way, "seed": 0, "cycle": t, "held_out_a": -0.5 - 0.1 * t, "held_out_b": b,
         "gradient": 1.0 - 0.5 * t, "min_norm": 0.5 - 0.2 * t, "moved": 2.0 * t, "gap": 0.0 if way == JOINT else 0.1 * t}
        for way in (JOINT, A_FIRST, B_FIRST, A_ALONE, B_ALONE)
        for t, b in enumerate((-0.55, end))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def totals(gain: float, seeds: int = 3) -> pd.DataFrame:
    means = {"no refresh": 50.0, "alternating": 53 + gain, "one after another": 53.0, "mixed batches": 54.0}
    rows = [
        {"seed": seed, "method": method, "average": mean, "worst": 40.0, "average_over_plain": mean - 53 + 0.01 * seed,
         "worst_over_plain": 0.0}
        for method, mean in {**means, "refresh Math": 53.0}.items()
        for seed in range(seeds)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(average=table["average"] + 0.01 * table["seed"].where(table["method"] == "alternating", 0))


def test_a_pair_with_a_flat_loss_is_said_to_leave_nothing_to_measure() -> None:
    flat = OBJECTIVES.assign(top_eigenvalue=[3.0, 0.0])
    text = say.approximation(deviations(0.0), orders(), flat, TITLES)
    assert "nothing to measure, since the loss of QA is flat" in text and "At the largest step" not in text


@pytest.mark.parametrize(("slope", "said"), [(2.0, "all are within 0.1"), (2.6, "1 are **not** within 0.1")])
def test_orders_are_compared_with_the_propositions(slope: float, said: str) -> None:
    text = say.approximation(deviations(), orders(slope), OBJECTIVES, TITLES)
    assert said in text and f"Math first {slope:.2f}" in text and "exact reward of QA" in text
    assert "two steps on Math alone 71.0 %" in text and "Math first 8.0 %" in text
    assert "two steps on Math alone 1.00" in text and "term of the other order 2.00" in text


def test_several_seeds_have_an_interval_and_unknown_orders_are_left_out() -> None:
    assert "Math first 2.01 [" in say.approximation(deviations(), orders(seeds=3), OBJECTIVES, TITLES)
    some = orders().assign(slope=lambda t: t["slope"].where(t["order"] != A_WRONG, np.nan))
    assert "term of the other order" not in say.approximation(deviations(), some, OBJECTIVES, TITLES)


@pytest.mark.parametrize(("end", "said"), [(-0.6, "in 1 of 1 seeds"), (-0.5, "in 0 of 1 seeds")])
def test_a_compromise_is_one_only_if_both_losses_fall(end: float, said: str) -> None:
    text = say.compromise(descents(end), TITLES)
    assert said in text and "Math +10.0" in text and "5.0 % of the way" in text
    assert "shrinks in 1 of 1" in text and "becomes 0.50 times" in text


@pytest.mark.parametrize(
    ("gain", "best", "told"), [(2.0, "alternating", "better than"), (-2.0, "mixed batches", "worse than")]
)
def test_the_alternating_refresh_is_called_better_only_where_it_is(gain: float, best: str, told: str) -> None:
    changes = pd.DataFrame(
        {"step": np.repeat(["alternating", "refresh Math"], 2), "domain": ["math", "qa"] * 2, "seed": 0, "split": "test",
         "decoding": "T=1", "change": [5.0, 1, 8, -2], "low": 0.0, "high": 9.0}
    )  # fmt: skip
    text = say.refreshes(changes, totals(gain), "refresh Math", TITLES)
    assert f"best average is that of “{best}”" in text and "QA −2.0 [0.0, 9.0]" in text
    found = say.verdicts(deviations(), orders(), descents(), totals(gain), "refresh Math")
    short = say.in_short(json.loads(json.dumps(found)), TITLES)
    assert told in short and "both gain" in short and "off by order 2.00 in α, 3.00 with Proposition 5's term" in short


def test_what_cannot_be_told_apart_is_said_to_be_so() -> None:
    found = say.verdicts(deviations(0.9), orders(), descents(-0.5), totals(0.0, seeds=1), "refresh Math")
    short = say.in_short(found, TITLES)
    assert "**not** told apart from" in short and "**not** closer" in short and "**not** both gain" in short
