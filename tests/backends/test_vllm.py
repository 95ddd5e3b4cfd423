"""vLLM for real: greedy agreement with transformers, sampling, a server, and TRL's GRPO with weights that arrive or do not.

Run whole by `make test-vllm`; skipped where vLLM is not installed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain import training
from crossdomain.backends import BackendError, Engine, trl_rollouts
from crossdomain.backends.openai_server import Server
from crossdomain.backends.trl_rollouts import TOLERANCE, CheckedSync, agreement
from crossdomain.backends.vllm_engine import CPU_ENVIRONMENT, ENVIRONMENT, VLLM
from crossdomain.generation import generate_ids
from crossdomain.models import load_model
from crossdomain.profiles import Profile, load_profile
from crossdomain.store import sha256

pytestmark = pytest.mark.skipif(
    find_spec("vllm") is None and "CROSSDOMAIN_REQUIRE_VLLM" not in os.environ,
    reason="vLLM is not installed: see make test-vllm",
)

MEMORY = 0.02  # of the machine's
STOP = [2]
OPTIONS: dict[str, Any] = {"max_new_tokens": 16, "stop": STOP}


@pytest.fixture(scope="module")
def engine(directory: Path) -> Iterator[VLLM]:
    with VLLM(directory, dtype="float32", memory=MEMORY, sequences=16, length=64) as made:
        yield made


@pytest.fixture(scope="module")
def server(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "64"]
    arguments += ["--enforce-eager", "--kv-cache-memory-bytes", str(2**28)]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(directory), *arguments]
    log = tmp_path_factory.mktemp("server") / "log"
    environment = {**os.environ, **ENVIRONMENT, **CPU_ENVIRONMENT}
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            while not healthy(port):
                if process.poll() is not None:
                    pytest.fail(log.read_text()[-3000:])
                time.sleep(0.5)
            with Server(f"http://127.0.0.1:{port}/v1", directory.name) as made:
                yield made
        finally:
            process.terminate()
            process.wait()


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def assert_greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], rows: list[list[int]]
) -> None:
    """Every token is the policy's best, or as good as tied with it; and responses end where they should."""
    ids = tokenizer(list(prompts))["input_ids"]
    unused = [[0.0] * len(row) for row in rows]
    assert agreement(model, ids, rows, unused, torch.device("cpu")).gap < TOLERANCE["float32"]
    for row in rows:
        assert not set(row[:-1]) & {*STOP}
        assert row[-1] in STOP or len(row) == OPTIONS["max_new_tokens"]


@pytest.mark.parametrize("backend", ["engine", "server"])
def test_greedy_responses_are_those_of_transformers(
    backend: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    request: pytest.FixtureRequest,
) -> None:
    policy: Engine = request.getfixturevalue(backend)
    rows = generate_ids(policy, tokenizer, prompts, **OPTIONS)
    assert_greedy(model, tokenizer, prompts, rows)
    assert rows == generate_ids(model, tokenizer, prompts, **OPTIONS)  # this policy has no near-ties here


@pytest.mark.parametrize("backend", ["engine", "server"])
def test_other_stop_tokens_end_a_response_and_only_those(
    backend: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    request: pytest.FixtureRequest,
) -> None:
    policy: Engine = request.getfixturevalue(backend)
    plain = generate_ids(model, tokenizer, prompts, **OPTIONS)
    often = max({token for row in plain for token in row[1:-1]}, key=lambda t: sum(t in row[:-1] for row in plain))
    for stop in ([often], [often, 2], []):
        options = OPTIONS | {"stop": stop}
        assert generate_ids(policy, tokenizer, prompts, **options) == generate_ids(model, tokenizer, prompts, **options)


@pytest.mark.parametrize("backend", ["engine", "server"])
def test_sampling_follows_its_seed_and_the_policys_probabilities(
    backend: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, request: pytest.FixtureRequest
) -> None:
    policy: Engine = request.getfixturevalue(backend)
    options: dict[str, Any] = {"max_new_tokens": 1, "stop": STOP, "samples": 400, "temperature": 1.0}
    first, again, other = (generate_ids(policy, tokenizer, ["71+95="], seed=seed, **options) for seed in (1, 1, 2))
    assert first == again != other
    with torch.no_grad():
        logits = model(**tokenizer(["71+95="], return_tensors="pt")).logits[0, -1]
    found = torch.bincount(torch.tensor(first + other).flatten(), minlength=len(logits)) / 800
    distance = (found - logits.softmax(0)).abs().sum() / 2
    expected = (logits.softmax(0).sqrt().sum() / (2 * torch.pi * 800) ** 0.5).item()  # mean of that distance by chance
    assert distance < 2 * expected


def test_what_vllm_cannot_load_is_said_in_one_line(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackendError, match="generation_backend: vllm does not start") as error:
        VLLM(tmp_path, dtype="float32", memory=MEMORY, sequences=4, length=64)
    assert "\n" not in str(error.value) and "Error" in str(error.value)


# --- TRL's GRPO, with the engine beside the trainer ---


def odd_share(*, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that a random policy earns in part: the share of odd tokens."""
    return [sum(token % 2 for token in ids) / len(ids) for ids in completion_ids]


def train(profile: Profile, parent: Path, output: Path, steps: int = 2) -> list[trl_rollouts.Agreement]:
    """A short stage; how far the engine was from the policy after each transfer."""
    found: list[trl_rollouts.Agreement] = []
    domain = profile.load_domains()["math"]
    (output / "out").mkdir(parents=True)
    (output / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        call = CheckedSync.__call__

        def noted(self: CheckedSync) -> None:
            call(self)
            found.append(self.found[-1])

        patch.setattr(CheckedSync, "__call__", noted)
        patch.setattr(training, "ended_reward", lambda domain, stop: odd_share)
        training.train_stage(
            profile,
            domain,
            parent=parent,
            weights=None,
            steps=steps,
            learning_rate=1e-3,
            seed=0,
            snapshot_every=100,
            output=output / "out",
            work=output / "work",
            label="test",
        )
    return found


@pytest.fixture(scope="module")
def rollouts() -> Profile:
    sizes = "head_dim=32 hidden_size=64 attention_heads=2 key_value_heads=1"
    return load_profile("smoke", f"{sizes} rollouts=vllm vllm_memory={MEMORY} warmup_steps=0")


def test_weights_arrive_before_every_steps_rollouts_and_training_is_repeatable(
    rollouts: Profile, directory: Path, tmp_path: Path
) -> None:
    before = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "VLLM_ENABLE_V1_MULTIPROCESSING")}
    found = train(rollouts, directory, tmp_path / "first", steps=3)
    assert len(found) == 3
    assert max(agreed.gap for agreed in found) <= 1e-4 and max(agreed.difference for agreed in found) <= 1e-4
    old, new = (load_model(path).lm_head.weight for path in (directory, tmp_path / "first" / "out"))
    assert (old - new).abs().max() > 1e-4  # the head was trained, so a stale one would have shown
    train(rollouts, directory, tmp_path / "again", steps=3)
    first, again = (sha256(tmp_path / run / "out" / "model.safetensors") for run in ("first", "again"))
    assert first == again
    assert {name: os.environ.get(name) for name in before} == before
    assert not torch.distributed.is_initialized()


def test_a_stale_head_stops_training(
    rollouts: Profile, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vLLM's own packed copy of a tied head would be: the embedding is new, the head is not."""

    def packed() -> None:
        from vllm.model_executor.layers import utils

        def dispatch(layer: torch.nn.Module, remove_weight: bool) -> None:
            kept = layer.weight.detach().clone()
            head = not remove_weight  # vLLM lets a layer's weight go where it is packed, but for the embedding's
            layer.cpu_linear = lambda x, weight, bias: torch.nn.functional.linear(x, kept if head else weight, bias)

        monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", dispatch)

    monkeypatch.setattr(trl_rollouts, "plain_linear", packed)
    with pytest.raises(BackendError, match=r"transfer 2: .* a part of its weights is stale, such as an LM head"):
        train(rollouts, directory, tmp_path / "stale", steps=4)
