"""Chapter 7's study on the smallest lineage: what it reports is what the checkpoints give."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from crossdomain import alternating, alternating_refresh, evaluation, second_order
from crossdomain.alternating import A_FIRST
from crossdomain.lineage import Lineage


@pytest.fixture(scope="module")
def small(lineage: Lineage) -> Lineage:
    """QA, then CW: the refreshed domain has one right answer, the later one several."""
    changes = {"stages": ["qa", "cw"], "refresh": "qa", "curvature_prompts": 12, "alternating_cycles": 2}
    return lineage.variant({**changes, "refresh_steps": 3})


@pytest.fixture(scope="module")
def cycles(small: Lineage) -> dict[str, pd.DataFrame]:
    return alternating_refresh.cycles(small)


def test_the_main_pair_comes_first_and_prefers_domains_with_one_answer(lineage: Lineage) -> None:
    assert alternating_refresh.pairs(lineage) == [("math", "qa"), ("math", "code"), ("math", "cw")]
    assert alternating_refresh.pairs(lineage.variant({"refresh": "cw"}))[0] == ("cw", "math")
    assert alternating_refresh.pairs(lineage.variant({"stages": ["math", "cw"]})) == [("math", "cw")]


def test_on_the_policy_itself_deviations_have_the_propositions_orders(cycles: dict[str, pd.DataFrame]) -> None:
    orders = cycles["orders"]
    of = orders[orders["quantity"] == alternating.PARAMETERS].set_index(["order", "corrected"])["slope"]
    for order in alternating.ORDERS:
        assert of[order, False] == pytest.approx(2, abs=0.1)
        assert of[order, True] == pytest.approx(3, abs=0.1)
    assert of[alternating.A_ALONE, False] == pytest.approx(1, abs=0.1)


def test_steps_are_in_units_of_the_two_top_eigenvalues(cycles: dict[str, pd.DataFrame]) -> None:
    table, tops = cycles["deviations"], cycles["objectives"].set_index("domain")["top_eigenvalue"]
    assert sorted(table["multiple"].unique()) == pytest.approx(alternating_refresh.MULTIPLES)
    np.testing.assert_allclose(table["alpha"], table["multiple"] / tops[["qa", "cw"]].sum(), rtol=1e-9)


def test_descents_start_from_the_damaged_policy(small: Lineage, cycles: dict[str, pd.DataFrame]) -> None:
    table = cycles["descents"]
    assert table["cycle"].max() == 2 and (table["a"] == "qa").all() and (table["b"] == "cw").all()
    at = second_order.point(small, "qa-cw")
    loss = second_order.loss_of(small, "qa-cw", at, "qa", "test")
    start = table[table["cycle"] == 0]
    assert start["held_out_a"].to_numpy() == pytest.approx(loss.value(at.params).value, rel=1e-5)
    tops = cycles["objectives"].set_index("domain")["top_eigenvalue"]
    joint = table.set_index(["way", "cycle"]).loc[(alternating.JOINT, 0)]
    after = table.set_index(["way", "cycle"]).loc[(alternating.JOINT, 1)]
    assert after["moved"] == pytest.approx(joint["gradient"] / (tops["qa"] + tops["cw"]), rel=1e-3)
    assert table.loc[table["way"] == A_FIRST, "gap"].iloc[1] > 0


def test_all_refreshes_take_as_many_steps_and_train_what_they_say(small: Lineage) -> None:
    made = alternating_refresh.refreshes(small)
    assert list(made) == ["alternating", "one after another", "mixed batches", "refresh QA", "refresh CW"]
    logs = {method: small.checkpoint(name).training_log() for method, name in made.items()}
    assert all(log["step"].tolist() == [1, 2, 3] for log in logs.values())
    inputs = {method: small.checkpoint(made[method]).artifact.manifest["inputs"] for method in list(made)[:3]}
    schedules = {method: json.loads(json.dumps(found["schedule"])) for method, found in inputs.items()}
    assert schedules == {
        "alternating": ["Rotation", ["qa", "cw"], 1],
        "one after another": ["Rotation", ["qa", "cw"], 2],
        "mixed batches": ["Shares", [["qa", 0.5], ["cw", 0.5]]],
    }
    assert len({small.checkpoint(name).key for name in made.values()}) == 5


def test_changes_are_those_of_the_scores_and_totals_are_paired_with_the_plain_refresh(small: Lineage) -> None:
    changes = alternating_refresh.changes([small])
    rows = changes[(changes["split"] == "test") & (changes["decoding"] == "T=1")].set_index(["step", "domain"])
    names = alternating_refresh.refreshes(small)
    for method, name in names.items():
        scores = evaluation.by_prompt(evaluation.scores(small, name)).loc[("qa", "test", "T=1")]
        assert rows.loc[(method, "qa"), "after"] == pytest.approx(100 * scores.mean())
    totals = alternating_refresh.totals(changes, "refresh QA").set_index("method")
    assert list(totals.index) == ["no refresh", *names]
    after = rows.loc["alternating", "after"]
    assert totals.loc["alternating", "average"] == pytest.approx(after.mean())
    assert totals.loc["alternating", "worst"] == after.min()


def test_totals_of_a_hand_made_table() -> None:
    rows = [
        {"step": step, "seed": 0, "domain": domain, "split": "test", "decoding": "T=1", "before": before, "after": after,
         "change": after - before}
        for step, scores in {"refresh A": {"a": (20, 30), "b": (40, 38)}, "both": {"a": (20, 26), "b": (40, 48)}}.items()
        for domain, (before, after) in scores.items()
    ]  # fmt: skip
    greedy = [{**row, "decoding": "greedy", "after": 99.0} for row in rows]
    found = alternating_refresh.totals(pd.DataFrame(rows + greedy), "refresh A").set_index("method")
    assert found.loc["both"].to_dict() == {
        "seed": 0, "average": 37, "worst": 26, "gained": 7, "lost_most": 6, "average_over_plain": 3, "worst_over_plain": -4
    }  # fmt: skip
    assert found.loc["no refresh", ["average", "worst", "gained", "average_over_plain"]].tolist() == [30, 20, 0, -4]
