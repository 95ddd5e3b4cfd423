"""The claims in tables and sections: numbers are those of the findings, and what was not judged is said."""

import re
from typing import Any

import pytest

from crossdomain import claims, rules
from crossdomain.claims import CLAIMS
from crossdomain.evidence import Evidence
from crossdomain.profiles import load_profile
from crossdomain.words import claims as say
from synthetic_results import changed, tables


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    lacking = {**tables(), "unchanged": changed(tables()["unchanged"], "share", 3.0, kind="paper")}
    evidence = Evidence(lacking, load_profile("cpu"), frozenset())
    return claims.as_data([rules.judge(claim, evidence) for claim in CLAIMS])


def test_the_summary_has_a_row_a_claim_with_a_link_and_a_verdict(found: dict[str, Any]) -> None:
    text = say.summary(found)
    for claim in CLAIMS:
        assert f'<a href="#claim-{claim.id.lower()}">{claim.id}</a>' in text
    assert text.count('class="verdict ') == len(CLAIMS)
    assert "✗ weights unchanged by the paper&#x27;s thresholds, in float32: 3.0 [3.0, 3.0] %" in text
    assert '<span class="verdict partly">partly</span>' in text and "66.04" in text


def test_a_section_shows_every_rule_with_its_bound_and_value(found: dict[str, Any]) -> None:
    text = say.sections(found)
    for claim in CLAIMS:
        section = text[text.index(f"(claim-{claim.id.lower()})=") :].split("\n(claim-")[0]
        assert section.count("<tr><td>") == len(claim.rules)
        assert claim.command in section and f"tests/{claim.tests}" in section
        assert f'href="../notebooks/{claim.chapter}.html#{claim.anchor}"' in section
        for row in found[claim.id]["rules"]:
            assert row["expected"] in section and row["measured"] in section
    assert "Does not hold: weights unchanged" in text


def test_headings_are_those_of_the_claims_in_order(found: dict[str, Any]) -> None:
    assert re.findall(r"^## (C\d+):", say.sections(found), re.MULTILINE) == [claim.id for claim in CLAIMS]


def test_a_claim_that_could_not_be_tested_shows_its_rules_and_the_reason(found: dict[str, Any]) -> None:
    untested = {"verdict": rules.NOT_TESTABLE, "reason": "chapter 4 was not run.", "rules": []}
    text = say.sections({"C6": untested})
    section = text[text.index("(claim-c6)=") : text.index("(claim-c7)=")]
    assert "not testable here</span> chapter 4 was not run." in section and "below 25.0 %" in section and "—" in section
    assert "chapter 4 was not run." in say.summary({"C6": untested})


def test_the_readme_shows_the_same_or_that_nothing_was_judged(found: dict[str, Any]) -> None:
    text = say.readme(found, "3 4 5 6 7")
    assert text.startswith("Seeds 3 4 5 6 7, profile `cpu`.") and "**partly**" in text
    assert {line.count("|") - line.count("\\|") for line in text.splitlines()[2:]} == {5}
    assert say.readme({}, "").count("**not judged yet**") == len(CLAIMS)


@pytest.mark.parametrize("verdict", rules.VERDICTS)
def test_every_verdict_has_a_colour(verdict: str) -> None:
    assert f".{verdict.replace(' ', '-')} {{ background: {say.COLOURS[verdict]}" in say.STYLE
    assert f'class="verdict {verdict.replace(" ", "-")}"' in say.badge(verdict)
