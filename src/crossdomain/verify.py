"""Verifying a run: check the store, execute the run again, and compare it with the reference results in git."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from crossdomain import chapters, claims, paths, reference
from crossdomain import run as runs
from crossdomain.comparison import (
    IDENTICAL,
    MACHINERY,
    OTHER_SEEDS,
    SAME_SEEDS,
    Comparison,
    compare_checkpoints,
    compare_claims,
    compare_scores,
    listed,
    unlike,
)
from crossdomain.gathering import other_seeds
from crossdomain.parameters import parse_seeds
from crossdomain.profiles import Profile, load_profile
from crossdomain.run import Run, open_run
from crossdomain.store import Store, damage


class VerifyError(RuntimeError):
    """A run could not be compared; the message says why and what to do."""


@dataclass(frozen=True)
class Report:
    """All that a verification found."""

    profile: Profile
    seeds: dict[str, list[int]]
    conditions: str
    differences: list[str]
    claims: list[Comparison]
    others: list[Comparison]
    findings: dict[str, dict[str, Any]]
    environment: dict[str, dict[str, Any]]
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether every compared row agrees."""
        return all(row.agrees is not False for row in [*self.claims, *self.others])


def verify(profile_name: str, seeds: str, jobs: int) -> Report:
    """Execute a run again and compare it with its reference.

    Args:
        profile_name: name or YAML file of the profile.
        seeds: RL seeds, separated by blanks; empty for the reference's.
        jobs: notebooks at a time.

    Raises:
        VerifyError: there is no reference for the profile, or a notebook failed.
        ClaimError: a chapter that was run left a table without what a claim reads.
    """
    started = time.monotonic()
    profile = load_profile(profile_name)
    known = reference.directory(profile.label)
    of_reference = reference_seeds(known)
    numbers = parse_seeds(seeds) if seeds else of_reference
    store = Store(paths.store())
    faults = damaged(store, used(store, profile, numbers))
    execute(profile_name, profile, numbers, jobs)
    run = open_run(profile_name, " ".join(map(str, numbers)))
    complete(run)
    faults |= damaged(store, used(store, profile, numbers))
    return compare(known, run, faults, time.monotonic() - started)


def directory(report: Report) -> Path:
    """Where the report of a verification goes: among the results of its run."""
    return paths.run(report.profile.label, report.seeds["yours"]) / "verify"


def reference_seeds(directory: Path) -> list[int]:
    """The seeds of reference results.

    Raises:
        VerifyError: there are none.
    """
    manifest = directory / "manifest.json"
    if not manifest.is_file() or not (directory / "claims.json").is_file():
        raise VerifyError(
            f"{directory} has no reference results: make them with `crossdomain promote --profile {directory.name} "
            "--seeds …` from a run you trust, or choose another profile"
        )
    return parse_seeds(json.loads(manifest.read_text())["parameters"]["seeds"])


def execute(profile_name: str, profile: Profile, seeds: list[int], jobs: int) -> None:
    """Run the workflow up to the notebooks that claims rest on; those over all seeds are executed in any case.

    Raises:
        VerifyError: a job failed; the message ends with what it said.
    """
    directory = paths.run(profile.label, seeds)
    judged = {claim.chapter for claim in claims.CLAIMS}
    wanted = [chapter for chapter in chapters.runnable(profile, paths.root() / "_toc.yml") if chapter in judged]
    command = [
        *(
            str(Path(sys.executable).with_name("snakemake")),
            "--snakefile",
            str(paths.root() / "workflow" / "Snakefile"),
        ),
        *("--cores", str(jobs), "--quiet", "rules"),
        *("--config", f"profile={profile_name}", f"seeds={' '.join(map(str, seeds))}"),
        *("--forcerun", *(["notebook_over_seeds"] if len(seeds) > 1 else ["notebook", "foundation"])),
        *("--", *(str(directory / "notebooks" / f"{chapter}.ipynb") for chapter in wanted)),
    ]
    done = subprocess.run(command, cwd=paths.root(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise VerifyError("the workflow failed:\n" + "\n".join(done.stderr.splitlines()[-20:]))


def complete(run: Run) -> None:
    """Add to the results of an executed run what is compared beyond the chapters' tables: verdicts and checkpoints.

    Raises:
        ClaimError: a chapter that was run left a table without what a claim reads.
    """
    claims.judge_run(run)
    keep_checkpoints(run)


def compare(known: Path, run: Run, faults: Mapping[str, str], seconds: float) -> Report:
    """Compare the results of an executed run with reference results.

    Args:
        known: directory of the reference.
        run: whose results and `claims.json` are there.
        faults: of the store, by key.
        seconds: that the execution took.
    """
    ours = run.directory / "results"
    theirs, manifest = (json.loads((where / "manifest.json").read_text()) for where in (known, ours))
    differences = unlike(theirs, manifest)
    same_seeds = sorted(reference_seeds(known)) == sorted(run.seeds)
    elsewhere = MACHINERY if run.profile.scale == "machinery" else SAME_SEEDS
    conditions = OTHER_SEEDS if not same_seeds else elsewhere if differences else IDENTICAL
    findings = {
        side: json.loads((where / "claims.json").read_text()) for side, where in (("reference", known), ("yours", ours))
    }
    others = [
        compare_scores(pd.read_csv(known / "scores.csv"), pd.read_csv(ours / "scores.csv"), conditions),
        compare_checkpoints(pd.read_csv(known / "checkpoints.csv"), pd.read_csv(ours / "checkpoints.csv"), conditions),
        Comparison(
            "the store",
            not faults,
            "every file as its manifest says",
            f"{len(faults)} damaged" if faults else "all are",
            listed(f"{key}: {fault}" for key, fault in faults.items()),
        ),
    ]
    costs = {
        name: json.loads((where / "costs.json").read_text()) for name, where in (("reference", known), ("yours", ours))
    }
    environment = {
        name: {
            "seeds": made["parameters"]["seeds"],
            **made["hardware"],
            "versions": ", ".join(f"{package} {version}" for package, version in made["versions"].items()),
            "commit": made["commit"][:20],
            "core minutes": round(costs[name]["core_minutes"], 1),
        }
        for name, made in (("reference", theirs), ("yours", manifest))
    }
    return Report(
        profile=run.profile,
        seeds={"reference": reference_seeds(known), "yours": run.seeds},
        conditions=conditions,
        differences=differences,
        claims=compare_claims(findings["reference"], findings["yours"], conditions, other_seeds(theirs)),
        others=others,
        findings=findings,
        environment=environment,
        seconds=seconds,
    )


# --- Checkpoints and the store ---


def keep_checkpoints(run: Run) -> pd.DataFrame:
    """Keep what identifies the weights of all checkpoints of a run: a row each, with `name`, `key` and `sha256`."""
    rows = [
        {"name": artifact.manifest["name"], "key": artifact.key, "sha256": weights["sha256"]}
        for artifact in run.artifacts()
        if (weights := artifact.described.get("model.safetensors"))
    ]
    return run.keep("checkpoints", pd.DataFrame(rows, columns=["name", "key", "sha256"]))


def used(store: Store, profile: Profile, seeds: Iterable[int]) -> set[str]:
    """Keys of the artifacts in the store that the runs of some seeds refer to."""
    return {key for key in runs.used(profile.label, seeds) if (store.root / key).is_dir()}


def damaged(store: Store, keys: Iterable[str]) -> dict[str, str]:
    """Artifacts whose files are not those of their manifest, or whose manifest is another artifact's: key and fault."""
    faults = {}
    for key in sorted(keys):
        fault = damage(store.root / key)
        if fault is None:
            manifest = json.loads((store.root / key / "manifest.json").read_text())
            if Store.key(manifest["name"], manifest["inputs"]) != key:
                fault = f"it holds another artifact, {manifest['key']}: delete it"
        if fault is not None:
            faults[key] = fault
    return faults
