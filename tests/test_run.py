"""Runs: their seeds, directories and costs."""

import json

import pytest

from crossdomain import costs, run
from crossdomain.lineage import Checkpoint


def test_runs_with_other_settings_do_not_share_a_directory() -> None:
    plain, changed = run.open_run("smoke", "0"), run.open_run("smoke", "0", refresh_steps=5, stages="")
    assert plain.directory != changed.directory
    assert changed.profile.refresh_steps == 5
    assert run.open_run("smoke", "0", refresh_steps=-1).directory == plain.directory


def test_a_page_says_what_made_it_and_the_results_too(base: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = run.open_run("smoke", "0", "steps.cw=24")
    opened.lineages[0].store.root = base.artifact.path.parent
    opened.lineages[0].checkpoint("base")
    found = costs.costs(opened.artifacts())
    assert found["name"].tolist() == [base.artifact.manifest["name"]]
    summary = costs.summary(found, opened)
    assert summary["core_minutes"] == pytest.approx(base.artifact.manifest["core_seconds"] / 60)
    box = run.provenance_box(opened, "x.py")
    assert "../sources/x.py" in box and opened.profile.name in box
    assert json.loads((opened.directory / "results" / "costs.json").read_text()) == summary
    manifest = json.loads((opened.directory / "results" / "manifest.json").read_text())
    assert manifest["profile"]["steps"]["cw"] == 24 and manifest["versions"]["torch"] == "2.13.0"
