import numpy as np
import pandas as pd
import pytest

from crossdomain import objectives, rollback, rollback_effects, rollback_sets, second_order
from crossdomain.damage import moved
from crossdomain.evaluation import GREEDY, TEMPERATURE_1
from crossdomain.lineage import Lineage
from crossdomain.policy_scores import PolicyScores


@pytest.fixture(scope="module")
def small(lineage: Lineage) -> Lineage:
    """QA, then CW, with one size that takes back everything."""
    changes = {"stages": ["qa", "cw"], "refresh": "qa", "curvature_prompts": 12, "curve_prompts": 12}
    return lineage.variant({**changes, "rollback_percents": [10, 100], "rollback_points": [10]})


@pytest.fixture(scope="module")
def tables(small: Lineage) -> dict[str, pd.DataFrame]:
    return rollback_effects.full(small)


def change(table: pd.DataFrame, score: str, percent: float, domain: str, share: float = 1) -> pd.Series:
    rows = table.query(
        "score == @score and percent == @percent and domain == @domain and share == @share and draw == 0"
    )
    assert len(rows) == 1
    return rows.iloc[0]


def test_levels_are_the_scores_before_and_after_the_later_stages(small: Lineage, tables) -> None:  # type: ignore[no-untyped-def]
    scores = PolicyScores(small, "qa-cw")
    for row in tables["levels"].itertuples():
        for name, value in (("qa", row.before), ("qa-cw", row.after)):
            params = objectives.parameters(small.checkpoint(name).model())
            assert value == pytest.approx(float(scores.expected(params, row.domain).mean()), abs=1e-4)
    assert tables["levels"]["domain"].tolist() == ["qa", "cw"]


@pytest.mark.parametrize("score", [rollback_sets.FISHER, rollback_sets.REWARD, rollback_sets.RANDOM])
def test_taking_all_of_the_update_back_undoes_what_it_did(score: str, tables) -> None:  # type: ignore[no-untyped-def]
    levels = tables["levels"].set_index("domain")
    row = change(tables["measured"], score, 100, "qa")
    assert row["change"] == pytest.approx(levels.loc["qa", "before"] - levels.loc["qa", "after"], abs=1e-3)
    assert row["norm_share"] == pytest.approx(1)
    assert row["change"] == pytest.approx((row["change_0"] + row["change_1"]) / 2)


def test_a_part_is_measured_where_it_leads(small: Lineage, tables) -> None:  # type: ignore[no-untyped-def]
    at, delta = second_order.point(small, "qa"), second_order.update(small, "qa", "qa-cw")
    scores = PolicyScores(small, "qa-cw")
    chosen = rollback_sets.first(rollback.ranking(delta.abs()), 10, len(delta))
    left = moved(at.params, rollback.rolled_back(delta, chosen, 0.5))
    gained = scores.expected(left, "qa") - scores.expected(moved(at.params, delta), "qa")
    row = change(tables["measured"], rollback_sets.MAGNITUDE, 10, "qa", share=0.5)
    assert row["change"] == pytest.approx(float(gained.mean()), abs=1e-4)
    assert row["coordinates"] == len(chosen)


def test_predictions_are_those_of_the_proposition_and_equal_the_damage_for_the_whole_update(small, tables) -> None:  # type: ignore[no-untyped-def]
    predicted = tables["predicted"]
    whole = predicted[(predicted["percent"] == 100) & (predicted["score"] == rollback_sets.FISHER)].iloc[0]
    path = second_order.path(small)["path"]
    row = path[(path["t"] == 1) & (path["objective"] == "exact reward")].iloc[0]
    assert whole["hessian"] == pytest.approx(-row["predicted"], rel=1e-3, abs=1e-8)
    assert whole["actual"] == pytest.approx(-row["actual"], rel=1e-3, abs=1e-7)
    assert (predicted.loc[predicted["share"] == 1, "fisher"] < 0).all()


def test_shares_are_varied_and_policies_scored_at_the_points_only(small: Lineage, tables) -> None:  # type: ignore[no-untyped-def]
    varied = tables["measured"].query("share != 1")
    assert set(varied["score"]) == set(rollback_sets.LEADING) and set(varied["percent"]) == {10}
    policies = tables["policies"]
    named = {rollback_effects.LEARNED, rollback_effects.HURT, *rollback_sets.LEADING}
    assert set(policies["score"]) == named and len(policies) == len(named) * 2 * 2
    before = policies[(policies["score"] == rollback_effects.LEARNED) & (policies["decoding"] == TEMPERATURE_1)]
    np.testing.assert_allclose(before["points"], tables["levels"]["before"], atol=1e-6)
    assert policies.loc[policies["decoding"] == GREEDY, "points"].between(0, 100).all()


def test_a_pair_of_the_sequence_is_the_case_of_the_same_stages(small: Lineage, tables) -> None:  # type: ignore[no-untyped-def]
    pairs = rollback_effects.pairs(small)["pairs"]
    assert set(zip(pairs["a"], pairs["b"], strict=True)) == {("qa", "cw")}
    for score in (rollback_sets.FISHER, rollback_sets.DAMAGED, rollback_sets.MAGNITUDE):
        row = pairs[(pairs["score"] == score) & (pairs["percent"] == 10)].iloc[0]
        for column, domain, sign in (("regained", "qa", 1), ("lost", "cw", -1)):
            same = change(tables["measured"], score, 10, domain)["change"]
            assert row[column] == pytest.approx(sign * same, abs=1e-3)
