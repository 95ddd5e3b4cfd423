"""What a run cost: time on one core and peak memory of everything in the store that it uses, in all and by part.

Times are those of whoever made an artifact first; what notebooks spend on figures and tables is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from crossdomain import provenance
from crossdomain.store import Artifact

if TYPE_CHECKING:
    from crossdomain.run import Run

# What an artifact is part of, by its kind, or by the first word of a measurement's name.
PARTS = {
    "base": "bases: pre-training",
    "stage": "reinforcement learning, all chapters",
    "evaluation": "evaluation of checkpoints",
    "edits": "edits (chapter 2)",
    "gradients": "gradients and routes (chapter 3)",
    "damage": "damage and its curvature (chapter 4)",
    "refreshes": "refreshes against theory (chapter 5)",
    "rollback": "rollback (chapter 6)",
    "alternating": "alternating descent (chapter 7)",
    "other": "merging, rollback and other (chapter 8)",
}
SAME = {"updates": "edits", "routes": "gradients"}


def costs(artifacts: Iterable[Artifact]) -> pd.DataFrame:
    """Time on one core and peak memory that checkpoints and measurements took, wherever they were made.

    Returns:
        A row an artifact: `name`, `part` (a key of `PARTS`), `core_seconds`, `peak_memory_gib`.
    """
    rows = [
        {
            "name": artifact.manifest["name"],
            "part": _part(artifact.manifest["inputs"]),
            "core_seconds": artifact.manifest["core_seconds"],
            "peak_memory_gib": artifact.manifest["peak_memory_gib"],
        }
        for artifact in artifacts
    ]
    return pd.DataFrame(rows, columns=["name", "part", "core_seconds", "peak_memory_gib"])


def _part(inputs: dict[str, Any]) -> str:
    found = str(inputs["what"]).partition("-")[0] if inputs["kind"] == "measurement" else str(inputs["kind"])
    found = SAME.get(found, found)
    return found if found in PARTS else "other"


def summary(made: pd.DataFrame, run: Run) -> dict[str, Any]:
    """What a run cost in all: core minutes, peak memory, and the machine."""
    hardware = provenance.hardware()
    return {
        "profile": run.profile.label,
        "seeds": len(run.seeds),
        "artifacts": len(made),
        "core_minutes": float(made["core_seconds"].sum() / 60),
        "peak_memory_gib": float(made["peak_memory_gib"].max()),
        "processor": hardware["processor"],
        "cores": hardware["cores"],
    }


def by_part(made: pd.DataFrame) -> pd.DataFrame:
    """The same by part, in the order of `PARTS`: a row a `part`, with `artifacts`, `core_minutes`, `peak_memory_gib`."""
    groups = made.assign(core_minutes=made["core_seconds"] / 60).groupby("part")
    found = groups.agg(
        artifacts=("name", "size"), core_minutes=("core_minutes", "sum"), peak_memory_gib=("peak_memory_gib", "max")
    )
    return found.reindex([part for part in PARTS if part in found.index]).reset_index()
