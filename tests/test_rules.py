"""Rules: what holds, and which verdict follows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdomain import rules
from crossdomain.evidence import ClaimError, Evidence, NotTestableError
from crossdomain.profiles import load_profile
from crossdomain.rules import Claim, Outcome, Rule
from crossdomain.stats import Interval

ABOVE = Rule("the gain", lambda _: Interval(2, 1, 3), "above", 0, unit="points")
BELOW = replace(ABOVE, side="below", bound=5)
NAN = float("nan")


@pytest.mark.parametrize(
    ("rule", "value", "holds"),
    [
        (ABOVE, (2, 1, 3), True),
        (ABOVE, (2, -0.1, 3), False),
        (ABOVE, (2, 0, 3), False),
        (ABOVE, (2, NAN, NAN), True),
        (ABOVE, (-2, NAN, NAN), False),
        (ABOVE, (NAN, NAN, NAN), None),
        (BELOW, (2, 1, 3), True),
        (BELOW, (2, 1, 5.5), False),
        (BELOW, (6, NAN, NAN), False),
    ],
)
def test_a_rule_holds_where_the_whole_interval_is_on_its_side(
    rule: Rule, value: tuple[float, float, float], holds: bool | None
) -> None:
    assert rule.holds(Interval(*value)) is holds


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3).map(sorted), st.floats(-10, 10))
def test_an_interval_is_never_surely_on_both_sides(values: list[float], bound: float) -> None:
    low, value, high = values
    both = [replace(ABOVE, side=side, bound=bound).holds(Interval(value, low, high)) for side in ("above", "below")]
    assert both != [True, True]
    assert (both == [False, False]) == (low <= bound <= high)


def outcomes(parts: str, controls: str) -> tuple[Outcome, ...]:
    """Outcomes from signs: + holds, - does not, ? is not known."""
    values = {"+": Interval(1, 1, 1), "-": Interval(-1, -1, -1), "?": Interval(NAN, NAN, NAN)}
    marked = [(sign, False) for sign in parts] + [(sign, True) for sign in controls]
    return tuple(Outcome(replace(ABOVE, control=control), values[sign]) for sign, control in marked)


@pytest.mark.parametrize(
    ("parts", "controls", "verdict"),
    [
        ("++", "++", rules.REPRODUCED),
        ("+", "", rules.REPRODUCED),
        ("+-", "+", rules.PARTLY),
        ("++", "?", rules.PARTLY),
        ("+?", "+", rules.PARTLY),
        ("++", "+-", rules.NOT_REPRODUCED),
        ("--", "+", rules.NOT_REPRODUCED),
        ("-?", "+", rules.NOT_REPRODUCED),
        ("??", "+", rules.NOT_TESTABLE),
    ],
)
def test_verdicts_follow_from_parts_and_controls(parts: str, controls: str, verdict: str) -> None:
    assert rules.decide(outcomes(parts, controls)) == verdict


def claim(*chosen: Rule) -> Claim:
    return Claim("C0", "It works.", "1", "abstract", chosen, "01_staged_training", "x", "figure", "test_rules.py")


@pytest.fixture
def evidence() -> Evidence:
    return Evidence({}, load_profile("smoke"), frozenset())


def test_a_reason_names_what_fails_with_the_number_and_the_bound(evidence: Evidence) -> None:
    beaten = Rule("the gain less the control's", lambda _: Interval(-1.25, -2, -0.5), "above", 0, control=True)
    unknown = Rule("the ceiling", lambda _: Interval(NAN, NAN, NAN), "below", 0.5)
    found = rules.judge(claim(ABOVE, beaten, unknown), evidence)
    assert found.verdict == rules.NOT_REPRODUCED
    assert found.reason == (
        "Does not hold: the gain less the control's (control) is −1.25 [−2.00, −0.50], expected above 0.00. "
        "Not known: the ceiling expected below 0.50."
    )


def test_a_value_on_its_side_with_an_interval_across_the_bound_is_not_called_wrong(evidence: Evidence) -> None:
    across = Rule("the gain", lambda _: Interval(0.5, -0.25, 1.25), "above", 0)
    found = rules.judge(claim(across), evidence)
    assert found.verdict == rules.NOT_REPRODUCED  # a claim needs certainty
    assert found.reason == (
        "Not certain, since the interval reaches across the bound: the gain is 0.50 [−0.25, 1.25], expected above 0.00."
    )


def test_what_holds_is_said_with_its_controls(evidence: Evidence) -> None:
    assert rules.judge(claim(ABOVE), evidence).reason == "Every part holds."
    both = claim(ABOVE, replace(ABOVE, control=True))
    assert rules.judge(both, evidence).reason == "Every part holds and every control is beaten."


def test_an_inverted_rule_turns_the_verdict(evidence: Evidence) -> None:
    assert rules.judge(claim(ABOVE), evidence).verdict == rules.REPRODUCED
    assert rules.judge(claim(replace(ABOVE, side="below")), evidence).verdict == rules.NOT_REPRODUCED


def test_a_run_without_the_chapter_leaves_the_claim_untested_and_says_why(evidence: Evidence) -> None:
    def unread(found: Evidence) -> Interval:
        raise NotTestableError("chapter 5 was not run")

    found = rules.judge(claim(replace(ABOVE, statistic=unread)), evidence)
    assert (found.verdict, found.reason, found.outcomes) == (rules.NOT_TESTABLE, "chapter 5 was not run.", ())


def test_broken_results_are_no_verdict(evidence: Evidence) -> None:
    def broken(found: Evidence) -> Interval:
        raise ClaimError("no column score")

    with pytest.raises(ClaimError, match="no column score"):
        rules.judge(claim(replace(ABOVE, statistic=broken)), evidence)


def test_findings_are_kept_as_plain_data(evidence: Evidence) -> None:
    single = Rule("the share", lambda _: Interval(0.5, np.nan, np.nan), "above", 0.25)
    kept = rules.judge(claim(single), evidence).as_data()
    assert kept == {
        "verdict": rules.REPRODUCED,
        "reason": "Every part holds.",
        "rules": [
            {
                **{"what": "the share", "control": False, "side": "above", "bound": 0.25, "unit": ""},
                **{"value": 0.5, "low": None, "high": None, "holds": True},
                **{"measured": "0.50", "expected": "above 0.25"},
            }
        ],
    }
