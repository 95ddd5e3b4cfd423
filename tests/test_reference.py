"""Reference results: what is kept of a run, and that nothing of the machine is."""

import json
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from crossdomain import paths, reference, run
from synthetic_results import tables


def test_promotion_copies_the_results_with_how_they_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = run.open_run("smoke", "0")
    with pytest.raises(FileNotFoundError, match="execute the notebook"):
        reference.promote(opened)
    opened.keep_values("headline", {"peak": "1"})
    opened.keep_values("manifest", {"commit": "abc"})
    opened.keep_values("private", {"not": "promoted"})
    executed = opened.directory / "notebooks" / "01_staged_training.ipynb"
    executed.parent.mkdir(parents=True)
    notebook = jupytext.reads("# %%\n1 + 1", fmt="py:percent")
    for part in (notebook, *notebook.cells):
        part.metadata["papermill"] = {"output_path": str(executed)}
    notebook.cells[0].outputs = [
        nbformat.v4.new_output("stream", name="stderr", text=f"{executed.parent}/x.py:1: UserWarning"),
        nbformat.v4.new_output("stream", name="stdout", text="two"),
    ]
    nbformat.write(notebook, executed)
    nbformat.write(notebook, executed.with_suffix(".partial.ipynb"))
    monkeypatch.setenv("CROSSDOMAIN_HOME", str(tmp_path))
    target = reference.promote(opened)
    assert target == reference.directory("smoke") == tmp_path / "results" / "smoke"
    assert sorted(path.name for path in target.iterdir()) == ["figures", "headline.json", "manifest.json", "notebooks"]
    (kept,) = (target / "notebooks").iterdir()
    assert kept.name == executed.name
    assert "1 + 1" in kept.read_text() and "two" in kept.read_text() and str(executed.parent) not in kept.read_text()
    kept.rename(kept.with_stem("02_of_an_earlier_run"))
    assert [path.name for path in (reference.promote(opened) / "notebooks").iterdir()] == [executed.name]


def test_promotion_takes_along_what_claims_are_judged_by() -> None:
    assert {f"{name}.csv" for name in tables()} <= {*reference.PROMOTED}
    assert len({*reference.PROMOTED}) == len(reference.PROMOTED)


def test_promotion_takes_along_the_figures_of_pages() -> None:
    pages = "".join(page.read_text() for page in (paths.root() / "book").glob("*.md"))
    assert {*re.findall(r"figures/(\w+\.png)", pages)} == {*reference.FIGURES, "conflict.png"}  # that one is drawn


def test_what_is_in_git_holds_together_and_nothing_of_the_machine() -> None:
    for manifest in (paths.root() / "results").glob("*/manifest.json"):
        assert json.loads(manifest.read_text())["versions"]["torch"] == "2.13.0"
        for file in manifest.parent.rglob("*.*"):
            if file.suffix in (".ipynb", ".json", ".csv"):
                assert not re.search(r"/(home|root|tmp|work|Users)/", file.read_text()), file
