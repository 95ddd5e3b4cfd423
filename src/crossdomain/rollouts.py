"""Responses that a policy samples, kept as the tokens it chose, with their rewards.

`generation.generate` gives texts; a response's text may be spelled by other tokens than those that were sampled, and it is
these whose probability is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain.domains import Domain, Item
from crossdomain.generation import Response, generate_ids, rewards
from crossdomain.models import stop_token_ids
from crossdomain.profiles import Profile


@dataclass(frozen=True)
class Rollouts:
    """Responses that a policy sampled at temperature 1.

    Attributes:
        domain: its title.
        split: where the prompts come from.
        prompts: token ids of each prompt.
        responses: token ids of each response with the token that ended it, if any; those of a prompt are consecutive.
        rewards: of the responses, 0 for one that was cut off; shape (prompts, samples).
    """

    domain: str
    split: str
    prompts: Sequence[list[int]]
    responses: Sequence[list[int]]
    rewards: Tensor

    def part(self, start: int, stop: int) -> Rollouts:
        """The rollouts of some consecutive prompts, numbered from 0."""
        return self.of(range(start, stop))

    def of(self, prompts: Sequence[int]) -> Rollouts:
        """The rollouts of the prompts at these indices."""
        samples = self.rewards.shape[1]
        responses = [self.responses[i * samples + j] for i in prompts for j in range(samples)]
        return replace(
            self, prompts=[self.prompts[i] for i in prompts], responses=responses, rewards=self.rewards[list(prompts)]
        )

    @property
    def data(self) -> str:
        """Domain, prompts and samples in words."""
        prompts, samples = self.rewards.shape
        return f"{self.domain} on {prompts} {self.split} prompts with {samples} rollouts each"


def sample_rollouts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    domain: Domain,
    items: Sequence[Item],
    *,
    split: str,
    samples: int,
    seed: int,
) -> Rollouts:
    """Responses of the policy to items, sampled at temperature 1, with their rewards.

    Args:
        model: the policy.
        tokenizer: its tokenizer, padding on the left.
        profile: the prompt template, and how many sequences to sample at a time.
        domain: rewards the responses.
        items: the prompts.
        split: where they come from, for descriptions.
        samples: responses a prompt.
        seed: of the sampling; the global random state is left as it was.

    Raises:
        ValueError: there are no items.
    """
    if not items:
        raise ValueError(f"{domain.title}, {split}: no prompts to sample responses to")
    stop = stop_token_ids(tokenizer, domain.stop)
    texts = [profile.prompt(item.prompt, item.prefill) for item in items]
    responses = generate_ids(
        model,
        tokenizer,
        texts,
        max_new_tokens=domain.max_new_tokens,
        stop=stop,
        samples=samples,
        temperature=1.0,
        batch_size=profile.evaluation_batch,
        seed=seed,
    )
    decoded = tokenizer.batch_decode(responses, skip_special_tokens=True)
    targets = [item.target for item in items for _ in range(samples)]
    ended = [Response(text, ids[-1] in stop) for text, ids in zip(decoded, responses, strict=True)]
    found = rewards(domain, ended, targets)
    return Rollouts(
        domain.title, split, tokenizer(texts)["input_ids"], responses, torch.tensor(found).view(-1, samples)
    )


def microbatches(
    prompts: Sequence[list[int]], responses: Sequence[list[int]], size: int, device: torch.device, **columns: Tensor
) -> list[dict[str, Tensor]]:
    """Sequences padded on the right: `ids` (rows, width); `targets` and `mask` of the last positions, (rows, position).

    A position's target is the token that follows it; the mask keeps the targets that belong to the response.
    """
    batches = []
    for start in range(0, len(prompts), size):
        rows = slice(start, start + size)
        pairs = list(zip(prompts[rows], responses[rows], strict=True))
        first = min(len(prompt) for prompt, _ in pairs) - 1
        width = max(len(prompt) + len(response) for prompt, response in pairs) - 1
        ids = torch.zeros(len(pairs), width + 1, dtype=torch.long)
        mask = torch.zeros(len(pairs), width + 1, dtype=torch.bool)
        for row, (prompt, response) in enumerate(pairs):
            end = len(prompt) + len(response)
            ids[row, :end] = torch.tensor(prompt + response)
            mask[row, len(prompt) : end] = True
        batch = {"ids": ids[:, :-1], "targets": ids[:, first + 1 :], "mask": mask[:, first + 1 :]}
        batches.append(
            {name: tensor.to(device) for name, tensor in batch.items()}
            | {name: column[rows] for name, column in columns.items()}
        )
    return batches
