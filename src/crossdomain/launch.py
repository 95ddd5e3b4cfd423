"""Training a stage in this process, or in those of one of accelerate's configurations (`accelerate launch`).

This process keeps the store's lock and waits; the others train, and the first of them writes the result, in the same
layout. What they say goes to `launch.log` in the work folder, which they all have to see: machines share the folder of the
store. On several machines they are started by Slurm's `srun`, one launcher a machine.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback

from crossdomain import provenance, terminal, training
from crossdomain.domains import Domain
from crossdomain.processes import Configuration, configuration
from crossdomain.profiles import Profile

logger = logging.getLogger(__name__)
SAID = "crossdomain: "  # begins the lines of the first process that are handed on to this one's log
SHOWN = 25  # lines of the log that a failure shows
LOG = "launch.log"
MODULE = "crossdomain.stage_process"  # what each process runs
PORT = 29500  # where processes on several machines meet


class LaunchError(RuntimeError):
    """Processes could not be started, or failed; the message says why and what to do."""


def inputs(profile: Profile) -> dict[str, Any]:
    """What of a profile's processes determines trained weights; nothing where a stage is trained in this one."""
    if not profile.accelerate:
        return {}
    return {"processes": {**configuration(profile.accelerate).determinants, **provenance.versions(("deepspeed",))}}


def train_stage(
    profile: Profile,
    domain: Domain,
    *,
    output: Path,
    work: Path,
    label: str,
    prompts: Dataset | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **stage: Any,
) -> None:
    """`training.train_stage`, with the same arguments, in as many processes as the profile says.

    Raises:
        LaunchError: a process failed, they cannot be started, or a callback cannot be handed to them.
    """
    if not profile.accelerate:
        training.train_stage(
            profile, domain, output=output, work=work, label=label, prompts=prompts, callbacks=callbacks, **stage
        )
        return
    if callbacks:
        kinds = ", ".join(type(callback).__name__ for callback in callbacks)
        raise LaunchError(
            f"{label}: {kinds} changes whole gradients, which processes of accelerate={profile.accelerate} may each hold a "
            "part of; train this stage with accelerate='' (in one process), or leave chapter 8 out"
        )
    found = configuration(profile.accelerate)
    if prompts is not None:
        prompts.to_json(work / "prompts.jsonl", force_ascii=False)
    described = {
        "profile": profile.model_dump(mode="json"),
        "domain": _described(domain),
        "output": output,
        "work": work,
        "label": label,
        "prompts": None if prompts is None else work / "prompts.jsonl",
        **stage,
    }
    arguments = work / "stage.json"
    arguments.write_text(json.dumps(described, default=lambda path: str(path.resolve())))
    _run([*command(found, profile), str(arguments.resolve())], found, label, work / LOG)


def command(found: Configuration, profile: Profile) -> list[str]:
    """What starts the processes of a configuration; the file with a stage's arguments follows.

    Raises:
        LaunchError: they are on several machines and this is no Slurm job.
    """
    options = ["--config_file", str(found.path.resolve())]
    options += ["--mixed_precision", "bf16" if profile.precision == "bf16-autocast" else "no"]
    module = ["-m", MODULE]
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    if found.machines == 1:
        return [*launcher, *options, "--main_process_port", "0", *module]  # any free port: stages may run side by side
    if "SLURM_JOB_ID" not in os.environ or shutil.which("srun") is None:
        raise LaunchError(
            f"accelerate={profile.accelerate}: its {found.machines} machines are reached through Slurm's srun, and this is "
            "no Slurm job; submit it (WORKFLOW=slurm), or name a configuration of one machine"
        )
    options += ["--main_process_ip", socket.gethostname(), "--main_process_port", str(PORT)]
    # Each machine's launcher has to be told which it is, and only srun knows.
    ranked = 'exec "$0" "$1" "$2" --machine_rank "$SLURM_PROCID" "${@:3}"'
    tasks = ["--ntasks", str(found.machines), "--ntasks-per-node", "1", "--overlap", "--kill-on-bad-exit=1"]
    return ["srun", *tasks, "bash", "-c", ranked, *launcher, *options, *module]


def _described(domain: Domain) -> str | dict[str, str]:
    """How another process finds a domain: its class, or those that are mixed by their names."""
    from crossdomain.mixture import Mixture  # which trains through this module

    def address(part: Domain) -> str:
        return f"{type(part).__module__}:{type(part).__qualname__}"

    if isinstance(domain, Mixture):
        return {name: address(part) for name, part in domain.parts.items()}
    return address(domain)


def _run(arguments: list[str], found: Configuration, label: str, log: Path) -> None:
    environment = dict(os.environ)
    if found.on_cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if sys.stderr.isatty():
        environment[terminal.VARIABLE] = os.ttyname(sys.stderr.fileno())
    lines: list[str] = []
    with (
        log.open("w") as kept,
        # Their standard input ends when this process does, however it ends; that ends them, too.
        subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        ) as started,
    ):
        try:
            for line in started.stdout or ():
                kept.write(line)
                kept.flush()
                lines = [*lines[1 - SHOWN :], line]
                if line.startswith(SAID):
                    logger.info(line.removeprefix(SAID).rstrip())
        except BaseException:
            started.terminate()
            raise
    if started.returncode:
        raise LaunchError(
            f"{label}: the {found.processes} processes of {found.path.name} ended with status {started.returncode}; all "
            f"they said is in {log}, and its end is:\n{''.join(lines).rstrip()}"
        )
