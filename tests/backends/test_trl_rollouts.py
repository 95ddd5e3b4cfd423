"""What TRL is told of the engine, and that a transfer of weights which did not arrive whole is noticed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain.backends import BackendError, base, trl_rollouts
from crossdomain.backends.trl_rollouts import TOLERANCE, CheckedSync, agreement
from crossdomain.generation import generate_ids
from crossdomain.profiles import Profile, load_profile

CPU = torch.device("cpu")
STOP = [2]


class FakeEngine:
    """A copy of a policy to which weights are transferred, as TRL's `VLLMGeneration` has one; but for `stale` parts.

    Its LM head is untied: what the embedding is given does not reach it by itself.
    """

    def __init__(self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stale: str | None = None) -> None:
        self.policy, self.tokenizer, self.stale = policy, tokenizer, stale
        self.model = copy.deepcopy(policy)
        self.model.lm_head = copy.deepcopy(self.model.lm_head)
        self.model.lm_head.weight = torch.nn.Parameter(policy.lm_head.weight.detach().clone())
        self.temperature, self.max_completion_length, self.transfers = 1.0, 12, 0

    def sync_weights(self) -> None:
        self.transfers += 1
        new = self.policy.state_dict()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if self.stale is None or self.stale not in name:
                    parameter.copy_(new[name])

    def generate(self, prompts: list[list[int]], images: None, num_generations: int) -> tuple[Any, ...]:
        assert (self.temperature, num_generations) == (0.0, 1)
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts]
        responses = generate_ids(
            self.model, self.tokenizer, texts, max_new_tokens=self.max_completion_length, stop=STOP
        )
        logps = [given(self.model, prompt, ids) for prompt, ids in zip(prompts, responses, strict=True)]
        return prompts, responses, [[[logp] for logp in row.tolist()] for row in logps], None


def given(model: PreTrainedModel, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probabilities of a response's tokens, one sequence without padding; shape (tokens,)."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(1).gather(1, torch.tensor(response)[:, None]).squeeze(1)


def step(policy: PreTrainedModel, rate: float) -> None:
    """Change all weights a little, as an optimizer's step does."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(rate * torch.randn(parameter.shape, generator=generator).sign())


@pytest.fixture
def ids(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(prompts)["input_ids"]
    return found


def checked(engine: FakeEngine, ids: list[list[int]]) -> CheckedSync:
    return CheckedSync(engine, engine.policy, ids, TOLERANCE["float32"], CPU)


def test_transfers_that_arrive_pass_after_every_step(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]
) -> None:
    engine = FakeEngine(model, tokenizer)
    sync, random = checked(engine, ids), torch.random.get_rng_state()
    for _ in range(3):
        sync()
        step(model, 1e-3)
    assert engine.transfers == len(sync.found) == 3
    for found in sync.found:
        assert found.tokens > 10 and found.gap == 0 and found.difference < 1e-5
    assert (engine.temperature, engine.max_completion_length) == (1.0, 12)
    assert torch.equal(torch.random.get_rng_state(), random)  # training draws what it would without the check


@pytest.mark.parametrize("stale", ["lm_head", "embed_tokens"])
def test_a_stale_part_is_noticed_after_one_small_step(
    stale: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]
) -> None:
    sync = checked(FakeEngine(model, tokenizer, stale), ids)
    sync()  # nothing is stale yet
    step(model, 1e-3)
    with pytest.raises(BackendError, match="vllm does not generate with the trained weights") as error:
        sync()
    message = str(error.value)
    assert "\n" not in message and "transfer 2" in message and "LM head" in message
    assert message.endswith("or set rollouts: transformers")


def test_a_stale_head_is_noticed_by_greedy_tokens_alone_once_it_is_old(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]
) -> None:
    engine = FakeEngine(model, tokenizer, "lm_head")
    step(model, 0.1)
    engine.sync_weights()
    engine.temperature = 0.0
    _, responses, logps, _ = engine.generate(ids, None, 1)
    plain = [[token[0] for token in row] for row in logps]
    found = agreement(model, ids, responses, plain, CPU)
    assert found.gap > 0.1


def test_agreement_is_the_gap_to_the_best_token_and_the_difference_of_log_probabilities(
    model: PreTrainedModel, ids: list[list[int]]
) -> None:
    responses = [[5, 9, 2], [7], [3, 3, 3, 3]]
    prompts = ids[:3]
    logps = [given(model, prompt, ids) for prompt, ids in zip(prompts, responses, strict=True)]
    with torch.no_grad():
        gaps = []
        for prompt, response in zip(prompts, responses, strict=True):
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
            gaps += [float(row.max() - row[token]) for row, token in zip(logits, response, strict=True)]
    logps[1][0] += 0.5
    found = agreement(model, prompts, responses, [row.tolist() for row in logps], CPU)
    assert found.tokens == 8
    assert found.gap == pytest.approx(max(gaps), abs=1e-4)
    assert found.difference == pytest.approx(0.5, abs=1e-4)


def test_trl_is_told_of_the_engine(profile: Profile, tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> None:
    def told(**changes: Any) -> dict[str, Any]:
        return trl_rollouts.arguments(profile.override(changes), tokenizer, prompts, 20, [2, 9])

    shared = {"use_vllm": True, "generation_kwargs": {"stop_token_ids": [2, 9], "ignore_eos": True}}
    assert told() == {}
    assert told(rollouts="vllm", vllm_memory=0.4) == {
        **shared,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.4,
        "vllm_max_model_length": max(map(len, prompts)) + 1 + 20,  # one token begins the sequence
    }
    url = "http://localhost:8000"
    assert told(rollouts="server", rollout_server=url) == {
        **shared,
        "vllm_mode": "server",
        "vllm_server_base_url": url,
    }


def test_without_vllm_no_engine_starts(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with trl_rollouts.engine(profile):
        pass  # transformers generates
    with (
        pytest.raises(BackendError, match="rollouts: vllm is not installed"),
        trl_rollouts.engine(profile.override({"rollouts": "vllm"})),
    ):
        pytest.fail("started")


def test_the_tolerances_are_those_of_the_arithmetic() -> None:
    assert TOLERANCE["float32"] < 0.01 < TOLERANCE["bfloat16"] < 1
    assert set(TOLERANCE) == {"float32", "bfloat16"}
    assert load_profile("smoke").rollouts == "transformers"
