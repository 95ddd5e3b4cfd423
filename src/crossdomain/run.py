"""What a notebook works on: a profile, its seeds, and the directory its results go to."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from crossdomain import costs, paths, provenance
from crossdomain.lineage import Lineage
from crossdomain.parameters import given, parse_seeds
from crossdomain.profiles import Profile, load_profile, parse_overrides
from crossdomain.store import Artifact
from crossdomain.training import quiet


@dataclass
class Run:
    """One execution of a notebook."""

    profile: Profile
    seeds: list[int]
    parameters: dict[str, Any]
    lineages: list[Lineage]
    directory: Path
    started: float = field(default_factory=time.monotonic)

    def keep(self, name: str, table: pd.DataFrame) -> pd.DataFrame:
        """Write a tidy table to the run's results, and hand it back."""
        path = self.directory / "results" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)
        return table

    def keep_values(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        """Write named values (those the pages quote) to the run's results, and hand them back."""
        path = self.directory / "results" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=1))
        return values

    def figure(self, name: str) -> Path:
        """Where a figure is saved."""
        return self.directory / "figures" / f"{name}.png"

    def artifacts(self) -> list[Artifact]:
        """All in the store that the run uses, by name, whoever made it."""
        keys = used(self.profile.label, self.seeds)
        return [artifact for artifact in self.lineages[0].store.artifacts() if artifact.key in keys]

    def titles(self) -> dict[str, str]:
        """What figures call the domains, by their name in the profile."""
        return {name: domain.title for name, domain in self.lineages[0].domains.items()}


def open_run(profile: str, seeds: str | int, overrides: str = "", **settings: Any) -> Run:
    """The run a notebook's parameters describe.

    Args:
        profile: name of a profile, or its YAML file.
        seeds: RL seeds, separated by blanks.
        overrides: other settings of the profile, as `key=value` separated by blanks.
        settings: settings with a parameter of their own; "" and -1 leave the profile's value.

    Raises:
        ProfileError: a setting or a seed cannot be used.
    """
    # A notebook's kernel shows what the package says as a person would see it in a terminal.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    quiet()
    loaded = load_profile(profile, {**parse_overrides(overrides), **given(settings)})
    numbers = parse_seeds(seeds)
    return Run(
        profile=loaded,
        seeds=numbers,
        parameters={"profile": profile, "seeds": " ".join(map(str, numbers)), **loaded.overridden},
        lineages=[Lineage(loaded, seed) for seed in numbers],
        directory=paths.run(loaded.label, numbers),
    )


def used(label: str, seeds: Iterable[int]) -> set[str]:
    """Keys of the artifacts that the runs of some seeds refer to (`Lineage.refer`)."""
    files = (path for seed in seeds for path in paths.run(label, [seed]).glob("uses/*"))
    return {path.read_text().strip() for path in files if not path.name.startswith(".")}


def provenance_box(run: Run, source: str) -> str:
    """HTML that says what made a page: profile, parameters, seeds, commit, versions, hardware, time, source.

    The same is kept beside the results, in `manifest.json`, `costs.json` and `costs_by_part.csv`.
    """
    taken = costs.costs(run.artifacts())
    cost = run.keep_values("costs", costs.summary(taken, run))
    run.keep("costs_by_part", costs.by_part(taken))
    hardware = provenance.hardware()
    made = run.keep_values(
        "manifest",
        {
            "parameters": run.parameters,
            "profile": run.profile.model_dump(),
            "base_seeds": sorted({run.profile.base_seed(seed) for seed in run.seeds}),
            "commit": provenance.git_commit(),
            "versions": provenance.versions(),
            "hardware": hardware,
        },
    )
    rows = {
        "profile": f"{run.profile.name} (scale: {run.profile.scale})",
        "parameters": ", ".join(f"{key} = {value}" for key, value in run.parameters.items()),
        "RL seeds": ", ".join(map(str, run.seeds)),
        "base seeds": ", ".join(map(str, made["base_seeds"])),
        "commit": made["commit"][:20],
        "versions": ", ".join(f"{name} {version}" for name, version in made["versions"].items()),
        "hardware": f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB, "
        f"accelerator: {hardware['accelerator']}, {hardware['threads']} thread a process",
        "wall time": f"{time.monotonic() - run.started:.0f} s for this page; {cost['core_minutes']:.1f} core "
        f"minutes for its {cost['artifacts']} checkpoints and evaluations, "
        f"at most {cost['peak_memory_gib']:.1f} GiB of memory a process",
    }
    cells = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in rows.items())
    link = f'<a href="../sources/{source}" download>{source}</a>'
    return f'<div class="provenance"><p>How this page was made</p><dl>{cells}<dt>source</dt><dd>{link}</dd></dl></div>'
