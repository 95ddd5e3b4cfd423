"""A run put together from several: what is costly is measured on fewer seeds, and both the page and the manifest say so.

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

FEWER_SEEDS = "fewer_seeds"  # in a manifest: seeds by chapter, of those that have not all


def gather(run: Run, others: Sequence[Run], directory: Path) -> Run:
    """Lay out a run's chapters, and those that it lacks from runs of some of its seeds.

    Args:
        run: of all seeds; its chapters come before those of others.
        others: of fewer seeds, the first ones before the later ones.
        directory: where the copies go; it must not exist.

    Returns:
        The same run, with its results there; the manifest names the seeds of the chapters from other runs.

    Raises:
        ProfileError: another run's seeds are not some of the run's.
        FileNotFoundError: a run has not been executed.
    """
    for other in others:
        if not {*other.seeds} < {*run.seeds}:
            given, known = (each.parameters["seeds"] for each in (other, run))
            raise ProfileError(f"--also {given!r}: expected some of the seeds {known!r}, not all of them")
    for each in (*reversed(others), run):
        if not (each.directory / "results" / "manifest.json").is_file():
            raise FileNotFoundError(f"{each.directory} has no results yet: execute notebooks for these seeds first")
        for kind in ("notebooks", "results", "figures"):
            if (each.directory / kind).is_dir():
                shutil.copytree(each.directory / kind, directory / kind, dirs_exist_ok=True)
    found = {path.stem: _seeds(path) for path in sorted((directory / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    fewer = {chapter: seeds for chapter, seeds in found.items() if seeds and parse_seeds(seeds) != run.seeds}
    manifest = directory / "results" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), FEWER_SEEDS: fewer}, indent=1))
    return replace(run, directory=directory)


def fewer_seeds(manifest: dict[str, Any]) -> dict[str, str]:
    """Seeds by chapter, such as `06_rollback`, where a run has chapters with fewer than all."""
    return dict(manifest.get(FEWER_SEEDS, {}))


def _seeds(executed: Path) -> str:
    """The seeds that a notebook was executed with."""
    if executed.stem.endswith(".partial"):
        return ""
    return str(
        nbformat.read(executed, as_version=4).metadata.get("papermill", {}).get("parameters", {}).get("seeds", "")
    )
