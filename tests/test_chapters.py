"""What chapters there are, and which of them a profile can run."""

import pytest

from crossdomain import chapters, paths
from crossdomain.profiles import ProfileError, load_profile

TOC = paths.root() / "_toc.yml"


NOTEBOOKS = sorted(path.stem for path in (paths.root() / "notebooks").glob("[0-9]*.py"))


def test_chapters_are_notebooks_of_the_project_in_their_order() -> None:
    assert chapters.listed(TOC) == NOTEBOOKS


def test_every_chapter_with_a_need_is_a_notebook() -> None:
    assert {*chapters.COMPARE, *chapters.RECOVER} <= {*NOTEBOOKS}


def test_a_run_of_one_domain_has_the_chapters_that_compare_nothing() -> None:
    assert chapters.runnable(load_profile("cpu"), TOC) == chapters.listed(TOC)
    without = load_profile("smollm", "stages=math")
    assert chapters.runnable(without, TOC) == ["01_staged_training", "09_diagnose_your_own"]


def test_some_chapters_can_be_chosen_by_number() -> None:
    assert chapters.runnable(load_profile("cpu"), TOC, "4 02") == [NOTEBOOKS[i] for i in (0, 1, 3)]
    with pytest.raises(ProfileError, match="chapter 77: expected some of 01 02"):
        chapters.runnable(load_profile("cpu"), TOC, "01 77")
    with pytest.raises(ProfileError, match="02_sparse_edits: stages=math"):
        chapters.runnable(load_profile("smollm", "stages=math"), TOC, "02")


def test_what_is_missing_is_said() -> None:
    with pytest.raises(
        ProfileError, match="03_route_overlap: stages=math: this chapter compares domains, expected at least two"
    ):
        chapters.check(load_profile("smoke", "stages=math"), "03_route_overlap")
    with pytest.raises(ProfileError, match="04_damage_theory: stages=code,math: no stage follows that of math"):
        chapters.check(load_profile("smoke", "stages=code,math"), "04_damage_theory")
    chapters.check(load_profile("smoke", "stages=code,math"), "03_route_overlap")
