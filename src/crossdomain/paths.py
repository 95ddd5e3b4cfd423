"""Where things lie: the project's root, its profiles and notebooks, the runs and the store."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """The project: `CROSSDOMAIN_HOME`, else the nearest directory above that holds `profiles` and `notebooks`."""
    if "CROSSDOMAIN_HOME" in os.environ:
        return Path(os.environ["CROSSDOMAIN_HOME"])
    here = Path.cwd()
    for directory in (here, *here.parents, *Path(__file__).parents):
        if (directory / "profiles").is_dir() and (directory / "notebooks").is_dir():
            return directory
    return here


def runs() -> Path:
    """What runs leave: `CROSSDOMAIN_RUNS`, else `runs` in the project."""
    return Path(os.environ.get("CROSSDOMAIN_RUNS", root() / "runs"))


def store() -> Path:
    """Checkpoints and evaluations: `CROSSDOMAIN_STORE`, else `store` among the runs."""
    return Path(os.environ.get("CROSSDOMAIN_STORE", runs() / "store"))


def run(label: str, seeds: list[int]) -> Path:
    """The directory of one run: `runs/cpu/seed-0`, or `runs/cpu/seeds-0-1-2` for several seeds together."""
    name = f"seed-{seeds[0]}" if len(seeds) == 1 else "seeds-" + "-".join(map(str, seeds))
    return runs() / label / name
