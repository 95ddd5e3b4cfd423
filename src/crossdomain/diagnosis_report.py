"""A diagnosis as a terminal shows it, as one self-contained HTML page, and as tidy files."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table as Grid

from crossdomain import checkpoint_rollback, provenance
from crossdomain.checkpoint_pair import FISHER, Candidate
from crossdomain.diagnosis import Diagnosis
from crossdomain.report import PAGE_STYLE
from crossdomain.words import claims
from crossdomain.words import diagnosis as say

PAGE, SUMMARY = "report.html", "summary.json"


def show(found: Diagnosis, console: Console) -> None:
    """Print what was found."""
    for table in say.tables(found):
        grid = Grid(title=table.title, caption=table.note, title_justify="left", caption_justify="left")
        for i, title in enumerate(table.head):
            grid.add_column(title, justify="right" if i else "left")
        for row in table.rows:
            grid.add_row(*row)
        console.print(grid)
        console.print()
    for line in say.in_short(found):
        console.print(f"• {line}", highlight=False)


def write(found: Diagnosis, directory: Path) -> Path:
    """Write `report.html`, `summary.json` and a CSV file a table into a directory; return the page.

    The files: `damage`, `modules`, `rollback`, `edits`, `unchanged`, `neurons`, `overlap` and, with a base, `directions`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tables = {
        "damage": found.damage,
        "modules": found.modules,
        "rollback": found.returns(),
        "edits": found.edits["tensors"],
        "unchanged": found.edits["shares"],
        "neurons": found.edits["neurons"],
        "overlap": found.overlap,
    }
    if found.directions is not None:
        tables["directions"] = found.directions
    for name, table in tables.items():
        table.to_csv(directory / f"{name}.csv", index=False)
    (directory / SUMMARY).write_text(json.dumps({**_made(found), "in_short": say.in_short(found)}, indent=1))
    page = directory / PAGE
    page.write_text(as_html(found))
    return page


def repair(found: Diagnosis, percent: float, output: Path) -> list[str]:
    """Write the checkpoint with so many percent of the parameters taken back; say what that returns and costs.

    Raises:
        FileExistsError: the output is there already.
    """
    checkpoint_rollback.check(output)  # before the effects are computed
    chosen = Candidate(FISHER, percent)
    effects = found.returns([chosen])
    taken = checkpoint_rollback.write(found.pair.paths["after"], found.pair.rolled_back(chosen), output)
    return [f"{taken:,} of {found.pair.parameters:,} parameters taken back.", *say.returned(effects)]


def as_html(found: Diagnosis) -> str:
    """The diagnosis as one page that loads nothing."""
    after, before = (html.escape(found.pair.paths[role].name) for role in ("after", "before"))
    title = f"Diagnosis: {after} against {before}"
    short = "".join(f"<li>{html.escape(line)}</li>" for line in say.in_short(found))
    made = [[html.escape(key), html.escape(str(value))] for key, value in _made(found).items()]
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>{claims.STYLE}{PAGE_STYLE}</head><body>
<h1>{title}</h1>
<div class="banner"><ul>{short}</ul></div>
{sections(found)}
<h2>How this was made</h2>
{claims.table(["", ""], made)}
</body></html>
"""


def sections(found: Diagnosis) -> str:
    """HTML: all tables, each with how to read it, and the map of the damage by module and layer."""
    parts = []
    for table in say.tables(found):
        cells = [[html.escape(cell) for cell in row] for row in table.rows]
        body = claims.table([html.escape(cell) for cell in table.head], cells)
        extra = heat_map(say.heat(found)) if table.title == say.MODULES else ""
        parts.append(f"<h3>{html.escape(table.title)}</h3><p>{html.escape(table.note)}</p>{body}{extra}")
    return "".join(parts)


def heat_map(shares: pd.DataFrame) -> str:
    """HTML: shares of the damage by module and layer, red for what adds to it, blue for what works against it."""
    strongest = float(np.nanmax(shares.abs().to_numpy()))
    rows = []
    for module, values in shares.iterrows():
        cells = "".join(_cell(value, strongest) for value in values)
        rows.append(f"<tr><th>{html.escape(str(module))}</th>{cells}</tr>")
    head = "".join(f"<th>{layer}</th>" for layer in shares.columns)
    return (
        "<p>The same by layer, in percent:</p>"
        f'<div class="scroll"><table><tr><th>layer</th>{head}</tr>{"".join(rows)}</table></div>'
    )


def _cell(share: float, strongest: float) -> str:
    if np.isnan(share):  # no such tensor in that layer
        return "<td></td>"
    colour = "179,38,30" if share > 0 else "11,87,208"
    return f'<td style="background:rgba({colour},{abs(share) / strongest:.2f})">{100 * share:.1f}</td>'


def _made(found: Diagnosis) -> dict[str, str | int]:
    pair, hardware = found.pair, provenance.hardware()
    return {
        **{role: str(path) for role, path in pair.paths.items()},
        "parameters": pair.parameters,
        "prompts": ", ".join(f"{name} ({len(prompts.texts)})" for name, prompts in pair.prompts.items()),
        "max new tokens": pair.max_new_tokens,
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions().items()),
        "hardware": f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB",
        "peak memory": f"{provenance.peak_memory_gib():.1f} GiB of this process",
    }
