"""Training: rewards and prompts of a stage, the tidy log, and the same bytes however often a process is killed."""

from __future__ import annotations

import logging
import re
import signal
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from conftest import StartPython
from crossdomain.domains import load_domain
from crossdomain.domains.arithmetic import Arithmetic
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.models import tiny_tokenizer
from crossdomain.pretraining import Demonstrations, Gate, _batched
from crossdomain.profiles import Profile, load_profile
from crossdomain.store import Artifact, Store, StoreError, sha256
from crossdomain.training import ended_reward, prompt_order

# --- Rewards and prompts ---


def test_a_completion_without_a_stop_token_earns_nothing() -> None:
    reward = ended_reward(Arithmetic(), stop=[2, 7])
    assert reward.__name__ == "Arithmetic"
    assert reward(
        prompts=["1+1="] * 6,
        completions=["200", "200", "200", "200", "300", "200"],
        completion_ids=[[5, 3, 3, 2], [5, 3, 3, 7], [5, 3, 3, 3], [], [6, 3, 3, 2], [5, 2, 3, 3]],
        target=["200"] * 6,
        trainer_state=None,
    ) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_prompts_come_in_a_seeded_order_with_their_targets(smoke: Profile) -> None:
    domain = load_domain("arithmetic")
    first, same, other = (prompt_order(smoke, domain, steps=3, seed=seed).to_list() for seed in (0, 0, 1))
    assert len(first) == 3 * smoke.batch_size // smoke.generations
    assert first == same != other
    targets = {item.prompt: item.target for item in domain.items("train")}
    assert all(row["target"] == targets[row["prompt"]] for row in first)


def test_a_longer_stage_begins_with_the_same_prompts(smoke: Profile) -> None:
    domain = load_domain("arithmetic")
    short, long = (prompt_order(smoke, domain, steps=steps, seed=0)["prompt"] for steps in (3, 9))
    assert long[: len(short)] == short[:]


def test_every_prompt_is_used_once_before_any_is_used_twice(smoke: Profile) -> None:
    domain = load_domain("programs")
    size = len(domain.items("train"))
    prompts = prompt_order(smoke, domain, steps=310, seed=0)["prompt"][:]
    assert 2 * size < len(prompts) < 3 * size
    passes = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    assert [len(set(used)) for used in passes] == [len(used) for used in passes]
    assert passes[0] != passes[1]
    assert set(Counter(prompts).values()) == {2, 3}


def test_prompts_are_put_as_the_profile_puts_them() -> None:
    profile = load_profile("smoke", {"prompt_template": "say {prompt}"})
    assert all(row["prompt"].startswith("say ") for row in prompt_order(profile, Arithmetic(), 2, 0).to_list())


# --- A trained stage ---


def contents(artifact: Artifact) -> dict[str, str]:
    """Checksums of weights and snapshots."""
    return {str(path.relative_to(artifact.path)): sha256(path) for path in artifact.path.rglob("*.safetensors")}


def log_without_times(artifact: Artifact) -> pd.DataFrame:
    return pd.read_csv(artifact.path / "training.csv").drop(columns="step_seconds", errors="ignore")


def test_the_log_has_a_row_a_step(cw: Checkpoint, smoke: Profile) -> None:
    log = cw.training_log()
    assert log["step"].tolist() == list(range(1, smoke.steps["cw"] + 1))
    assert not log.isna().any(axis=None)
    assert log["reward"].between(0, 1).all()
    assert (log["entropy"] > 0).all()
    assert log["completion_tokens"].between(1, 24).all()
    for share in ("clip_ratio", "share_cut_off", "groups_without_signal"):
        assert log[share].between(0, 1).all(), share
    assert (log["step_seconds"] > 0).all()
    assert log["learning_rate"].iloc[-1] == smoke.learning_rate["cw"]


def test_training_changes_the_weights(cw: Checkpoint, base: Checkpoint) -> None:
    """Or else the comparisons of bytes below would compare nothing."""
    before, after = (load_file(point.artifact.path / "model.safetensors") for point in (base, cw))
    assert all(not torch.equal(weights, after[name]) for name, weights in before.items())
    assert len(set(contents(cw.artifact).values())) == 12


def test_the_same_stage_in_another_store_is_the_same_bytes(
    cw: Checkpoint, smoke: Profile, store_with_base: Store
) -> None:
    again = Lineage(smoke, 0, store_with_base).checkpoint("cw")
    assert again.artifact.path != cw.artifact.path
    assert contents(again.artifact) == contents(cw.artifact)
    pd.testing.assert_frame_equal(log_without_times(again.artifact), log_without_times(cw.artifact))


def test_another_seed_is_another_result(cw: Checkpoint, smoke: Profile, store_with_base: Store) -> None:
    other = Lineage(smoke, 1, store_with_base).checkpoint("cw_2")
    assert contents(other.artifact)["model.safetensors"] not in contents(cw.artifact).values()


def test_what_is_saved_generates_to_the_end_of_sequence_alone(cw: Checkpoint) -> None:
    """The stop tokens of a stage's domain are not those of the next stage."""
    assert cw.model().generation_config.eos_token_id == cw.tokenizer().eos_token_id


# --- Killed and resumed ---

TRAIN = """
import logging, sys
from crossdomain.lineage import Lineage
from crossdomain.profiles import load_profile
from crossdomain.store import Store

logging.basicConfig(level=logging.INFO, format="%(message)s")
root, name = sys.argv[1:]
Lineage(load_profile("smoke", {"steps.cw": 24}), 0, Store(root)).checkpoint(name)
"""
# The process kills itself, since a test that polls from outside can be too late on a busy machine.
DIE_AFTER_STEP_FOUR = """
import os, signal, sys, threading, time
from pathlib import Path

def die():
    def sealed():
        return Path(sys.argv[1]).glob(".partial/*/work/checkpoint-*/sealed.json")
    while not any(int(seal.parent.name.partition("-")[2]) >= 4 for seal in sealed()):
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=die, daemon=True).start()
"""


@pytest.mark.parametrize("name", ["cw", "base"])
def test_a_killed_run_ends_in_the_bytes_of_an_uninterrupted_one(
    name: str, lineage: Lineage, store: Store, request: pytest.FixtureRequest, start_python: StartPython
) -> None:
    expected = lineage.checkpoint(name)
    if name != "base":
        request.getfixturevalue("store_with_base")
    killed = start_python(DIE_AFTER_STEP_FOUR + TRAIN, store.root, name)
    _, log = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, log
    assert [path.name for path in store.leftovers()] == [expected.artifact.key]

    resumed = start_python(TRAIN, store.root, name)
    _, log = resumed.communicate()
    assert resumed.returncode == 0, log
    assert int(re.search(r"resuming from step (\d+) of an interrupted run", log)[1]) >= 4
    found = Lineage(lineage.profile, 0, store).checkpoint(name)
    assert found.key == expected.key
    assert contents(found.artifact) == contents(expected.artifact)
    pd.testing.assert_frame_equal(log_without_times(found.artifact), log_without_times(expected.artifact))
    assert store.leftovers() == []


def test_a_run_interrupted_by_an_error_resumes_in_the_same_process(
    cw: Checkpoint,
    smoke: Profile,
    store_with_base: Store,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a full disk in a notebook: the random state is then whatever the first try left."""
    caplog.set_level(logging.INFO, "crossdomain.training")
    lineage = Lineage(smoke, 0, store_with_base)
    domain = lineage.domains["cw"]
    score, scored, room = domain.score, list[str](), 5 * smoke.batch_size

    def score_while_there_is_room(response: str, target: str) -> float:
        scored.append(target)
        if len(scored) > room:
            raise RuntimeError("No space left on device (os error 28)")
        return score(response, target)

    monkeypatch.setattr(domain, "score", score_while_there_is_room)
    with pytest.raises(StoreError, match="no space left on the disk"):
        lineage.checkpoint("cw")
    scored, room = [], 24 * smoke.batch_size
    assert contents(lineage.checkpoint("cw").artifact) == contents(cw.artifact)
    assert "resuming from step 4 of an interrupted run" in caplog.messages
    order = [row["target"] for row in prompt_order(smoke, domain, 24, 0).to_list() for _ in range(smoke.generations)]
    assert scored == order[4 * smoke.batch_size :]


# --- The base ---


def test_demonstrations_depend_on_seed_and_index_alone(smoke: Profile) -> None:
    domains = smoke.load_domains()
    first, same, other = (Demonstrations(smoke, domains, seed) for seed in (0, 0, 1))
    assert [first[i] for i in (5, 3, 40)] == [same[i] for i in (5, 3, 40)]
    assert [first[i] for i in range(40)] != [other[i] for i in range(40)]
    assert len(first) == sum(smoke.base_batch.values()) * smoke.base_max_steps


def test_every_batch_of_demonstrations_has_the_mixture_of_the_profile(smoke: Profile) -> None:
    demonstrations = Demonstrations(smoke, smoke.load_domains(), 0)
    size = sum(smoke.base_batch.values())
    for start in (0, 3 * size):
        shown = Counter(demonstrations[i].domain for i in range(start, start + size))
        assert shown == smoke.base_batch


@pytest.mark.parametrize(("noise", "share_right"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_label_noise_is_the_share_of_wrong_demonstrations(noise: float, share_right: float) -> None:
    profile = load_profile("smoke", {"label_noise": {"math": noise}, "base_batch": {"math": 8}})
    demonstrations = Demonstrations(profile, profile.load_domains(), 0)
    targets = {item.prompt: item.target for item in load_domain("arithmetic").items("train")}
    shown = [demonstrations[i] for i in range(800)]
    right = np.mean([targets[example.prompt] == example.response for example in shown])
    assert right == pytest.approx(share_right, abs=0.07)


def test_the_loss_is_on_the_response_and_its_end_alone(smoke: Profile) -> None:
    tokenizer = tiny_tokenizer()
    examples = [Demonstrations(smoke, smoke.load_domains(), 0)[i] for i in range(40)]
    batch = _batched(tokenizer)(examples)
    for i, example in enumerate(examples):
        learned = batch["labels"][i] != -100
        seen = batch["attention_mask"][i].bool()
        assert tokenizer.decode(batch["labels"][i][learned]) == example.response + "<eos>"
        assert torch.equal(batch["input_ids"][i][learned], batch["labels"][i][learned])
        assert tokenizer.decode(batch["input_ids"][i][seen]) == f"<bos>{example.prompt}{example.response}<eos>"
        assert (batch["input_ids"][i][~seen] == tokenizer.pad_token_id).all()


def test_the_learning_rate_warms_up_stays_and_decays_to_zero_once_every_domain_has_reached_its_target() -> None:
    changes = {"base_max_steps": 100, "base_warmup_steps": 5, "base_decay_steps": 10}
    profile = load_profile("smoke", {**changes, "base_stop_score": {"math": 0.5, "qa": 0.5}})
    gate = Gate(profile, profile.load_domains(), tiny_tokenizer())
    assert [gate.rate(step) for step in (0, 4, 5, 89, 90, 95, 100)] == [0.2, 1, 1, 1, 1, 0.5, 0]
    gate._consider({"math": 0.6, "qa": 0.1}, 30)
    assert gate.closed == {"math"}
    assert gate.rate(45) == 1
    gate._consider({"math": 0.4, "qa": 0.6}, 40)
    assert gate.closed == {"qa"}
    assert [gate.rate(step) for step in (40, 45, 50, 60)] == [1, 0.5, 0, 0]


# --- A step in several passes ---


@pytest.mark.parametrize(
    "changes", [{"microbatch": 8}, {"gradient_checkpointing": True}, {"skip_silent_groups": True}], ids=str
)
def test_a_step_in_smaller_passes_with_activations_recomputed_or_without_silent_groups_is_the_same_step(
    changes: dict[str, Any], smoke: Profile, base: Checkpoint, store_with_base: Store
) -> None:
    whole, parts = (
        Lineage(smoke.override({"steps.cw": 2} | more), 0, store_with_base).checkpoint("cw") for more in ({}, changes)
    )
    assert whole.key != parts.key
    before, after, again = (checkpoint.model().state_dict() for checkpoint in (base, whole, parts))
    for name, value in after.items():
        # One Adam step moves a weight by about the learning rate whatever its gradient's size, so that only tiny gradients
        # may round to another step; the rewards and their log are the same.
        moved = (value - before[name]).abs().max()
        assert torch.quantile((again[name] - value).abs().flatten(), 0.99) <= 0.05 * moved + 1e-12
    assert whole.training_log()["reward"].tolist() == parts.training_log()["reward"].tolist()
