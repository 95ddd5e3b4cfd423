"""Words of chapter 6 state the numbers they are given, and turn with them."""

import json

import pandas as pd
import pytest

from crossdomain import frontier, rollback_effects, rollback_sets
from crossdomain.rollback_sets import FILTERS, FISHER, LEADING, MATCHED, NEXT, RANDOM
from crossdomain.words import rollback as say

TITLES = {"math": "Math", "qa": "QA"}
CASES = {NEXT: "Math, hurt by QA"}


def front(regained: float = 6.0, *, beyond: float = 4.0, seeds: int = 1) -> pd.DataFrame:
    """All scores regain as much, less the controls by `beyond`, at 1 % and 10 %; the share varies at 10 %."""
    rows = []
    for score in (*LEADING, *FILTERS, MATCHED, rollback_sets.REWARD):
        value = regained - (beyond if score in rollback_sets.CONTROLS else 0)
        for percent, share in ((1.0, 1.0), (10.0, 0.5), (10.0, 1.0)):
            for seed in range(seeds):
                got, lost = value * share + 0.01 * seed, 0.5 + 0.01 * seed
                halves = {"regained_0": got, "regained_1": got, "lost_0": lost, "lost_1": lost}
                key = {"seed": seed, "case": NEXT, "score": score, "percent": percent, "share": share}
                size = {"coordinates": 10 * percent, "norm_share": 0.2}
                rows.append({**key, "regained": got, "lost": lost, **halves, **size})
    return pd.DataFrame(rows)


def damages(damage: float = 9.0, seeds: int = 1) -> pd.DataFrame:
    return pd.DataFrame({"seed": range(seeds), "case": NEXT, "damage": damage, "gain": 5.0})


def agreement(seeds: int = 1) -> pd.DataFrame:
    return pd.DataFrame({"seed": range(seeds), "case": NEXT, "hessian": 0.9, "fisher": 0.7, "error": 0.3})


def in_short(table: pd.DataFrame, damage: float = 9.0) -> str:
    seeds = table["seed"].nunique()
    found = say.verdicts(table, damages(damage, seeds), frontier.within(table), agreement(seeds), 10.0)
    return say.in_short(json.loads(json.dumps(found)), CASES)


def test_cases_are_called_by_who_hurt_whom() -> None:
    levels = pd.DataFrame({"case": NEXT, "domain": ["math", "qa", "math", "qa"]})
    assert say.case_titles(levels, TITLES) == CASES


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_is_regained_is_said_with_its_cost_and_its_controls(seeds: int) -> None:
    text = say.restored(front(seeds=seeds), damages(seeds=seeds), [1.0, 10.0], CASES)
    assert "Math, hurt by QA" in text and "partially restores Math" in text
    assert "10 % of the parameters (20 % of ‖δ‖²) regain +6.0" in text
    assert "regains +4.0" in text and f"beyond “{MATCHED}”" in text
    assert ("[" in text) == (seeds > 1)


@pytest.mark.parametrize(
    ("regained", "damage", "said"),
    [
        (6.0, 9.0, "it partially restores A"),
        (-1.0, 9.0, "it does **not** restore A"),
        (12.0, 9.0, "it restores A and more"),
        (6.0, -2.0, "it has no damage to restore"),
    ],
)
def test_the_verdict_turns_with_what_was_measured(regained: float, damage: float, said: str) -> None:
    assert said in in_short(front(regained), damage)


def test_seeds_without_damage_are_named_and_the_others_shown_apart() -> None:
    table, hurt = front(seeds=3), damages(seeds=3)
    assert "nothing to restore" not in say.restored(table, hurt, [10.0], CASES)
    hurt.loc[1, "damage"] = -2.0
    table.loc[table["seed"] == 1, "regained"] = -5.0
    text = say.restored(table, hurt, [10.0], CASES)
    assert "took nothing from A in seed 1 (+2.0 points): there is nothing to restore" in text
    assert "In the others, of 9.0 points lost, the Fisher's set regains +6.0 at 10 %" in text
    hurt["damage"] = -2.0
    text = say.restored(table, hurt, [10.0], CASES)
    assert "in seed 0 (+2.0 points), 1 (+2.0 points), 2 (+2.0 points)" in text and "In the others" not in text


def test_what_seeds_cannot_tell_is_no_failure_to_restore() -> None:
    table = front(6.0, seeds=3)
    table.loc[table["seed"] == 0, "regained"] += 40
    assert "it does **not** surely restore A" in in_short(table)


def test_a_control_that_does_as_well_is_named() -> None:
    assert "**not** surely more than “magnitude”, “random”, “random, same norm”" in in_short(front(beyond=0.0, seeds=3))
    assert "**not**" not in in_short(front(beyond=4.0, seeds=3))


def test_the_budget_names_the_score_that_regains_most() -> None:
    table = front()
    table.loc[table["score"] == RANDOM, ["regained_0", "regained_1"]] = 7.0
    text = say.budgeted(frontier.within(table), CASES)
    assert "Most is regained by “random”" in text and "* Fisher: +6.0 (+0.5; 1.0 %)" in text


def test_filters_are_compared_with_the_plain_score_and_short_sets_are_named() -> None:
    table = front()
    text = say.filters(table, [10.0], CASES)
    assert f"{FILTERS[0]}: +0.0 at 10 %" in text and "at 1 %" not in text and "fewer coordinates" not in text
    table.loc[(table["score"] == FILTERS[-1]) & (table["percent"] == 10), "coordinates"] = 3
    assert f"all that are left are taken: {FILTERS[-1]} at 10 %." in say.filters(table, [10.0], CASES)


def test_the_best_share_is_named_with_what_one_regains() -> None:
    table = front()
    table.loc[(table["score"] == FISHER) & (table["share"] == 0.5), "regained"] = 8.0
    text = say.shares(frontier.varied(table))
    assert "Fisher λ = 0.5 (+8.0 points; +6.0 at 1)" in text and "* 10 %" in text and "* 1 %" not in text


def test_predictions_are_stated_for_both_matrices() -> None:
    text = say.prediction(agreement(), CASES)
    assert "+0.90 with the Hessian (median error 30 %), +0.70 by the diagonal Fisher" in text


@pytest.mark.parametrize(("model", "said"), [(0.2, "does **not** carry over"), (-0.2, "it carries over")])
def test_the_greedy_set_is_judged_by_the_model_on_other_prompts(model: float, said: str) -> None:
    key = {"seed": 0, "case": NEXT, "score": rollback_sets.REWARD, "share": 1.0}
    table = pd.DataFrame([{**key, "percent": p, "hessian": p / 10 * model, "actual": 0.05} for p in (1.0, 10.0)])
    text = say.greedy(table, 10.0, CASES)
    assert said in text and f"by {'+' if model > 0 else '−'}20.0 points by the same model and by +5.0 in fact" in text


def test_pairs_count_only_where_there_was_damage() -> None:
    key = {"seed": 0, "a": "math", "b": "qa", "percent": 10.0, "draw": 0, "gain": 3.0, "lost": 1.0}
    values = {FISHER: 5.0, rollback_sets.MAGNITUDE: 6.0, RANDOM: 1.0}
    hurt = pd.DataFrame([{**key, "damage": 8.0, "score": score, "regained": v} for score, v in values.items()])
    text = say.pairs(pd.concat([hurt, hurt.assign(a="qa", b="math", damage=-1.0)]), TITLES)
    assert "of 1 pairs and seeds with damage" in text
    assert "more than magnitude in 0, more than random in 1" in text and "Fisher +5.0 (B loses +1.0)" in text
    assert "in one seed or more: QA after Math" in text


def test_policies_are_tabled_by_decoding_with_their_spread_over_seeds() -> None:
    rows = [
        {"case": NEXT, "seed": seed, "decoding": decoding, "domain": domain, "score": score, "percent": percent,
         "points": 50.0 + 2 * seed}
        for seed in (0, 1)
        for decoding in ("T=1", "greedy")
        for domain in TITLES
        for score, percent in ((rollback_effects.HURT, float("nan")), (FISHER, 10.0))
    ]  # fmt: skip
    table = say.policy_table(pd.DataFrame(rows), NEXT, TITLES)
    assert table.count("51.0 ± 1.4") == 8 and "Fisher, 10 %" in table and table.count("after them") == 2
    alone = say.policy_table(pd.DataFrame(rows[:8]), NEXT, TITLES)
    assert "50.0" in alone and "±" not in alone
