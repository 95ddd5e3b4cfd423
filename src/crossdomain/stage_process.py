"""One of the processes that train a stage together: started by accelerate, as `crossdomain.launch` asks for it.

    accelerate launch --config_file workflow/accelerate/fsdp-8.yaml -m crossdomain.stage_process stage.json

accelerate 1.15 shards models over accelerators alone: without one it leaves the settings of FSDP aside and gives every
process the whole model. PyTorch's FSDP2 itself runs on processors, over gloo, so that `shard_on_processors` has accelerate
count them as accelerators. It is what sharding is tested with where there is no GPU.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import torch.distributed
from accelerate import PartialState
from accelerate.utils import DistributedType
from datasets import Dataset
from torch.distributed.elastic.multiprocessing.errors import record

from crossdomain import bfloat16_products, training
from crossdomain.domains import Domain
from crossdomain.launch import SAID
from crossdomain.mixture import Mixture
from crossdomain.processes import configuration
from crossdomain.profiles import Profile
from crossdomain.terminal import VARIABLE


@record  # so that the launcher's last words are this process' traceback
def main(arguments: str) -> None:
    """Train the stage that a file of arguments describes, together with the other processes.

    Raises:
        RuntimeError: there are not as many processes as the profile says.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    first, started = os.environ.get("RANK", "0") == "0", int(os.environ.get("WORLD_SIZE", "1"))
    if not first:
        os.environ.pop(VARIABLE, None)
    logging.basicConfig(format=f"{SAID}%(message)s")
    logging.getLogger("crossdomain").setLevel(logging.INFO if first else logging.ERROR)
    stage = json.loads(Path(arguments).read_text())
    profile = Profile.model_validate(stage.pop("profile"))
    bfloat16_products.prepare(profile.precision)
    found = configuration(profile.accelerate)
    if started != found.processes:
        raise RuntimeError(f"{started} processes were started, expected {found.processes} by {found.path}")
    if found.kind == "FSDP" and found.on_cpu:
        shard_on_processors()
    paths = {key: None if stage[key] is None else Path(stage[key]) for key in ("parent", "weights", "output", "work")}
    domain, prompts = _domain(profile, stage.pop("domain")), stage.pop("prompts")
    training.train_stage(
        profile,
        domain,
        prompts=None if prompts is None else _prompts(Path(prompts)),
        **{**stage, **paths},
    )
    if started > 1:
        torch.distributed.destroy_process_group()


def shard_on_processors() -> None:
    """Let accelerate apply FSDP's settings to processors."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # before it asks which accelerator this is
    torch.distributed.init_process_group("gloo")

    def prepared(self: PartialState, *_: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU

    PartialState._prepare_backend = prepared


def _domain(profile: Profile, described: str | dict[str, str]) -> Domain:
    if isinstance(described, str):
        return profile.load_domain(described)
    return Mixture({name: profile.load_domain(address) for name, address in described.items()})


def _prompts(file: Path) -> Dataset:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return Dataset.from_dict({column: [row[column] for row in rows] for column in rows[0]})


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
