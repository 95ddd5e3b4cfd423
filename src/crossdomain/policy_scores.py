"""Scores of policies that are not checkpoints but parameters at hand, as after a part of an update was taken back."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from crossdomain import generation, rollouts
from crossdomain.evaluation import SAMPLING_SEED
from crossdomain.lineage import Lineage
from crossdomain.models import arithmetic, sampling_attention, sampling_dtype, stop_token_ids
from crossdomain.objectives import Parameters


class PolicyScores:
    """Scores policies of one architecture on the first `curve_prompts` test prompts of a lineage's domains.

    Args:
        lineage: its domains and profile.
        name: of a checkpoint that gives architecture and tokenizer.
    """

    def __init__(self, lineage: Lineage, name: str) -> None:
        self.lineage = lineage
        checkpoint = lineage.checkpoint(name)
        self._tokenizer, self._exact = checkpoint.tokenizer(), checkpoint.model()
        precision = lineage.profile.precision
        dtype, attention = sampling_dtype(precision), sampling_attention(precision)
        self._sampling = self._exact if dtype == torch.float32 else checkpoint.model(dtype=dtype, **attention)

    def expected(self, params: Parameters, domain: str) -> Tensor:
        """Expected reward at temperature 1 of each prompt, in points, float64; shape (prompts,).

        Exact where one answer is right; else the mean of `samples` responses, sampled with the same seed for all policies
        so that their differences are less noisy.
        """
        profile, made = self.lineage.profile, self.lineage.domains[domain]
        items = made.items("test")[: profile.curve_prompts]
        if made.answer(items[0]) is not None:
            model = _loaded(self._exact, params)
            with torch.inference_mode(), arithmetic(profile.precision, model.device.type):
                return 100 * generation.expected_reward(model, self._tokenizer, profile, made, items).double()
        sampled = rollouts.sample_rollouts(
            _loaded(self._sampling, params),
            self._tokenizer,
            profile,
            made,
            items,
            split="test",
            samples=profile.samples,
            seed=SAMPLING_SEED,
        )
        return 100 * sampled.rewards.double().mean(1)

    def greedy(self, params: Parameters, domain: str) -> Tensor:
        """Reward of the greedy response to each prompt, in points, float64; shape (prompts,)."""
        profile, made = self.lineage.profile, self.lineage.domains[domain]
        items = made.items("test")[: profile.curve_prompts]
        responses = generation.generate(
            _loaded(self._sampling, params),
            self._tokenizer,
            [profile.prompt(item.prompt, item.prefill) for item in items],
            max_new_tokens=made.max_new_tokens,
            stop=stop_token_ids(self._tokenizer, made.stop),
            batch_size=profile.evaluation_batch,
        )
        rewards = generation.rewards(made, [response for (response,) in responses], [item.target for item in items])
        return 100 * torch.tensor(rewards, dtype=torch.float64)


def _loaded(model: PreTrainedModel, params: Parameters) -> PreTrainedModel:
    """The model with these parameters."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(params[name])
    return model
