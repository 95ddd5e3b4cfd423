"""Comparing results with reference results: claims, scores and weights.

What can be compared depends on what is alike. With the same seeds, library versions, threads, processor and settings,
scores and weights must be equal to the bit. With the same seeds elsewhere, rounding makes training take another course:
statistics must then agree within a tolerance; a profile that only checks the machinery learns too little for that, and
there only what was measured is compared, not the numbers. With other seeds, intervals must overlap. The rules of the claims
must be those of the reference in any case.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from crossdomain import claims, provenance
from crossdomain.rules import NOT_TESTABLE

TOLERANCE = {"points": 5.0, "%": 5.0, "": 0.05}  # by unit, or `RELATIVE` of the reference's value where that is more
RELATIVE = 0.1
SHOWN = 5  # differences named in a row
IDENTICAL, SAME_SEEDS, OTHER_SEEDS = "identical conditions", "same seeds, other conditions", "other seeds"
MACHINERY = "other conditions, numbers not compared"
HOW = {
    IDENTICAL: "Seeds, versions, threads, processor and settings are those of the reference: scores and weights must be "
    "equal to the bit, statistics to rounding.",
    SAME_SEEDS: "The seeds are those of the reference, other conditions are not: statistics must agree within "
    + ", ".join(f"{value:g}{' ' + unit if unit else ' (shares, cosines, ratios)'}" for unit, value in TOLERANCE.items())
    + f", or {100 * RELATIVE:g} % of the reference where that is more.",
    MACHINERY: "Other conditions than the reference's round otherwise, and the numbers of so small a model follow the "
    "rounding. They are not compared: the same rules must have been applied to every claim, and the same scores must have "
    "been measured. Under the reference's own conditions numbers are compared, to the bit.",
    OTHER_SEEDS: "The seeds are not those of the reference: intervals must overlap, and a value without an interval must "
    "lie in the other's. Verdicts may differ where intervals are wider.",
}


@dataclass(frozen=True)
class Comparison:
    """One row of the report; `agrees` is None where nothing could be compared."""

    name: str
    agrees: bool | None
    reference: str
    yours: str
    look_at: str = ""


def unlike(reference: Mapping[str, Any], yours: Mapping[str, Any]) -> list[str]:
    """What of the conditions of two manifests differs, in words; the seeds aside.

    A setting that only one of them has came or went with a change of the code, which must not change what is measured.
    """
    conditions = {
        **{f"{package} version": ("versions", package) for package in provenance.DECISIVE},
        **{name: ("hardware", name) for name in ("threads", "processor", "accelerator")},
        **{f"setting {name}": ("profile", name) for name in reference["profile"] if name in yours["profile"]},
    }
    pairs = {name: (reference[part].get(key), yours[part].get(key)) for name, (part, key) in conditions.items()}
    return [
        f"{name}: {first} in the reference, {second} here" for name, (first, second) in pairs.items() if first != second
    ]


# --- Claims ---


def compare_claims(
    reference: Mapping[str, Any], yours: Mapping[str, Any], conditions: str, other_seeds: Collection[str] = ()
) -> list[Comparison]:
    """A row a claim: its rules, statistics and verdict against those of the reference.

    Args:
        reference: findings by claim.
        yours: as many.
        conditions: under which they came about.
        other_seeds: chapters that the reference has of other or fewer seeds than its own.
    """
    rows = []
    for claim in claims.CLAIMS:
        first, second = reference.get(claim.id), yours[claim.id]
        under = OTHER_SEEDS if claim.chapter in other_seeds and conditions != MACHINERY else conditions
        if first is None:
            look_at = "the reference was made before this claim was judged: promote a new one"
            rows.append(Comparison(claim.id, False, "—", second["verdict"], look_at))
            continue
        faults = _claim_faults(first, second, under)
        compared = any(_comparable(*pair, under) for pair in _paired(first, second))
        agrees = (
            False if faults else True if compared or first["verdict"] == second["verdict"] == NOT_TESTABLE else None
        )
        where = f"chapter {int(claim.chapter[:2])} (`{claim.command}`), figure {claim.figure}, tests/{claim.tests}"
        look_at = f"{listed(faults)}. Look at {where}" if faults else ""
        rows.append(Comparison(claim.id, agrees, first["verdict"], second["verdict"], look_at))
    return rows


def _claim_faults(reference: Mapping[str, Any], yours: Mapping[str, Any], conditions: str) -> list[str]:
    first, second = reference["verdict"], yours["verdict"]
    if NOT_TESTABLE in (first, second) and first != second:
        return [f"verdict {second} instead of {first}: {yours['reason'] or reference['reason']}"]
    faults = []
    before = {_rule(row) for row in reference["rules"]}
    changed = [
        f"{row['what']}, now {row['side']} {row['bound']:g}" for row in yours["rules"] if _rule(row) not in before
    ]
    named = {row["what"] for row in yours["rules"]}
    changed += [f"{row['what']} only in the reference" for row in reference["rules"] if row["what"] not in named]
    if changed:
        faults.append(f"the rules differ: {listed(changed)}")
    if conditions == MACHINERY:
        return faults
    for row, other in _paired(reference, yours):
        if not _agree(row, other, conditions):
            faults.append(f"{row['what']}: {_numbers(row)} in the reference, {_numbers(other)} here")
    if conditions != OTHER_SEEDS and first != second:
        faults.append(f"verdict {second} instead of {first}")
    return faults


def _numbers(row: Mapping[str, Any]) -> str:
    value, low, high = ("unknown" if row[key] is None else f"{row[key]:.6g}" for key in ("value", "low", "high"))
    return value if row["low"] is None else f"{value} [{low}, {high}]"


def _rule(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("what", "control", "side", "bound", "unit"))


def _paired(reference: Mapping[str, Any], yours: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The outcomes of rules that both have."""
    named = {row["what"]: row for row in reference["rules"]}
    return [(named[row["what"]], row) for row in yours["rules"] if row["what"] in named]


def _comparable(first: Mapping[str, Any], second: Mapping[str, Any], conditions: str) -> bool:
    """Whether two outcomes can be compared: of other seeds, one of them must have an interval."""
    if first["value"] is None or second["value"] is None:
        return False
    return conditions != OTHER_SEEDS or first["low"] is not None or second["low"] is not None


def _agree(first: Mapping[str, Any], second: Mapping[str, Any], conditions: str) -> bool:
    keys = ("value", "low", "high")
    if conditions == IDENTICAL:
        a, b = (np.array([row[key] for key in keys], dtype=float) for row in (first, second))
        return bool(np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True))
    if not _comparable(first, second, conditions):
        return True
    if conditions == SAME_SEEDS:
        allowed = max(TOLERANCE[first["unit"]], RELATIVE * abs(first["value"]))
        return bool(abs(first["value"] - second["value"]) <= allowed)
    lows, highs = (
        [row["value"] if row[key] is None else row[key] for row in (first, second)] for key in ("low", "high")
    )
    return bool(max(lows) <= min(highs))


# --- Scores and weights ---


def compare_scores(reference: pd.DataFrame, yours: pd.DataFrame, conditions: str) -> Comparison:
    """Every score of every checkpoint against the reference's."""
    keys = ["role", "seed", "domain", "split", "decoding"]
    table = reference.merge(yours, on=keys, how="outer", suffixes=("", "_yours"), indicator=True)
    both = table[table["_merge"] == "both"]
    gap = (both["score"] - both["score_yours"]).abs()
    if conditions == OTHER_SEEDS:
        return Comparison("scores", None, f"{len(reference)} scores", f"{len(yours)} scores of other seeds")
    allowed = {IDENTICAL: 0.0, MACHINERY: np.inf}.get(conditions, TOLERANCE["points"])
    off = both[gap > allowed]
    absent = table[table["_merge"] != "both"]
    how = {IDENTICAL: "equal", MACHINERY: "measured"}.get(conditions, f"within {allowed:g} points")
    lines = [
        f"{row.role}, {row.domain} {row.split}, {row.decoding}, seed {row.seed}: {row.score!r}, "
        f"here {row.score_yours!r}"
        for row in off.itertuples()
    ] + [f"{row.role}, {row.domain} {row.split}, seed {row.seed}: only on one side" for row in absent.itertuples()]
    return Comparison("scores", not lines, f"{len(reference)} scores", f"{len(both) - len(off)} {how}", listed(lines))


def compare_checkpoints(reference: pd.DataFrame, yours: pd.DataFrame, conditions: str) -> Comparison:
    """Weights of the checkpoints that were made from the same settings, code and versions: equal to the bit."""
    both = reference.merge(yours, on="key", suffixes=("", "_yours"))
    off = both[both["sha256"] != both["sha256_yours"]]
    if conditions != IDENTICAL or both.empty:
        why = "other conditions" if conditions != IDENTICAL else "other settings, code or versions made them"
        return Comparison("weights", None, f"{len(reference)} checkpoints", f"{len(both) - len(off)} equal ({why})")
    lines = [f"{row['name']}: its weights are not the reference's" for _, row in off.iterrows()]
    return Comparison(
        "weights",
        not lines,
        f"{len(reference)} checkpoints",
        f"{len(both) - len(off)} of {len(both)} equal",
        listed(lines),
    )


def listed(lines: Iterable[str]) -> str:
    """The first few lines, and how many more there are."""
    found = list(lines)
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more
