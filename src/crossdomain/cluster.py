"""What a job of the workflow asks of a machine or a cluster: memory, time, processors and GPUs, in Snakemake's names.

Memory and hours are limits with room, by scale: those of `machinery`, `toy` and `small` are several times what was
measured, those of `paper` are guesses after `crossdomain plan`. On one machine only the processors count.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from crossdomain.processes import configuration
from crossdomain.profiles import Profile

CORES_A_GPU = 16  # for rewards that run programs, as `crossdomain plan` assumes


class Limits(NamedTuple):
    """Of one job: megabytes of memory on a machine, and hours."""

    megabytes: int
    hours: int


LIMITS = {
    "machinery": Limits(3_000, 1),
    "toy": Limits(6_000, 12),
    "small": Limits(12_000, 48),
    "paper": Limits(512_000, 24 * 14),
}


def one_process(profile: Profile) -> dict[str, Any]:
    """Resources of a job that trains no stage."""
    limits = LIMITS[profile.scale]
    return {"mem_mb": limits.megabytes, "runtime": 60 * limits.hours}


def training(profile: Profile) -> dict[str, Any]:
    """Resources of a job that trains stages, in the processes of the profile's `accelerate`."""
    asked = one_process(profile)
    if not profile.accelerate:
        return asked
    found = configuration(profile.accelerate)
    gpus = 0 if found.on_cpu else found.processes // found.machines
    if found.machines == 1:
        return asked | ({"gpu": gpus} if gpus else {})
    # A job that starts its own tasks, one a machine: for Slurm, what Snakemake calls an MPI job.
    several = {"mpi": "srun", "nodes": found.machines, "tasks": found.machines}
    return asked | several | ({"slurm_extra": f"--gpus-per-node={gpus}"} if gpus else {})


def cores(profile: Profile) -> int:
    """Processors of a job that trains stages, on each machine."""
    if not profile.accelerate:
        return 1
    found = configuration(profile.accelerate)
    here = found.processes // found.machines
    return here if found.on_cpu else CORES_A_GPU * here
