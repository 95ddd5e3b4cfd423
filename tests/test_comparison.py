"""Comparing with reference results: to the bit where it can be, else within what is stated."""

import copy
from typing import Any

import pandas as pd
import pytest

from crossdomain import claims, comparison, rules
from crossdomain.comparison import IDENTICAL, MACHINERY, OTHER_SEEDS, SAME_SEEDS, Comparison
from crossdomain.evidence import Evidence
from crossdomain.profiles import load_profile
from synthetic_results import tables


@pytest.fixture(scope="module")
def judged() -> dict[str, Any]:
    evidence = Evidence(tables(), load_profile("cpu"), frozenset())
    return claims.as_data([rules.judge(claim, evidence) for claim in claims.CLAIMS])


@pytest.fixture
def reference(judged: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(judged)


def row(found: list[Comparison], claim: str) -> Comparison:
    return next(row for row in found if row.name == claim)


@pytest.mark.parametrize("conditions", [IDENTICAL, SAME_SEEDS, MACHINERY, OTHER_SEEDS])
def test_equal_results_agree(reference: dict[str, Any], judged: dict[str, Any], conditions: str) -> None:
    found = comparison.compare_claims(reference, judged, conditions)
    assert [row.name for row in found] == [claim.id for claim in claims.CLAIMS]
    assert {row.agrees for row in found} == {True}


def test_one_changed_reference_number_is_named(reference: dict[str, Any], judged: dict[str, Any]) -> None:
    reference["C9"]["rules"][0]["value"] += 1e-6
    found = comparison.compare_claims(reference, judged, IDENTICAL)
    assert [row.name for row in found if not row.agrees] == ["C9"]
    assert "points gained by the refresh: " in row(found, "C9").look_at
    assert "chapter 1 (`make notebook NB=01" in row(found, "C9").look_at


def test_an_inverted_rule_is_named_whatever_the_seeds(reference: dict[str, Any], judged: dict[str, Any]) -> None:
    yours = copy.deepcopy(judged)
    yours["C6"]["rules"][0] |= {"side": "below", "holds": False}
    yours["C6"]["verdict"] = rules.PARTLY
    for conditions in (IDENTICAL, SAME_SEEDS, MACHINERY, OTHER_SEEDS):
        found = comparison.compare_claims(reference, yours, conditions)
        assert [row.name for row in found if not row.agrees] == ["C6"]
        assert "the rules differ: size of the second-order term" in row(found, "C6").look_at


def test_the_machinery_is_compared_by_what_was_judged_and_not_by_numbers(
    reference: dict[str, Any], judged: dict[str, Any]
) -> None:
    reference["C9"]["rules"][0]["value"] += 50.0
    reference["C9"]["verdict"] = rules.NOT_REPRODUCED
    assert row(comparison.compare_claims(reference, judged, MACHINERY), "C9").agrees
    reference["C9"]["verdict"] = rules.NOT_TESTABLE
    assert not row(comparison.compare_claims(reference, judged, MACHINERY), "C9").agrees


def test_a_rule_that_only_the_reference_has_is_named(reference: dict[str, Any], judged: dict[str, Any]) -> None:
    yours = copy.deepcopy(judged)
    gone = yours["C6"]["rules"].pop()
    look_at = row(comparison.compare_claims(reference, yours, IDENTICAL), "C6").look_at
    assert f"{gone['what']} only in the reference" in look_at


def test_elsewhere_statistics_agree_within_the_tolerance_of_their_unit(
    reference: dict[str, Any], judged: dict[str, Any]
) -> None:
    gained = reference["C9"]["rules"][0]
    for off, agrees in ((4.9, True), (5.1, False)):
        gained["value"] = judged["C9"]["rules"][0]["value"] + off
        found = row(comparison.compare_claims(reference, judged, SAME_SEEDS), "C9")
        assert found.agrees is agrees


def test_large_statistics_have_a_tolerance_in_proportion(reference: dict[str, Any], judged: dict[str, Any]) -> None:
    share = reference["C1"]["rules"][1]
    for factor, agrees in ((1.09, True), (1.2, False)):
        share["value"] = judged["C1"]["rules"][1]["value"] * factor
        assert row(comparison.compare_claims(reference, judged, SAME_SEEDS), "C1").agrees is agrees


@pytest.mark.parametrize(
    ("first", "second", "agrees"),
    [
        ((5, 4, 6), (7, 5.9, 8), True),
        ((5, 4, 6), (7, 6.1, 8), False),
        ((5, 4, 6), (5.5, None, None), True),
        ((5, 4, 6), (6.5, None, None), False),
        ((5, None, None), (9, None, None), True),
    ],
    ids=["overlap", "apart", "value inside", "value outside", "nothing to compare with"],
)
def test_other_seeds_are_compared_by_their_intervals(
    reference: dict[str, Any], judged: dict[str, Any], first: tuple[Any, ...], second: tuple[Any, ...], agrees: bool
) -> None:
    yours = copy.deepcopy(judged)
    for found, values in ((reference, first), (yours, second)):
        found["C9"]["rules"][0] |= dict(zip(("value", "low", "high"), values, strict=True))
    assert row(comparison.compare_claims(reference, yours, OTHER_SEEDS), "C9").agrees is agrees


def test_claims_of_chapters_with_seeds_of_their_own_are_compared_as_those_of_other_seeds(
    reference: dict[str, Any], judged: dict[str, Any]
) -> None:
    for claim in ("C9", "C4"):
        reference[claim]["verdict"] = rules.PARTLY
    (chapter,) = {claim.chapter for claim in claims.CLAIMS if claim.id == "C4"}
    for conditions in (IDENTICAL, MACHINERY):
        found = comparison.compare_claims(reference, judged, conditions, {chapter})
        assert row(found, "C4").agrees is True
        assert row(found, "C9").agrees is (conditions == MACHINERY)
    assert row(comparison.compare_claims(reference, judged, IDENTICAL), "C4").agrees is False


def test_values_of_single_seeds_cannot_be_compared_with_others(reference: dict[str, Any]) -> None:
    for outcome in reference["C9"]["rules"]:
        outcome |= {"low": None, "high": None}
    assert row(comparison.compare_claims(reference, reference, OTHER_SEEDS), "C9").agrees is None


def test_another_verdict_counts_for_the_same_seeds_alone(reference: dict[str, Any], judged: dict[str, Any]) -> None:
    reference["C4"]["verdict"] = rules.PARTLY
    for conditions, agrees in ((SAME_SEEDS, False), (OTHER_SEEDS, True)):
        assert row(comparison.compare_claims(reference, judged, conditions), "C4").agrees is agrees


def test_a_claim_that_could_not_be_tested_this_time_is_named(reference: dict[str, Any], judged: dict[str, Any]) -> None:
    untested = {"verdict": rules.NOT_TESTABLE, "reason": "chapter 4 was not run.", "rules": []}
    found = comparison.compare_claims(reference, {**judged, "C6": untested}, OTHER_SEEDS)
    assert not row(found, "C6").agrees and "chapter 4 was not run" in row(found, "C6").look_at
    both = comparison.compare_claims({**reference, "C6": untested}, {**judged, "C6": untested}, IDENTICAL)
    assert row(both, "C6").agrees


def test_a_reference_that_does_not_know_a_claim_is_too_old(reference: dict[str, Any], judged: dict[str, Any]) -> None:
    del reference["C5"]
    found = row(comparison.compare_claims(reference, judged, IDENTICAL), "C5")
    assert not found.agrees and "promote a new one" in found.look_at


SCORES = pd.DataFrame(
    {
        "role": ["base", "after CW"],
        "seed": 3,
        "domain": "math",
        "split": "test",
        "decoding": "T=1",
        "score": [40.0, 60.0],
    }
)


def test_scores_must_be_equal_to_the_bit_under_identical_conditions() -> None:
    assert comparison.compare_scores(SCORES, SCORES, IDENTICAL).agrees
    off = SCORES.assign(score=[40.0, 60.0 + 1e-12])
    found = comparison.compare_scores(SCORES, off, IDENTICAL)
    assert not found.agrees and "after CW, math test, T=1, seed 3: 60.0, here 60.000000000001" in found.look_at
    assert comparison.compare_scores(SCORES, off, SAME_SEEDS).agrees
    assert not comparison.compare_scores(SCORES, SCORES.assign(score=[40.0, 66.0]), SAME_SEEDS).agrees
    assert comparison.compare_scores(SCORES, SCORES.assign(seed=0), OTHER_SEEDS).agrees is None


def test_a_score_that_is_missing_is_a_difference() -> None:
    assert comparison.compare_scores(SCORES, SCORES.assign(score=[40.0, 66.0]), MACHINERY).agrees
    assert not comparison.compare_scores(SCORES, SCORES.iloc[:1], MACHINERY).agrees
    found = comparison.compare_scores(SCORES, SCORES.iloc[:1], SAME_SEEDS)
    assert not found.agrees and "after CW, math test, seed 3: only on one side" in found.look_at


WEIGHTS = pd.DataFrame({"name": ["base-seed1", "code-seed3"], "key": ["base.1", "code.2"], "sha256": ["aa", "bb"]})


def test_other_weights_under_the_same_key_are_named() -> None:
    assert comparison.compare_checkpoints(WEIGHTS, WEIGHTS, IDENTICAL).agrees
    replaced = WEIGHTS.assign(sha256=["aa", "cc"])
    found = comparison.compare_checkpoints(WEIGHTS, replaced, IDENTICAL)
    assert not found.agrees and found.look_at == "code-seed3: its weights are not the reference's"
    assert comparison.compare_checkpoints(WEIGHTS, replaced, SAME_SEEDS).agrees is None
    assert comparison.compare_checkpoints(WEIGHTS, WEIGHTS.assign(key=["x", "y"]), IDENTICAL).agrees is None


def test_conditions_that_differ_are_said() -> None:
    made = {
        "versions": {"torch": "2.13.0", "pandas": "3.1"},
        "hardware": {"threads": 1, "processor": "P", "accelerator": "none", "memory_gib": 4},
        "profile": {"name": "cpu", "batch_size": 256},
    }
    assert comparison.unlike(made, copy.deepcopy(made)) == []
    other = copy.deepcopy(made)
    other["versions"] |= {"torch": "2.14.0", "pandas": "3.2"}
    other["hardware"] |= {"threads": 2, "memory_gib": 8}
    other["profile"] |= {"batch_size": 128, "new": 1}
    assert comparison.unlike(made, other) == [
        "torch version: 2.13.0 in the reference, 2.14.0 here",
        "threads: 1 in the reference, 2 here",
        "setting batch_size: 256 in the reference, 128 here",
    ]  # and not a setting that came later


def test_long_lists_are_cut() -> None:
    assert comparison.listed(str(k) for k in range(7)) == "0; 1; 2; 3; 4; and 2 more"
