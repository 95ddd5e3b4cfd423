"""Stages in several processes: the one-process result from recorded responses, real sampling, resuming, and failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from trl.trainer.grpo_trainer import GRPOTrainer

from crossdomain import launch
from crossdomain.lineage import Checkpoint
from crossdomain.profiles import Profile

STAGE = {"max_grad_norm": 0.05, "microbatch": 16}
STEPS = 3


def train(profile: Profile, base: Checkpoint, folder: Path, steps: int = STEPS) -> Path:
    """A stage of creative writing, in as many processes as the profile says; where its result is."""
    output, work = folder / "output", folder / "work"
    output.mkdir(parents=True)
    work.mkdir(exist_ok=True)
    launch.train_stage(
        profile,
        profile.load_domain("writing"),
        parent=base.artifact.path,
        weights=None,
        steps=steps,
        learning_rate=1e-4,
        seed=0,
        snapshot_every=2,
        output=output,
        work=work,
        label="cw",
    )
    return output


@pytest.fixture(scope="module")
def one(smoke: Profile, base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A stage in this process, and its prompts and responses, step by step."""
    folder = tmp_path_factory.mktemp("one")
    steps: list[dict[str, Any]] = []
    generate = GRPOTrainer._generate_single_turn

    def record(self: Any, prompt_ids: list[list[int]], *arguments: Any, **options: Any) -> Any:
        responses, logprobs = generate(self, prompt_ids, *arguments, **options)
        steps.append({"prompts": prompt_ids, "responses": responses})
        return responses, logprobs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GRPOTrainer, "_generate_single_turn", record)
        found = train(smoke.override(STAGE), base, folder)
    table = folder / "recorded.json"
    table.write_text(json.dumps(steps))
    return found, table


@pytest.mark.parametrize("accelerate", ["cpu-2", "cpu-fsdp-2"])
def test_two_processes_end_where_one_does(
    accelerate: str,
    one: tuple[Path, Path],
    base: Checkpoint,
    smoke: Profile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected, table = one
    monkeypatch.setattr("crossdomain.launch.MODULE", "recorded_stage")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    monkeypatch.setenv("RECORDED", str(table))
    found = train(smoke.override(STAGE | {"accelerate": accelerate}), base, tmp_path)
    for name in ("model.safetensors", "snapshots/00002.safetensors"):
        before, after, again = (load_file(p) for p in (base.artifact.path / "model.safetensors", expected / name, found / name))
        print(before.keys() == after.keys() == again.keys())
        flat = [torch.cat([w[k].double().flatten() for k in before]) for w in (before, after, again)]
        b, a, g = flat
        print(accelerate, name, "max abs", (g-a).abs().max().item(), "rel update", ((g-a).norm()/(a-b).norm()).item(), "rel weights", ((g-a).norm()/a.norm()).item(), "max rel", ((g-a).abs()/a.abs()).nan_to_num().max().item(), "moved max", (a-b).abs().max().item())
    log, log2 = (pd.read_csv(f/"training.csv").drop(columns="step_seconds") for f in (expected, found))
    print(log.to_string()); print(((log2-log)/log).to_string())
