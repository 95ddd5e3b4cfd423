"""The plan of a run: its model in closed form, its limits, and what the command prints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from crossdomain import paths
from crossdomain.cli import app
from crossdomain.footprint import KNOWN
from crossdomain.lineage import Lineage
from crossdomain.models import tiny_model, tiny_tokenizer
from crossdomain.plan import architecture_of, measured, plan
from crossdomain.profiles import Profile, load_profile
from crossdomain.throughput import (
    BANDWIDTH_SHARE,
    DECODING_SHARE,
    GPUS,
    TRAINING_SHARE,
    Load,
    generation_seconds,
    training_seconds,
)

QWEN = KNOWN["Qwen/Qwen3-4B-Thinking-2507"]
H100 = GPUS["h100"]
LOAD = Load(prompt=150, response=8000, limit=16384, reward_seconds=0)
PLENTY = 1e15  # bytes


def test_few_responses_are_bound_by_reading_the_weights_at_each_step() -> None:
    floor = LOAD.limit * 2 * QWEN.parameters / (BANDWIDTH_SHARE * H100.bandwidth)
    assert generation_seconds(QWEN, H100, 1, LOAD, PLENTY) == pytest.approx(floor, rel=0.05)


def test_many_short_responses_are_bound_by_arithmetic() -> None:
    short = Load(prompt=100, response=20, limit=20, reward_seconds=0)
    flops = 100_000 * 120 * 2 * (QWEN.parameters - 2 * QWEN.hidden * QWEN.layers)
    expected = flops / (DECODING_SHARE * H100.flops)
    assert generation_seconds(QWEN, H100, 100_000, short, PLENTY) == pytest.approx(expected, rel=0.02)


def test_what_finds_no_room_in_the_cache_waits() -> None:
    one = QWEN.cache_bytes * (LOAD.prompt + LOAD.response)
    free, tight = (generation_seconds(QWEN, H100, 32, LOAD, room) for room in (PLENTY, 8 * one))
    steps = 24 * LOAD.response / 8
    assert tight - free == pytest.approx(steps * 2 * QWEN.parameters / (BANDWIDTH_SHARE * H100.bandwidth))


@pytest.mark.parametrize(
    ("changes", "forwards"), [({}, 4), ({"gradient_checkpointing": False}, 3), ({"kl_beta": 0.1}, 5)]
)
def test_training_takes_a_forward_and_a_backward_pass_and_what_the_profile_adds(
    changes: dict[str, Any], forwards: int
) -> None:
    profile = load_profile("paper", changes)
    flops = forwards * 256 * 8150 * QWEN.forward_flops(4075)
    seconds = training_seconds(profile, QWEN, H100, 8, LOAD)
    assert seconds == pytest.approx(flops / (8 * TRAINING_SHARE * H100.flops))


def test_the_paper_is_planned_where_no_hub_is() -> None:
    found = plan(load_profile("paper"), 8, H100)
    stages = found.stages.set_index("stage")
    assert list(stages.index[:4]) == ["code", "code-math", "code-math-qa", "code-math-qa-cw"]
    assert stages.loc["code-math", "tokens"] == pytest.approx(160 * 256 * 8000 / 1e6)
    assert found.hours == pytest.approx(stages["hours"].sum()) and found.fits
    row = stages.loc["code"]
    assert row["hours"] == pytest.approx(160 * (row["generation"] + row["reward"] + row["training"]) / 3600)
    assert row["reward"] > 0 == stages.loc["code-math", "reward"]


def test_more_and_better_gpus_take_less_time_and_longer_responses_more() -> None:
    profile = load_profile("paper")
    base = plan(profile, 8, H100)
    assert plan(profile, 16, H100).hours < base.hours
    assert plan(profile, 8, GPUS["h200"]).hours < base.hours < plan(profile, 8, GPUS["a100"]).hours
    assert plan(profile, 8, H100, {"math": 12_000}).hours > base.hours
    assert plan(profile, 8, H100, {"math": 1e9}).stages["tokens"].iloc[1] == pytest.approx(160 * 256 * 16_384 / 1e6)


def test_one_gpu_is_not_enough_and_the_plan_says_so() -> None:
    found = plan(load_profile("paper"), 1, H100)
    assert not found.fits and "it does not fit" in found.text()
    assert found.memory["gigabytes"].iloc[0] == pytest.approx(16 * QWEN.parameters / 1e9)


def test_a_whole_step_in_one_pass_does_not_fit_on_eight_gpus() -> None:
    assert not plan(load_profile("paper", "microbatch=null"), 8, H100).fits


def test_the_tiny_model_is_counted_right(smoke: Profile) -> None:
    model = tiny_model(smoke, tiny_tokenizer(), seed=0)
    assert architecture_of(smoke).parameters == sum(p.numel() for p in model.parameters())
    assert plan(smoke, 1, H100).fits


def test_a_model_that_is_nowhere_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"'\./nothing'"):
        plan(load_profile("paper", "model=./nothing"), 8, H100)


def test_measured_stages_are_listed_beside_their_flops(
    lineage: Lineage, cw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSDOMAIN_STORE", str(lineage.store.root))
    found = measured(lineage.profile)
    row = found.set_index("stage").loc["cw-seed0"]
    assert row["steps"] == 24 and 0 < row["tokens"] <= lineage.domains["cw"].max_new_tokens
    assert row["seconds"] > 0 and 0 < row["gigaflops"] < 1e4
    assert not any("+" in name for name in found["stage"])
    other = replace_batch(lineage.profile)
    assert "cw-seed0" not in set(measured(other)["stage"])


def replace_batch(profile: Profile) -> Profile:
    return profile.override({"batch_size": 2 * profile.batch_size})


def test_the_command_prints_time_cost_memory_disk_and_all_assumptions() -> None:
    result = CliRunner().invoke(app, ["plan", "--profile", "paper", "--gpus", "8", "--price", "2"])
    assert result.exit_code == 0, result.output
    hours = plan(load_profile("paper"), 8, H100).hours
    assert f"{8 * hours * 2:,.1f} at 2 a GPU-hour" in result.output
    for word in ("time", "memory", "disk", "Estimated, never measured", "guesses", "bandwidth"):
        assert word in result.output
    assert not paths.store().exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "tpu"), "--gpu tpu: expected one of a100, h100, h200"),
        (("--gpus", "7"), "256 completions cannot be split over 7 GPUs"),
        (("--tokens", "maths=9"), "no domain maths; expected code, math, qa, cw"),
        (("--tokens", "math=many"), "expected a positive number"),
        (("-p", "microbatch=7"), "batch_size: 256 completions cannot be split into passes of microbatch=7"),
    ],
)
def test_mistakes_get_one_message(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(app, ["plan", "--profile", "paper", *arguments])
    assert result.exit_code == 2
    assert result.output.startswith("error: ") and said in result.output


def test_gpus_are_as_their_maker_states() -> None:
    assert GPUS["h200"] == replace(H100, bandwidth=4.8e12, memory=141e9)
