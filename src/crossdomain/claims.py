"""The paper's claims, the seeds that they are judged on, and the judgement of a run.

The rules were written down before the reported seeds were run. Bounds are the paper's where it gives one, else round
numbers; every rule compares an effect size, with its interval, and none asks for a p-value alone.
"""

from __future__ import annotations

from typing import Any

from crossdomain.claims_interference import INTERFERENCE
from crossdomain.claims_recovery import RECOVERY
from crossdomain.evidence import Evidence, refresh_by_prompt
from crossdomain.rules import Finding, judge
from crossdomain.run import Run

# Which seeds did what. None of the reported ones was used to choose a setting or to write a rule.
SETTINGS_FROM = 100  # settings were chosen on seeds from here on
QUICK_SEEDS = (0, 1, 2)  # the quick run of the README, seen before the rules were written
REPORTED_SEEDS = (3, 4, 5, 6, 7)

CLAIMS = (*INTERFERENCE, *RECOVERY)


def judge_run(run: Run) -> list[Finding]:
    """Apply all rules to a run's results; keep the findings as `claims.json` and what C9 reads by prompt.

    Raises:
        ClaimError: a chapter that was run left a table without what a claim reads.
    """
    found = Evidence.read(run.directory, run.profile)
    if "01" in found.chapters:  # else reading the scores would train
        run.keep("refresh_by_prompt", refresh_by_prompt(run.lineages))
        found = Evidence.read(run.directory, run.profile)
    findings = [judge(claim, found) for claim in CLAIMS]
    run.keep_values("claims", as_data(findings))
    return findings


def as_data(findings: list[Finding]) -> dict[str, Any]:
    """Findings as plain data, by claim."""
    return {finding.claim.id: finding.as_data() for finding in findings}
