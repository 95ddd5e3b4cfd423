"""How a claim is judged: rules on measured intervals, written down before the seeds they are applied to are run.

A claim has *parts*, what it says, and *controls*, what could look like it without being it. A rule holds where the whole
interval lies on its side of the bound; where one seed leaves no interval, the value does. All parts hold and all controls
are beaten: reproduced. Some parts hold and no control fails: partly. A control that fails, or no part that holds: not
reproduced. What cannot be measured keeps a claim from being more than partly reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from crossdomain.evidence import Evidence, NotTestableError
from crossdomain.stats import Interval
from crossdomain.words import number, plain

REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly", "not reproduced"
NOT_TESTABLE = "not testable here"
VERDICTS = (REPRODUCED, PARTLY, NOT_REPRODUCED, NOT_TESTABLE)


@dataclass(frozen=True)
class Rule:
    """One comparison of a claim.

    Attributes:
        what: is compared, as a noun phrase.
        statistic: takes it from the tables of a run.
        side: on which side of the bound it must lie.
        bound: from the paper where it gives one, else a round number.
        control: whether it is a control.
        unit: `points` (of reward, 0 to 100), `%` or nothing (shares from 0 to 1, cosines, correlations, ratios).
    """

    what: str
    statistic: Callable[[Evidence], Interval]
    side: Literal["above", "below"]
    bound: float
    control: bool = False
    unit: Literal["", "points", "%"] = ""

    def holds(self, value: Interval) -> bool | None:
        """Whether a measured value lies on the rule's side; None if it is not known."""
        if math.isnan(value.value):
            return None
        nearest = value.low if self.side == "above" else value.high
        nearest = value.value if math.isnan(nearest) else nearest
        return self.allows(nearest)

    def allows(self, value: float) -> bool:
        """Whether a number lies on the rule's side of the bound."""
        return value > self.bound if self.side == "above" else value < self.bound

    @property
    def expected(self) -> str:
        """Its side and bound in words, such as `below 0.19`."""
        return f"{self.side} {plain(self.bound, self._digits)}{self._after}"

    def measured(self, value: Interval) -> str:
        """A measured value in words."""
        return "unknown" if math.isnan(value.value) else number(value, self._digits) + self._after

    @property
    def _digits(self) -> int:
        return 1 if self.unit else 2

    @property
    def _after(self) -> str:
        return f" {self.unit}" if self.unit else ""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper as data: what it says, what decides on it, and where that is made and shown."""

    id: str
    statement: str
    paper: str
    source: str
    rules: tuple[Rule, ...]
    chapter: str
    anchor: str
    figure: str
    tests: str

    @property
    def command(self) -> str:
        """Makes its numbers again, for one seed; `SEEDS` and `PROFILE` choose others."""
        return f"make notebook NB={self.chapter[:2]} SEEDS=3"


@dataclass(frozen=True)
class Outcome:
    """A rule with what was measured for it."""

    rule: Rule
    value: Interval

    @property
    def holds(self) -> bool | None:
        """Whether the rule holds; None if what it compares is not known."""
        return self.rule.holds(self.value)

    @property
    def undecided(self) -> bool:
        """Whether the rule does not hold although the value lies on its side: the interval reaches across the bound."""
        return self.holds is False and self.rule.allows(self.value.value)

    def as_data(self) -> dict[str, Any]:
        """The outcome as plain data, with None for what is not known."""
        return {
            "what": self.rule.what,
            "control": self.rule.control,
            "side": self.rule.side,
            "bound": self.rule.bound,
            "unit": self.rule.unit,
            **{key: None if math.isnan(x) else x for key, x in self.value._asdict().items()},
            "holds": self.holds,
            "measured": self.rule.measured(self.value),
            "expected": self.rule.expected,
        }


@dataclass(frozen=True)
class Finding:
    """The verdict on a claim, why, and the outcomes it rests on (none where the claim cannot be tested)."""

    claim: Claim
    verdict: str
    reason: str
    outcomes: tuple[Outcome, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """The finding as plain data, as `claims.json` keeps it."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "rules": [outcome.as_data() for outcome in self.outcomes],
        }


def judge(claim: Claim, evidence: Evidence) -> Finding:
    """Apply a claim's rules to a run.

    Raises:
        ClaimError: a chapter that was run left a table without what the claim reads.
    """
    try:
        outcomes = tuple(Outcome(rule, rule.statistic(evidence)) for rule in claim.rules)
    except NotTestableError as error:
        return Finding(claim, NOT_TESTABLE, f"{error}.")
    verdict = decide(outcomes)
    return Finding(claim, verdict, _reason(verdict, outcomes), outcomes)


def decide(outcomes: tuple[Outcome, ...]) -> str:
    """The verdict that outcomes give, as the module says."""
    parts = [outcome.holds for outcome in outcomes if not outcome.rule.control]
    controls = [outcome.holds for outcome in outcomes if outcome.rule.control]
    if all(part is None for part in parts):
        return NOT_TESTABLE
    if False in controls or True not in parts:
        return NOT_REPRODUCED
    return REPRODUCED if all(parts) and all(controls) else PARTLY


def _reason(verdict: str, outcomes: tuple[Outcome, ...]) -> str:
    if verdict == REPRODUCED:
        beaten = any(outcome.rule.control for outcome in outcomes)
        return "Every part holds" + (" and every control is beaten." if beaten else ".")
    failed = [outcome for outcome in outcomes if outcome.holds is False]
    groups = {
        "Does not hold": [outcome for outcome in failed if not outcome.undecided],
        "Not certain, since the interval reaches across the bound": [
            outcome for outcome in failed if outcome.undecided
        ],
        "Not known": [outcome for outcome in outcomes if outcome.holds is None],
    }
    return " ".join(f"{said}: {'; '.join(map(_fault, found))}." for said, found in groups.items() if found)


def _fault(outcome: Outcome) -> str:
    rule = outcome.rule
    kind = " (control)" if rule.control else ""
    measured = "" if outcome.holds is None else f" is {rule.measured(outcome.value)},"
    return f"{rule.what}{kind}{measured} expected {rule.expected}"
