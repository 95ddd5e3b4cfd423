"""Assembling the book: what is missing is said, and quoted values come from result files."""

import json
from pathlib import Path

import pytest

from crossdomain import book, paths
from crossdomain.book import BookError
from crossdomain.profiles import load_profile


def test_a_chapter_that_was_not_executed_is_named(tmp_path: Path) -> None:
    with pytest.raises(BookError, match="01_staged_training has not been executed"):
        book.assemble(paths.root(), tmp_path / "run", tmp_path / "source", load_profile("smoke"))


def test_values_come_from_the_run_and_costs_from_every_profile_measured(tmp_path: Path) -> None:
    run, root = tmp_path / "runs" / "cpu" / "seed-0", tmp_path / "root"
    cost = {"profile": "cpu", "seeds": 1, "core_minutes": 7.4, "peak_memory_gib": 1.23, "processor": "P", "cores": 2}
    for path, values in (
        (run / "results" / "headline.json", {"peak": "71.0"}),
        (run / "results" / "costs.json", cost),
        (root / "results" / "cpu" / "costs.json", {**cost, "core_minutes": 99.0}),
        (root / "results" / "smollm" / "costs.json", {**cost, "profile": "smollm", "core_minutes": 1.26}),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    found = book.values(root, run)
    assert found["peak"] == "71.0"
    assert found["paper_math_damaged"] == "57.66"
    assert "`smollm`" in found["costs"] and "1.3" in found["costs"]
    assert "99" not in found["costs"]  # this run's own measurement stands for its profile
