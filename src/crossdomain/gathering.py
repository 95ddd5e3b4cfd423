"""A run put together from several: what is costly is measured on other or fewer seeds, and page and manifest say so.

Chapters write results of their own names, so that those of one run and others of another lie side by side.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat

from crossdomain.parameters import parse_seeds
from crossdomain.profiles import ProfileError
from crossdomain.run import Run

OTHER_SEEDS = "other_seeds"  # in a manifest: seeds by chapter, of those whose seeds are not the run's


def gather(run: Run, others: Sequence[Run], directory: Path) -> Run:
    """Lay out a run's chapters, and those that it lacks from runs of other seeds.

    Args:
        run: whose chapters come before those of others.
        others: of fewer, or of other seeds; the first ones before the later ones.
        directory: where the copies go; it must not exist.

    Returns:
        The same run, with its results there; the manifest names the seeds of the chapters from other runs.

    Raises:
        ProfileError: another run has the same seeds.
        FileNotFoundError: a run has not been executed.
    """
    for other in others:
        if {*other.seeds} == {*run.seeds}:
            raise ProfileError(f"--also {other.parameters['seeds']!r}: expected other or fewer seeds, not the same")
    for each in (*reversed(others), run):
        if not (each.directory / "results" / "manifest.json").is_file():
            raise FileNotFoundError(f"{each.directory} has no results yet: execute notebooks for these seeds first")
        for kind in ("notebooks", "results", "figures"):
            if (each.directory / kind).is_dir():
                shutil.copytree(each.directory / kind, directory / kind, dirs_exist_ok=True)
    found = {path.stem: _seeds(path) for path in sorted((directory / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    differing = {chapter: seeds for chapter, seeds in found.items() if seeds and parse_seeds(seeds) != run.seeds}
    manifest = directory / "results" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), OTHER_SEEDS: differing}, indent=1))
    return replace(run, directory=directory)


def other_seeds(manifest: dict[str, Any]) -> dict[str, str]:
    """Seeds by chapter, such as `06_rollback`, where a run has chapters of others than its own."""
    return dict(manifest.get(OTHER_SEEDS, {}))


def _seeds(executed: Path) -> str:
    """The seeds that a notebook was executed with."""
    if executed.stem.endswith(".partial"):
        return ""
    return str(
        nbformat.read(executed, as_version=4).metadata.get("papermill", {}).get("parameters", {}).get("seeds", "")
    )
