"""The chapters of the book that are notebooks, and what each asks of a profile before anything is computed."""

from __future__ import annotations

from pathlib import Path

import yaml

from crossdomain.profiles import Profile, ProfileError

RECOVER = (  # chapters on the refreshed domain's damage by later stages
    *("04_damage_theory", "05_refresh", "06_rollback", "07_alternating_refresh", "08_alternatives"),
)
COMPARE = ("02_sparse_edits", "03_route_overlap", *RECOVER)  # chapters that compare domains


def listed(toc: Path) -> list[str]:
    """Names of the notebooks in the book's table of contents."""
    contents = yaml.safe_load(toc.read_text())
    files = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    return [Path(file).name for file in files if file.startswith("notebooks/")]


def missing(profile: Profile, chapter: str) -> str | None:
    """What a profile lacks for a chapter, in words; nothing if it can be run."""
    stages = f"stages={','.join(profile.stages)}"
    if chapter in COMPARE and len(set(profile.stages)) < 2:
        return f"{stages}: this chapter compares domains, expected at least two of them; add a stage"
    if chapter in RECOVER and not profile.interferes:
        return (
            f"{stages}: no stage follows that of {profile.refresh}, so nothing damages it; add a stage, choose another "
            "order or another refresh"
        )
    return None


def check(profile: Profile, chapter: str) -> None:
    """Make sure that a profile can run a chapter.

    Raises:
        ProfileError: it cannot; the message says why and what to do.
    """
    if reason := missing(profile, chapter):
        raise ProfileError(f"{chapter}: {reason}")


def runnable(profile: Profile, toc: Path, numbers: str = "") -> list[str]:
    """The chapters of the table of contents that a profile can run.

    Args:
        profile: the run's settings.
        toc: the book's table of contents.
        numbers: only these (`01 04`), separated by blanks, and the first, which the pages quote; empty for all.

    Raises:
        ProfileError: a number is no chapter's, or that of one which the profile cannot run.
    """
    chapters = listed(toc)
    wanted = [number.zfill(2) for number in numbers.split()]
    if not wanted:
        return [chapter for chapter in chapters if missing(profile, chapter) is None]
    known = [chapter[:2] for chapter in chapters]
    if unknown := sorted({*wanted} - {*known}):
        raise ProfileError(f"chapter {' '.join(unknown)}: expected some of {' '.join(known)}")
    chosen = [chapter for chapter in chapters if chapter[:2] in {known[0], *wanted}]
    for chapter in chosen:
        check(profile, chapter)
    return chosen
