"""Merging policies that were trained apart from one base: what to add to the base, from their updates alone.

τ_i = θ_i − θ_base is the update (the *task vector*) of policy i; the merged policy is θ_base + λτ. Nothing is trained.

task_arithmetic   τ = Σ τ_i (Ilharco et al. 2023, arXiv 2212.04089)
ties              of every τ_i its largest entries, a sign elected for every coordinate, τ the mean of those that have it
                  (Yadav et al. 2023, arXiv 2306.01708)
dare              τ = Σ of the τ_i with random entries dropped and the others scaled up (Yu et al. 2024, arXiv 2311.03099)

Vectors are whole policies, shape (p,): "the largest entries" are those of all parameters together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def task_arithmetic(updates: Sequence[Tensor]) -> Tensor:
    """The sum of updates.

    Args:
        updates: τ_i, each of shape (p,).

    Raises:
        ValueError: there is none, or their shapes differ.
    """
    _check(updates)
    return torch.stack(list(updates)).sum(0)


def ties(updates: Sequence[Tensor], density: float) -> Tensor:
    """Trim, elect signs, and average what agrees; 0 where nothing is left or the trimmed entries cancel.

    Args:
        updates: τ_i, each of shape (p,).
        density: share of each update's entries that is kept, the largest ones.

    Raises:
        ValueError: there is no update, shapes differ, or the density is not in (0, 1].
    """
    _check(updates, density)
    kept = torch.stack([_trimmed(update, density) for update in updates])  # (policies, p)
    agreeing = (kept.sign() == kept.sum(0).sign()) & (kept != 0)
    return torch.where(agreeing, kept, 0).sum(0) / agreeing.sum(0).clamp(min=1)


def dare(updates: Sequence[Tensor], density: float, seed: int) -> Tensor:
    """The sum of updates with entries dropped at random and the others divided by the density: unbiased for the whole sum.

    Args:
        updates: τ_i, each of shape (p,).
        density: chance of an entry to be kept.
        seed: of what is dropped.

    Raises:
        ValueError: there is no update, shapes differ, or the density is not in (0, 1].
    """
    _check(updates, density)
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [update * (torch.rand(update.shape, generator=generator) < density) / density for update in updates]
    ).sum(0)


def _trimmed(update: Tensor, density: float) -> Tensor:
    largest = update.abs().topk(max(1, round(density * len(update)))).indices
    kept = torch.zeros_like(update)
    kept[largest] = update[largest]
    return kept


def _check(updates: Sequence[Tensor], density: float = 1.0) -> None:
    shapes = {tuple(update.shape) for update in updates}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"expected one or more updates of one shape (p,), got {sorted(shapes) or 'none'}")
    if not 0 < density <= 1:
        raise ValueError(f"density = {density}: expected a share in (0, 1]")
