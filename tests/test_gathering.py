"""Runs put together: chapters of other seeds are added, none is overwritten, and what has which seeds is written down."""

import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from crossdomain import run as runs
from crossdomain.gathering import gather, other_seeds
from crossdomain.profiles import ProfileError
from crossdomain.run import Run


def executed(seeds: str, *chapters: str) -> Run:
    """A run that has executed chapters, each of which left a table with a row a seed and a figure."""
    run = runs.open_run("smoke", seeds)
    for chapter in chapters:
        notebook = nbformat.v4.new_notebook(metadata={"papermill": {"parameters": {"seeds": seeds}}})
        path = run.directory / "notebooks" / f"{chapter}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        run.keep(chapter[3:], pd.DataFrame({"seed": run.seeds}))
        run.figure(chapter[3:]).parent.mkdir(exist_ok=True)
        run.figure(chapter[3:]).write_text(seeds)
    run.keep_values("manifest", {"parameters": {"seeds": seeds}})
    return run


def seeds_of(run: Run, table: str) -> list[int]:
    return list(pd.read_csv(run.directory / "results" / f"{table}.csv")["seed"])


def test_a_chapter_comes_from_the_run_with_most_seeds_that_has_it(tmp_path: Path) -> None:
    run = executed("0 1 2", "01_stages")
    others = [executed("0 1", "01_stages", "04_theory"), executed("1", "04_theory", "06_rollback")]
    left = {path: path.read_bytes() for path in run.directory.rglob("*.*")}
    found = gather(run, others, tmp_path / "gathered")
    assert found.seeds == [0, 1, 2] and found.directory == tmp_path / "gathered"
    assert [seeds_of(found, table) for table in ("stages", "theory", "rollback")] == [[0, 1, 2], [0, 1], [1]]
    assert [found.figure(name).read_text() for name in ("stages", "theory", "rollback")] == ["0 1 2", "0 1", "1"]
    manifest = json.loads((found.directory / "results" / "manifest.json").read_text())
    assert manifest["parameters"]["seeds"] == "0 1 2"
    assert other_seeds(manifest) == {"04_theory": "0 1", "06_rollback": "1"}
    assert {path: path.read_bytes() for path in run.directory.rglob("*.*")} == left


def test_a_run_by_itself_has_all_seeds_everywhere(tmp_path: Path) -> None:
    run = executed("0 1", "01_stages")
    partial = run.directory / "notebooks" / "02_sparse_edits.partial.ipynb"
    partial.write_text("not finished")
    found = gather(run, [], tmp_path / "gathered")
    assert other_seeds(json.loads((found.directory / "results" / "manifest.json").read_text())) == {}
    assert other_seeds({}) == {}


def test_a_chapter_may_have_seeds_that_the_run_has_not(tmp_path: Path) -> None:
    found = gather(executed("0 1", "01_stages"), [executed("1 3", "06_rollback")], tmp_path / "gathered")
    assert seeds_of(found, "rollback") == [1, 3] and found.seeds == [0, 1]
    manifest = json.loads((found.directory / "results" / "manifest.json").read_text())
    assert other_seeds(manifest) == {"06_rollback": "1 3"}


def test_other_runs_must_not_have_the_same_seeds(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="--also '1 0': expected other or fewer seeds, not the same"):
        gather(executed("0 1", "01_stages"), [executed("1 0", "06_rollback")], tmp_path / "gathered")


def test_a_run_that_was_not_executed_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="seed-1 has no results yet"):
        gather(executed("0 1", "01_stages"), [runs.open_run("smoke", "1")], tmp_path / "gathered")
