"""Gradients of the GRPO objective of several domains at one checkpoint (C3), in parts, so that their noise is known.

Departure from training: no clipping of the gradient, no optimizer; a part's gradient is that of one GRPO step on its
prompts, before Adam sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain import objectives
from crossdomain.conflict import label
from crossdomain.domains import Domain
from crossdomain.objectives import Microbatch, Objective
from crossdomain.profiles import Profile
from crossdomain.progress import Progress
from crossdomain.rollouts import Rollouts, sample_rollouts

ADVANTAGE_EPSILON = 1e-4  # added to the group's standard deviation, as TRL does


def grpo(model: PreTrainedModel, rollouts: Rollouts, *, batch_size: int = 256) -> Objective:
    """GRPO's loss at the policy that sampled: L = −Σ_i A_i Σ_t ρ_it / tokens, ρ_it the ratio to the sampling policy.

    A_i is the reward minus the mean over the prompt's rollouts, over their standard deviation (`scale_rewards="group"`);
    the sum over all tokens is divided by their number (`loss_type="dapo"`). The ratios are 1 and are not clipped: only the
    gradient means anything [Shao et al. 2024, arXiv 2402.03300].

    Args:
        model: the policy that sampled the rollouts, with eager attention.
        rollouts: at least two a prompt.
        batch_size: rows of a microbatch.

    Raises:
        ValueError: one rollout a prompt: there is no group to compare with.
    """
    samples = rollouts.rewards.shape[1]
    if samples < 2:
        raise ValueError(f"{rollouts.data}: a group needs at least 2 rollouts a prompt; sample more")
    rewards = rollouts.rewards
    scale = rewards.std(1, keepdim=True) + ADVANTAGE_EPSILON
    advantage = ((rewards - rewards.mean(1, keepdim=True)) / scale).flatten().to(model.device, model.dtype)
    per_token = advantage * (len(advantage) / sum(map(len, rollouts.responses)))

    def losses(logits: Tensor, batch: Microbatch) -> Tensor:
        logp = objectives._of_targets(logits.log_softmax(-1), batch)
        ratio = (logp - logp.detach()).exp().masked_fill(~batch["mask"], 0)
        return -batch["advantage"] * ratio.sum(1)

    batches = objectives._rollout_batches(model, rollouts, batch_size, advantage=per_token)
    return Objective("GRPO loss", rollouts.data, batches, objectives._logits(model), losses, samples)


def gradient(objective: Objective, params: objectives.Parameters) -> dict[str, Tensor]:
    """The gradient of an objective by parameter, detached; microbatch by microbatch."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    total = {name: torch.zeros_like(value) for name, value in leaves.items()}
    for batch in objective.microbatches:
        found = torch.autograd.grad(objective.loss(leaves, batch), list(leaves.values()))
        for value, part in zip(total.values(), found, strict=True):
            value += part
    return total


def save_parts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    domains: Mapping[str, Domain],
    directory: Path,
    *,
    seed: int,
) -> dict[str, Path]:
    """GRPO gradients of domains on training prompts, each in `gradient_splits` parts of different prompts, on disk.

    Args:
        model: the policy, with eager attention.
        tokenizer: its tokenizer.
        profile: how many prompts, parts and rollouts a prompt.
        domains: by name.
        directory: gets a safetensors file a part; parts that are there are not computed again.
        seed: of the sampling.

    Returns:
        The files by label (`conflict.label`).

    Raises:
        ValueError: a domain has fewer training prompts than the profile asks for.
    """
    params = objectives.parameters(model)
    size = profile.gradient_prompts // profile.gradient_splits
    files: dict[str, Path] = {}
    with Progress("gradients", len(domains) * profile.gradient_splits) as progress:
        for name, domain in domains.items():
            items = domain.items("train")[: profile.gradient_prompts]
            if len(items) < profile.gradient_prompts:
                raise ValueError(
                    f"gradient_prompts={profile.gradient_prompts}: {name} has only {len(items)} training prompts; ask for "
                    "fewer"
                )
            for part in range(profile.gradient_splits):
                file = directory / f"{name}-{part}.safetensors"
                if not file.is_file():
                    chosen = items[part * size : (part + 1) * size]
                    rollouts = sample_rollouts(
                        model, tokenizer, profile, domain, chosen,
                        split="train", samples=profile.generations, seed=1000 * seed + part,
                    )  # fmt: skip
                    found = gradient(grpo(model, rollouts, batch_size=profile.evaluation_batch), params)
                    draft = file.with_suffix(".draft")
                    save_file(found, draft)
                    draft.replace(file)
                files[label(name, part)] = file
                progress.to(len(files))
    return files
