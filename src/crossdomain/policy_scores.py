"""Scores of policies that are not checkpoints but parameters at hand, as after a part of an update was taken back."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from crossdomain import generation, rollouts
from crossdomain.evaluation import SAMPLING_SEED
from crossdomain.lineage import Lineage
from crossdomain.models import arithmetic, stop_token_ids
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
        self._model, self._tokenizer = checkpoint.model(), checkpoint.tokenizer()

    def expected(self, params: Parameters, domain: str) -> Tensor:
        """Expected reward at temperature 1 of each prompt, in points, float64; shape (prompts,).

        Exact where one answer is right; else the mean of `samples` responses, sampled with the same seed for all policies
        so that their differences are less noisy.
        """
        self._load(params)
        profile, made = self.lineage.profile, self.lineage.domains[domain]
        items = made.items("test")[: profile.curve_prompts]
        with self._arithmetic():
            if made.answer(items[0]) is not None:
                with torch.inference_mode():
                    return 100 * generation.expected_reward(self._model, self._tokenizer, profile, made, items).double()
            sampled = rollouts.sample_rollouts(
                self._model,
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
        self._load(params)
        profile, made = self.lineage.profile, self.lineage.domains[domain]
        items = made.items("test")[: profile.curve_prompts]
        with self._arithmetic():
            responses = generation.generate(
                self._model,
                self._tokenizer,
                [profile.prompt(item.prompt, item.prefill) for item in items],
                max_new_tokens=made.max_new_tokens,
                stop=stop_token_ids(self._tokenizer, made.stop),
                batch_size=profile.evaluation_batch,
            )
        rewards = generation.rewards(made, [response for (response,) in responses], [item.target for item in items])
        return 100 * torch.tensor(rewards, dtype=torch.float64)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        return arithmetic(self.lineage.profile.precision, self._model.device.type)

    def _load(self, params: Parameters) -> None:
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(params[name])
