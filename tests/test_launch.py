"""Stages in several processes: the one-process result from recorded responses, failing, resuming, and real sampling."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from trl.trainer.grpo_trainer import GRPOTrainer

from crossdomain import launch, paths, stage_process
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.mixture import Mixture
from crossdomain.processes import configuration
from crossdomain.profiles import Profile
from crossdomain.regularised import GradientCallback
from crossdomain.store import Store

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


@pytest.fixture
def replay(one: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes answer with the recorded responses; returns what one process made of them."""
    expected, table = one
    monkeypatch.setattr("crossdomain.launch.MODULE", "recorded_stage")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("RECORDED", str(table))
    return expected


def assert_same(found: Path, expected: Path, base: Checkpoint) -> None:
    """The same files; weights equal but for the order of sums; the same rewards.

    A gradient summed in another order differs in its last bits, by some 1e-7 of it. Adam divides it by its own size, which
    enlarges that where terms of a gradient nearly cancel. Measured with both configurations: 3e-6 of the update's norm,
    4e-9 of the weights'. Adam would hide a gradient that is wrong by a factor, but its norm in the log does not.
    """
    names = [
        sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()) for top in (found, expected)
    ]
    assert names[0] == names[1]
    start = load_file(base.artifact.path / "model.safetensors")
    for name in ("model.safetensors", "snapshots/00002.safetensors"):
        after, again = load_file(expected / name), load_file(found / name)
        assert start.keys() == after.keys() == again.keys()
        before, one, several = (torch.cat([w[k].double().flatten() for k in start]) for w in (start, after, again))
        apart = (several - one).norm()
        print(f"{name}: {apart / (one - before).norm():.1e} of the update, {apart / one.norm():.1e} of the weights")
        print(f"largest difference {(several - one).abs().max():.1e}")
        assert apart <= 1e-4 * (one - before).norm() and apart <= 1e-7 * one.norm()
    logs = [pd.read_csv(top / "training.csv") for top in (found, expected)]
    assert (logs[1]["gradient_norm"] > STAGE["max_grad_norm"]).all()  # so that clipping is compared, too
    assert logs[1]["reward_std"].min() > 0
    for column in ("step", "reward", "reward_std", "completion_tokens", "loss", "gradient_norm", "learning_rate"):
        np.testing.assert_allclose(logs[0][column], logs[1][column], rtol=1e-4, atol=1e-7, err_msg=column)


def test_two_processes_end_where_one_does(replay: Path, base: Checkpoint, smoke: Profile, tmp_path: Path) -> None:
    assert_same(train(smoke.override(STAGE | {"accelerate": "cpu-2"}), base, tmp_path), replay, base)


def test_a_sharded_stage_that_failed_says_why_resumes_and_ends_where_one_process_does(
    replay: Path,
    base: Checkpoint,
    smoke: Profile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "crossdomain")
    sharded = smoke.override(STAGE | {"accelerate": "cpu-fsdp-2"})
    monkeypatch.setenv("FAIL_AT", "2")
    with pytest.raises(launch.LaunchError, match=r"the 2 processes of cpu-fsdp-2\.yaml ended with status 1") as failure:
        train(sharded, base, tmp_path)
    assert "ValueError: a planted failure" in str(failure.value)
    assert str(tmp_path / "work" / launch.LOG) in str(failure.value)

    monkeypatch.delenv("FAIL_AT")
    shutil.rmtree(tmp_path / "output")
    found = train(sharded, base, tmp_path)
    assert "resuming from step 2 of an interrupted run" in caplog.messages
    assert_same(found, replay, base)


def test_sharded_processes_sample_to_different_lengths_and_are_kept_under_a_key_of_their_own(
    base: Checkpoint, lineage: Lineage, store_with_base: Store
) -> None:
    alone = Lineage(lineage.profile, 0, store_with_base)
    together = alone.variant({"accelerate": "cpu-fsdp-2"})
    found = together.checkpoint("cw_2")
    assert found.training_log()["step"].tolist() == [1, 2]
    assert found.config().architectures == ["Qwen3ForCausalLM"]
    inputs = dict(found.artifact.manifest["inputs"])
    assert inputs.pop("processes")["num_processes"] == 2
    assert found.key != Store.key("cw_2-seed0", inputs)
    before, after = base.model().state_dict(), found.model().state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


# --- What is said before anything starts ---


def test_nothing_is_added_to_the_key_of_a_stage_in_this_process(smoke: Profile) -> None:
    assert launch.inputs(smoke) == {}


def test_where_processes_run_is_no_part_of_the_key(smoke: Profile, tmp_path: Path) -> None:
    text = (paths.root() / "workflow" / "accelerate" / "cpu-2.yaml").read_text()
    elsewhere, more = tmp_path / "elsewhere.yaml", tmp_path / "more.yaml"
    elsewhere.write_text(text + "main_process_port: 1234\n")
    more.write_text(text.replace("num_processes: 2", "num_processes: 4"))
    keys = [
        launch.inputs(smoke.override({"accelerate": str(name)})) for name in ("cpu-2", elsewhere, more, "cpu-fsdp-2")
    ]
    assert keys[0] == keys[1]
    assert keys[2] != keys[0] != keys[3] != keys[2]


def test_callbacks_that_need_whole_gradients_are_refused(base: Checkpoint, smoke: Profile, tmp_path: Path) -> None:
    with pytest.raises(launch.LaunchError, match=r"cw: GradientCallback changes whole gradients.*accelerate=''"):
        launch.train_stage(
            smoke.override({"accelerate": "cpu-2"}),
            smoke.load_domain("writing"),
            output=tmp_path,
            work=tmp_path,
            label="cw",
            callbacks=[GradientCallback(lambda gradient, _: gradient)],
        )


def test_domains_and_mixtures_of_them_are_found_again_by_another_process(smoke: Profile) -> None:
    for domain in (smoke.load_domain("writing"), Mixture({"math": smoke.load_domain("arithmetic")})):
        again = stage_process._domain(smoke, json.loads(json.dumps(launch._described(domain))))
        assert type(again) is type(domain) and again.items("test") == domain.items("test")


@pytest.mark.parametrize(("precision", "mixed"), [("float32", "no"), ("bf16-autocast", "bf16")])
def test_arithmetic_is_that_of_the_profile(precision: str, mixed: str, smoke: Profile) -> None:
    found = launch.command(configuration("fsdp-8"), smoke.override({"precision": precision}))
    assert found[found.index("--mixed_precision") + 1] == mixed
    assert found[found.index("--config_file") + 1] == str(paths.root() / "workflow" / "accelerate" / "fsdp-8.yaml")


def test_several_machines_need_a_slurm_job(smoke: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    nodes = smoke.override({"accelerate": "zero3-nodes", "batch_size": 64})
    with pytest.raises(
        launch.LaunchError, match="2 machines are reached through Slurm's srun, and this is no Slurm job"
    ):
        launch.command(configuration("zero3-nodes"), nodes)
