"""Words of chapter 8 state the numbers they are given, and turn with them."""

import pandas as pd
import pytest

from crossdomain.alternatives import MORE, SEQUENCE, Method
from crossdomain.orders import PREDICTORS
from crossdomain.words import alternatives as say

METHODS = {
    SEQUENCE: Method("the sequence", lambda lineage: ""),
    MORE: Method("control", lambda lineage: ""),
    "kl": Method("KL", lambda lineage: "", checkpoints="the stage's start"),
    "ewc": Method("EWC", lambda lineage: "", prompts="earlier domains, once"),
}
NAMES = {"math": "Math", "qa": "QA"}


def table(seeds: int = 3) -> pd.DataFrame:
    level = {(SEQUENCE, False): 50, (SEQUENCE, True): 60, (MORE, True): 51, ("kl", True): 70, ("ewc", True): 45}
    rows = [
        {"seed": seed, "method": method, "longer": longer, "average": value + seed + 0.1 * seed * (method == "kl"),
         "worst": value - 10, "steps": 440, "seconds": 100 * (1 + (method == "kl"))}
        for (method, longer), value in level.items() for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_methods_are_listed_from_the_best_with_what_they_have_more() -> None:
    text = say.compared(table(), METHODS, "Math")
    assert text.index("* KL: +10.1 [") < text.index("* control: −9.0") < text.index("* EWC: −15.0")
    assert "At 440 RL steps" in text and "refresh of Math" in text and "**61.0" in text and "(3 seeds)" in text
    assert "changes the sequence's average by +10.0" in text


def test_one_seed_has_no_interval() -> None:
    text = say.compared(table(1), METHODS, "Math")
    assert "* KL: +10.0; +10.0." in text and "(one seed)" in text


def test_costs_are_relative_to_the_sequence() -> None:
    assert "KL 200 s (×2.00)" in say.costs(table(), METHODS)


def test_needs_are_a_table_with_a_row_a_method() -> None:
    lines = say.needs(METHODS).splitlines()
    assert "| EWC | earlier domains, once | – | – |" in lines and "| KL | – | – | the stage's start |" in lines


def test_choices_are_named_seed_by_seed() -> None:
    rows = [
        {"seed": seed, "method": "kl", "value": value, "chosen": value == (0.5 if seed else 2)}
        for seed in (1, 0) for value in (0.5, 2)
    ]  # fmt: skip
    assert "KL: 2, 0.5 (of 0.5, 2)" in say.choices(pd.DataFrame(rows), METHODS)


def orders_table() -> pd.DataFrame:
    rows = [("math-qa", False, 50.0), ("math-qa", True, 58.0), ("qa-math", False, 54.5), ("qa-math", True, 55.0)]
    return pd.DataFrame(rows, columns=["order", "refreshed", "average"]).assign(seed=3, lost=1.0, worst=40.0)


def test_best_and_worst_order_are_named_with_what_the_refresh_changes() -> None:
    scores = pd.DataFrame({"refreshed": [False] * 4, "domain": ["math", "qa"] * 2, "later": [1, 0, 0, 1],
                           "lost": [6.0, 0, 0, 2]})  # fmt: skip
    text = say.orders(orders_table(), scores, NAMES, "Math")
    assert "best is **QA → Math** with 54.5" in text and "worst **Math → QA** with 50.0: 4.5 points apart" in text
    assert "by +4.2 points over all orders, from +0.5 to +8.0" in text and "then 3.0 points apart" in text
    assert "Math 6.0, QA 2.0" in text


def ranking(p: float) -> pd.DataFrame:
    return pd.DataFrame({"seed": 3, "predictor": list(PREDICTORS), "correlation": 0.6, "p": p, "with_average": 0.4})


@pytest.mark.parametrize(("p", "said"), [(1 / 24, "ranks the orders better"), (0.2, "does **not** surely rank")])
def test_a_prediction_holds_only_against_its_relabellings(p: float, said: str) -> None:
    text = say.prediction(ranking(p))
    assert said in text and "**+0.60**" in text and all(name in text for name in PREDICTORS.values())


def test_a_run_without_orders_says_how_to_get_them() -> None:
    assert "`crossdomain run 08 --seeds 3`" in say.not_asked([3], [0, 1])
    assert "none in this profile" in say.not_asked([], [0])


def test_verdicts_name_what_is_surely_better_and_worse() -> None:
    found = say.verdicts(table(), METHODS, orders_table(), ranking(1 / 24))
    text = say.in_short(found, NAMES, "Math")
    assert "Surely better: KL. Surely worse: EWC." in text and "At 440 RL steps" in text
    assert "from Math → QA to QA → Math" in text and "4 % of relabellings" in text
    short = say.verdicts(table(1), METHODS, None, None)
    text = say.in_short(short, NAMES, "Math")
    assert "Surely better: none. Surely worse: none." in text and "KL has +10.0 points" in text
    assert "order" not in text and short["orders"] is None
