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
from crossdomain.curvature import ParameterSpace, gradient
from crossdomain.domains import Domain
from crossdomain.profiles import Profile
from crossdomain.progress import Progress
from crossdomain.rollouts import Rollouts, sample_rollouts


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    domains: Mapping[str, Domain],
    directory: Path,
    *,
    seed: int,
) -> dict[str, dict[str, Path]]:
    """GRPO gradients of domains on training prompts, each in `gradient_splits` parts of different prompts, on disk.

    Args:
        model: the policy, with eager attention.
        tokenizer: its tokenizer.
        profile: how many prompts, parts and rollouts a prompt.
        domains: by name.
        directory: gets a safetensors file a part; a domain whose mean is there is not computed again.
        seed: of the sampling.

    Returns:
        The files: `parts` by label (`conflict.label`), and `means` of the parts by domain.

    Raises:
        ValueError: a domain has fewer training prompts than the profile asks for.
    """
    items = {name: domain.items("train")[: profile.gradient_prompts] for name, domain in domains.items()}
    if short := {name: len(found) for name, found in items.items() if len(found) < profile.gradient_prompts}:
        few = ", ".join(f"{name} has only {count}" for name, count in short.items())
        raise ValueError(f"gradient_prompts={profile.gradient_prompts}: {few} training prompts; ask for fewer")
    size = profile.gradient_prompts // profile.gradient_splits
    parts = {
        name: [directory / f"{name}-{part}.safetensors" for part in range(profile.gradient_splits)] for name in domains
    }
    means = {name: directory / f"{name}.safetensors" for name in domains}
    with Progress("gradients", len(domains)) as progress:
        for done, (name, domain) in enumerate(domains.items(), start=1):
            if not means[name].is_file():
                sampled = sample_rollouts(
                    model,
                    tokenizer,
                    profile,
                    domain,
                    items[name],
                    split="train",
                    samples=profile.generations,
                    seed=seed,
                )
                rollouts = [sampled.part(start, start + size) for start in range(0, profile.gradient_prompts, size)]
                _save_gradients(model, rollouts, parts[name], means[name], profile.evaluation_batch)
            progress.to(done)
    labelled = {label(name, k): file for name, files in parts.items() for k, file in enumerate(files)}
    return {"parts": labelled, "means": means}


def _save_gradients(
    model: PreTrainedModel, rollouts: list[Rollouts], files: list[Path], mean: Path, batch_size: int
) -> None:
    params = objectives.parameters(model)
    space = ParameterSpace(params)
    total = torch.zeros(space.size, dtype=torch.float64)
    for part, file in zip(rollouts, files, strict=True):
        found = gradient(objectives.grpo(model, part, batch_size=batch_size), params)
        total += found.double()
        _write(space, found, file)
    draft = mean.with_suffix(".draft")  # the mean comes last and whole: its domain is done
    _write(space, (total / len(rollouts)).float(), draft)
    draft.replace(mean)


def _write(space: ParameterSpace, vector: Tensor, file: Path) -> None:
    save_file({name: part.clone() for name, part in space.unflatten(vector).items()}, file)
