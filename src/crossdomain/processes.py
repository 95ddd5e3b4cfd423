"""How a stage is spread over processes: the configurations of `accelerate` that a profile can name.

They are files of `workflow/accelerate`, in accelerate's own format, or a reader's own. What of one determines trained
weights is part of what a stage is kept under: the number of processes and how the model is split, not where they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from crossdomain import paths

DECISIVE = ("distributed_type", "num_processes", "use_cpu", "fsdp_config", "deepspeed_config")


class Configuration(NamedTuple):
    """One of accelerate's configurations.

    Attributes:
        path: the file.
        values: what it says.
    """

    path: Path
    values: dict[str, Any]

    @property
    def processes(self) -> int:
        """Over all machines."""
        return int(self.values["num_processes"])

    @property
    def machines(self) -> int:
        """How many the processes are on, in equal parts."""
        return int(self.values.get("num_machines", 1))

    @property
    def on_cpu(self) -> bool:
        """Whether no process uses an accelerator, even where there is one."""
        return bool(self.values.get("use_cpu", False))

    @property
    def kind(self) -> str:
        """How the model is split: `FSDP` and `DEEPSPEED` shard it, otherwise each process holds all of it."""
        return str(self.values["distributed_type"])

    @property
    def determinants(self) -> dict[str, Any]:
        """What of it can change trained weights."""
        return {key: self.values[key] for key in DECISIVE if key in self.values}


def configuration(name: str) -> Configuration:
    """The configuration of that name in `workflow/accelerate`, or of a YAML file.

    Raises:
        ValueError: there is none, or it is not one of accelerate's for this machine or machines.
    """
    folder = paths.root() / "workflow" / "accelerate"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise ValueError(f"no configuration {name!r} ({path} is missing): expected one of {there}, or a YAML file")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    counts = [values.get(key, 1) for key in ("num_processes", "num_machines")] if isinstance(values, dict) else []
    if not counts or "distributed_type" not in values or "num_processes" not in values:
        raise ValueError(f"{path}: expected accelerate's settings, with distributed_type and num_processes")
    if not all(isinstance(count, int) and count > 0 for count in counts) or counts[0] % counts[1]:
        raise ValueError(
            f"{path}: num_processes={counts[0]} over num_machines={counts[1]}: expected positive whole numbers, as many "
            "processes on each machine"
        )
    return Configuration(path, values)
