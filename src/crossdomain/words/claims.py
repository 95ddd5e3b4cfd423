"""The claims in tables and sections: for the README, the claims page and the report of a verification.

Findings are taken as `claims.json` keeps them, by claim; a claim that is not among them was not judged yet.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping
from typing import Any

from crossdomain.claims import CLAIMS
from crossdomain.rules import NOT_REPRODUCED, NOT_TESTABLE, PARTLY, REPRODUCED, Claim

Finding = Mapping[str, Any]

NOT_JUDGED: Finding = {"verdict": "not judged yet", "reason": "No run was judged yet.", "rules": []}
MARKS = {True: "✓", False: "✗", None: "?"}
COLOURS = {REPRODUCED: "#1b7f4d", PARTLY: "#8a5a00", NOT_REPRODUCED: "#b3261e", NOT_TESTABLE: "#5f6368"}

STYLE = """<style>
.verdict { background: #5f6368; color: #fff; border-radius: 4px; padding: 0.1rem 0.45rem; white-space: nowrap; }
.scroll table.claims th, .scroll table.claims td { text-align: left; vertical-align: top; white-space: normal; }
.scroll table.claims td { min-width: 5rem; } .scroll table.claims td.wide { min-width: 10rem; }
.reported { font-size: 0.92em; opacity: 0.8; }
""" + "\n".join(
    f".verdict.{verdict.replace(' ', '-')} {{ background: {colour}; }}" for verdict, colour in COLOURS.items()
) + "\n</style>"  # fmt: skip


def badge(verdict: str) -> str:
    """HTML: a verdict as a coloured label."""
    return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>'


def table(head: list[str], rows: list[list[str]], wide: Collection[int] = ()) -> str:
    """HTML: a table in a box in which it scrolls.

    Args:
        head: the columns' titles.
        rows: cells that are HTML already.
        wide: columns that hold sentences.
    """

    def row(cells: list[str], tag: str) -> str:
        kinds = (' class="wide"' if i in wide else "" for i in range(len(cells)))
        return f"<tr>{''.join(f'<{tag}{kind}>{cell}</{tag}>' for kind, cell in zip(kinds, cells, strict=True))}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return (
        f'<div class="scroll"><table class="claims"><thead>{row(head, "th")}</thead><tbody>{body}</tbody></table></div>'
    )


def outcomes(finding: Finding, *, controls: bool = False) -> list[str]:
    """Lines such as `✓ mean Jaccard …: 0.12 [0.10, 0.14]`, of the parts of a claim or of its controls."""
    rows = (row for row in finding["rules"] if row["control"] == controls)
    return [f"{MARKS[row['holds']]} {row['what']}: {row['measured']}" for row in rows]


def summary(found: Mapping[str, Finding]) -> str:
    """HTML: a row a claim, with a link to its section: what the paper says and reports, what was measured, the verdict."""
    rows = []
    for claim in CLAIMS:
        finding = found.get(claim.id, NOT_JUDGED)
        here = "<br>".join(map(html.escape, outcomes(finding))) or html.escape(finding["reason"])
        link = f'<a href="#claim-{claim.id.lower()}">{claim.id}</a>'
        rows.append([f"{link} {stated(claim)}<br>{badge(finding['verdict'])}", here])
    return table(["claim, what the paper reports, verdict", "measured here"], rows, wide=(0, 1))


def stated(claim: Claim) -> str:
    """HTML: a claim, what the paper reports for it, and how sure the source is."""
    reported = f"{html.escape(claim.paper)} ({html.escape(claim.source)})"
    return f'{html.escape(claim.statement)}<br><span class="reported">{reported}</span>'


def sections(found: Mapping[str, Finding]) -> str:
    """Markdown: a section a claim, with its rules, what was measured for each, the verdict and where to look."""
    return "\n".join(_section(claim, found.get(claim.id, NOT_JUDGED)) for claim in CLAIMS)


def _section(claim: Claim, finding: Finding) -> str:
    # Of a claim that could not be tested the rules are shown without values.
    measured = {row["what"]: row for row in finding["rules"]}
    rows = []
    for rule in claim.rules:
        row = measured.get(rule.what, {"measured": "—", "holds": None})
        kind = "control" if rule.control else "part"
        cells = [kind, html.escape(rule.what), rule.expected, html.escape(row["measured"]), MARKS[row["holds"]]]
        rows.append(cells)
    page = f"../notebooks/{claim.chapter}.html#{claim.anchor}"
    return f"""
(claim-{claim.id.lower()})=
## {claim.id}: {claim.statement.removesuffix(".")}

<p>{badge(finding["verdict"])} {html.escape(finding["reason"])}</p>

The paper: {claim.paper} ({claim.source}).

{table(["", "compared", "expected", "measured", "holds"], rows, wide=(1,))}

<p>Made and shown in <a href="{page}">chapter {int(claim.chapter[:2])}</a> (figure <code>{claim.figure}</code>), made again
by <code>{claim.command}</code>, tested in <code>tests/{claim.tests}</code>.</p>
"""


def readme(found: Mapping[str, Finding], seeds: str) -> str:
    """Markdown: the summary as the README shows it."""
    lines = [f"Seeds {seeds}, profile `cpu`.", ""] if found else []
    lines += ["| claim of the paper | reported | here | verdict |", "|---|---|---|---|"]
    for claim in CLAIMS:
        finding = found.get(claim.id, NOT_JUDGED)
        here = "<br>".join(outcomes(finding)) or finding["reason"]
        cells = (f"{claim.id}: {claim.statement}", claim.paper, here, f"**{finding['verdict']}**")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
