"""Assembling the book: what is missing is said, and quoted values come from result files."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from crossdomain import book, paths
from crossdomain.book import BookError, Material
from crossdomain.profiles import load_profile


def test_a_chapter_that_was_not_executed_is_named(tmp_path: Path) -> None:
    with pytest.raises(BookError, match="01_staged_training has not been executed"):
        book.assemble(paths.root(), Material.of_run(tmp_path / "run"), tmp_path / "source", load_profile("smoke"))


def test_a_profile_without_reference_results_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("smoke")
    monkeypatch.setenv("CROSSDOMAIN_HOME", str(tmp_path))
    with pytest.raises(BookError, match="make reproduce PROFILE=smoke"):
        book.build_reference(profile)


def test_values_come_from_the_run_and_costs_from_every_profile_measured(tmp_path: Path) -> None:
    run, root = tmp_path / "runs" / "cpu" / "seed-0", tmp_path / "root"
    cost = {"profile": "cpu", "seeds": 1, "core_minutes": 7.4, "peak_memory_gib": 1.23, "processor": "P", "cores": 2}
    for path, values in (
        (run / "results" / "headline.json", {"peak": "71.0", "seeds": "0", "base_seeds": "0"}),
        (run / "results" / "costs.json", cost),
        (root / "results" / "cpu" / "costs.json", {**cost, "core_minutes": 99.0}),
        (root / "results" / "smollm" / "costs.json", {**cost, "profile": "smollm", "core_minutes": 1.26}),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    pd.DataFrame(
        {"part": ["stage", "other"], "artifacts": [3, 1], "core_minutes": [2.25, 1.5], "peak_memory_gib": [1.0, 0.5]}
    ).to_csv(run / "results" / "costs_by_part.csv", index=False)
    found = book.values(root, run / "results")
    assert found["peak"] == "71.0"
    assert found["paper_math_damaged"] == "57.66"
    assert "`smollm`" in found["costs"] and "1.3" in found["costs"]
    assert "99" not in found["costs"]  # this run's own measurement stands for its profile
    total = found["costs_by_part"].splitlines()[-1]
    assert [cell.strip() for cell in total.strip("|").split("|")] == ["all", "4", "3.8", "1.0 GiB"]


def test_the_claims_page_is_filled_in_from_the_findings(tmp_path: Path) -> None:
    page = tmp_path / "claims.md"
    page.write_text((paths.root() / "book" / "claims.md").read_text())
    book._fill_in_claims(page, {"C1": {"verdict": "partly", "reason": "Because.", "rules": []}})
    text = page.read_text()
    assert "<!--" not in text and "Because." in text
    assert text.index("(claim-c1)=") > text.index("## Which seeds did what")


def test_what_the_claims_page_quotes_is_known(tmp_path: Path) -> None:
    quoted = {*re.findall(r"{{ (\w+) }}", (paths.root() / "book" / "claims.md").read_text())}
    assert quoted - {"seeds_by_chapter", "profile", "scale", "basis"} == {*book._seed_sets()}  # the rest: of the run
    assert book._seed_sets()["reported_bases"] == "1 2 2 0 0"


def test_the_table_of_the_readme_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n\n<!-- claims -->\nold\n<!-- /claims -->\n\nafter\n")
    book.fill_in_readme(tmp_path)
    first = readme.read_text()
    assert first.startswith("before\n\n<!-- claims -->\n| claim") and first.endswith("<!-- /claims -->\n\nafter\n")
    assert "old" not in first and "not judged yet" in first
    (tmp_path / "results" / "cpu").mkdir(parents=True)
    finding = {"verdict": "partly", "reason": "Because.", "rules": []}
    (tmp_path / "results" / "cpu" / "claims.json").write_text(json.dumps({"C4": finding}))
    (tmp_path / "results" / "cpu" / "manifest.json").write_text(json.dumps({"parameters": {"seeds": "3 4"}}))
    book.fill_in_readme(tmp_path)
    assert "Seeds 3 4" in readme.read_text() and "| Because. | **partly** |" in readme.read_text()


def test_the_readme_shows_the_claims_as_the_reference_has_them(tmp_path: Path) -> None:
    shutil.copy(paths.root() / "README.md", tmp_path)
    if (paths.root() / "results").is_dir():
        shutil.copytree(paths.root() / "results", tmp_path / "results")
    book.fill_in_readme(tmp_path)
    assert (tmp_path / "README.md").read_text() == (paths.root() / "README.md").read_text(), "promote again"
