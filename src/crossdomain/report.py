"""The report of a verification: one self-contained HTML page, and the same as JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crossdomain.claims import CLAIMS
from crossdomain.comparison import HOW, Comparison
from crossdomain.verify import Report
from crossdomain.words.claims import NOT_JUDGED, STYLE, badge, outcomes, stated, table

MACHINERY = (
    "This profile checks the machinery, not the claims: its model is too small and too little trained for its numbers, and "
    "so its verdicts, to mean anything."
)
AGREES = {True: "agrees", False: "differs", None: "not compared"}

PAGE_STYLE = """<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 72rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.88rem; width: 100%; }
th, td { border-bottom: 1px solid #8884; padding: 0.35rem 0.6rem; text-align: left; vertical-align: top; }
.banner { border-left: 6px solid #1b7f4d; background: #1b7f4d1f; padding: 0.6rem 1rem; border-radius: 4px; }
.banner.differs, .note { border-left: 6px solid #b3261e; background: #b3261e1f; padding: 0.6rem 1rem; border-radius: 4px; }
.note { border-color: #8a5a00; background: #8a5a001f; }
strong.agrees { color: #1b7f4d; } strong.differs { color: #c5362d; } strong { white-space: nowrap; }
</style>"""


def write(report: Report, directory: Path) -> Path:
    """Write `report.html` and `report.json` into a directory, and return the former."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(as_data(report), indent=1))
    page = directory / "report.html"
    page.write_text(as_html(report))
    return page


def as_data(report: Report) -> dict[str, Any]:
    """The report as plain data."""
    return {
        "agrees": report.agrees,
        "profile": report.profile.label,
        "scale": report.profile.scale,
        "seeds": report.seeds,
        "conditions": report.conditions,
        "differences": report.differences,
        "environment": report.environment,
        "seconds": round(report.seconds, 1),
        "claims": [
            {
                "name": row.name,
                "agrees": row.agrees,
                "look_at": row.look_at,
                "statement": claim.statement,
                "paper": claim.paper,
                **{side: found.get(claim.id, NOT_JUDGED) for side, found in report.findings.items()},
            }
            for claim, row in zip(CLAIMS, report.claims, strict=True)
        ],
        "others": [asdict(row) for row in report.others],
    }


def in_short(report: Report) -> list[str]:
    """The result in lines for a terminal: what it checks, then every row that differs."""
    rows = [*report.claims, *report.others]
    compared = [row for row in rows if row.agrees is not None]
    lines = [MACHINERY] if report.profile.scale == "machinery" else []
    lines.append(
        f"{sum(bool(row.agrees) for row in compared)} of {len(compared)} compared rows agree ({report.conditions})."
    )
    return lines + [f"{row.name} differs: {row.look_at}" for row in compared if not row.agrees]


def as_html(report: Report) -> str:
    """The report as one page that loads nothing."""
    banner, *differing = (line for line in in_short(report) if line != MACHINERY)
    note = f'<p class="note">{MACHINERY}</p>' if report.profile.scale == "machinery" else ""
    faults = "".join(f"<li>{html.escape(line)}</li>" for line in differing)
    unlike = "".join(f"<li>{html.escape(line)}</li>" for line in report.differences)
    names = list(dict.fromkeys(key for side in report.environment.values() for key in side))
    environment = [
        [
            html.escape(name.replace("_", " ")),
            *(html.escape(str(side.get(name, "—"))) for side in report.environment.values()),
        ]
        for name in names
    ]
    claims = [
        [
            f"<b>{claim.id}</b> {stated(claim)}",
            *(_finding(report.findings[side].get(claim.id, NOT_JUDGED)) for side in ("reference", "yours")),
            _result(row),
        ]
        for claim, row in zip(CLAIMS, report.claims, strict=True)
    ]
    others = [[row.name, html.escape(row.reference), html.escape(row.yours), _result(row)] for row in report.others]
    title = (
        f"Reproduction report: {html.escape(report.profile.label)}, seeds {' '.join(map(str, report.seeds['yours']))}"
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>{STYLE}{PAGE_STYLE}</head><body>
<h1>{title}</h1>
<div class="banner{"" if report.agrees else " differs"}"><b>{html.escape(banner)}</b><ul>{faults}</ul></div>
{note}
<p>{HOW[report.conditions]}</p><ul>{unlike}</ul>
<h2>Claims</h2>
{table(["claim, and what the paper reports", "reference", "yours", "comparison"], claims, wide=(0, 1, 2))}
<h2>Scores, weights and the store</h2>
{table(["", "reference", "yours", "comparison"], others)}
<h2>Environment</h2>
{table(["", *report.environment], environment)}
<p>Executed and compared in {report.seconds:.0f} s.</p>
</body></html>
"""


def _finding(finding: Mapping[str, Any]) -> str:
    return "<br>".join([badge(finding["verdict"]), *map(html.escape, outcomes(finding))])


def _result(row: Comparison) -> str:
    word = AGREES[row.agrees]
    look_at = f"<br>{html.escape(row.look_at)}" if row.look_at else ""
    return f'<strong class="{word.replace(" ", "-")}">{word}</strong>{look_at}'
