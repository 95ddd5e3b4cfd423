"""Evidence: tables are checked as they are read, and intervals know which seeds share a base."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crossdomain import stats
from crossdomain.evidence import ClaimError, Evidence, NotTestableError
from crossdomain.profiles import load_profile

SCORES = pd.DataFrame({"seed": [3, 4, 5, 6, 7], "score": [1.0, 4, 5, 7, 9]})


@pytest.fixture
def evidence() -> Evidence:
    return Evidence({"scores": SCORES}, load_profile("cpu"), frozenset({"01"}))


def test_a_table_needs_its_columns(evidence: Evidence) -> None:
    assert evidence.table("01", "scores", "seed", "score") is SCORES
    with pytest.raises(ClaimError, match=r"results/scores.csv: no column low, high; it has seed, score"):
        evidence.table("01", "scores", "seed", "low", "high")


def test_a_missing_table_is_a_fault_only_where_its_chapter_was_run(evidence: Evidence) -> None:
    with pytest.raises(ClaimError, match=r"results/changes.csv is missing though chapter 1 was run"):
        evidence.table("01", "changes")
    with pytest.raises(NotTestableError, match="chapter 5 was not run"):
        evidence.table("05", "refresh")


def test_intervals_resample_the_base_seeds_of_the_profile(evidence: Evidence) -> None:
    expected = stats.hierarchical_bootstrap(SCORES["score"], [1, 2, 2, 0, 0])
    assert evidence.mean(SCORES, "score") == expected
    assert evidence.mean(pd.concat([SCORES, SCORES]), "score") == expected


def test_seeds_without_a_value_are_left_out(evidence: Evidence) -> None:
    known = pd.Series([1.0, np.nan, 3.0], index=[3, 4, 6])
    assert evidence.over_seeds(known) == stats.hierarchical_bootstrap([1.0, 3.0], [1, 0])
    assert np.isnan(evidence.over_seeds(known * np.nan)).all()


def test_a_run_is_read_with_the_chapters_that_were_executed(tmp_path: Path) -> None:
    for name in ("results", "notebooks"):
        (tmp_path / name).mkdir()
    SCORES.to_csv(tmp_path / "results" / "scores.csv", index=False)
    (tmp_path / "notebooks" / "01_staged_training.ipynb").write_text("{}")
    (tmp_path / "notebooks" / "02_sparse_edits.partial.ipynb").write_text("{}")
    found = Evidence.read(tmp_path, load_profile("cpu"))
    pd.testing.assert_frame_equal(found.tables["scores"], SCORES)
    assert found.chapters == {"01"}


def test_without_later_stages_there_is_nothing_to_recover_from() -> None:
    assert Evidence({}, load_profile("cpu"), frozenset()).later() == ["qa", "cw"]
    with pytest.raises(NotTestableError, match="no stage follows that of math"):
        Evidence({}, load_profile("cpu", "stages=code,math"), frozenset()).later()
