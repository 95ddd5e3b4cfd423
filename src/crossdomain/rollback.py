"""Training-free rollback (C10): which coordinates of a later update to take back, and what Proposition 4 says it does.

δ is the later update, δ_I its part on a set I of coordinates; a rollback by the share λ goes from θ_A + δ to
θ_A + δ − λδ_I. A *ranking* holds indices of coordinates, the first to be taken back first: its first n are the set of
size n, so that larger sets contain smaller ones.

The paper's construction of the set is not public. Ours ranks by the diagonal Fisher's score ½F_ii δ_i², if wanted among
some coordinates only; controls rank by |δ_i| or at random; the reference looks at the Hessian itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from crossdomain.curvature import Hessian, gradient, not_finite
from crossdomain.objectives import Objective, Parameters

GROWTH = 0.5  # a greedy batch has at most this share of what is chosen already
ROUNDING = 1e-3  # of a batch's gain, within which a sum counts as zero


# --- Choosing coordinates ---


def fisher_scores(fisher: Tensor, delta: Tensor) -> Tensor:
    """½F_ii δ_i², what each coordinate gives back by the diagonal Fisher (Proposition 4).

    Args:
        fisher: diagonal of the Fisher matrix of A, shape (p,).
        delta: δ, shape (p,).

    Returns:
        Scores, in nats of divergence from the policy that the Fisher matrix belongs to; shape (p,).

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(delta, fisher, "Fisher diagonal")
    return 0.5 * fisher * delta**2


def opposing(delta: Tensor, own: Tensor) -> Tensor:
    """Where δ does not have the sign of A's own update δ_A: the opposite-sign filter; booleans, shape (p,).

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(delta, own, "own update")
    return delta.sign() != own.sign()


def ranking(scores: Tensor, allowed: Tensor | None = None, count: int | None = None) -> Tensor:
    """Coordinates by score, the highest first; of equal ones the earlier first.

    Args:
        scores: shape (p,).
        allowed: booleans, shape (p,); the others are left out.
        count: how many are wanted at most, of millions sooner found than the order of all; None: all.

    Raises:
        ValueError: a score is not finite, shapes differ, or nothing is allowed.
    """
    if bad := not_finite(scores):
        raise ValueError(f"expected finite scores, {bad} of {len(scores)} are not")
    if allowed is not None:
        _check_shapes(scores, allowed, "mask")
        if not allowed.any():
            raise ValueError("no coordinate is allowed: the filter leaves nothing to take back")
    candidates = torch.arange(len(scores)) if allowed is None else allowed.nonzero().squeeze(1)
    if count is not None and count < len(candidates):
        among = scores[candidates]
        least = among.kthvalue(len(among) - count + 1).values
        candidates = candidates[among >= least]
    return candidates[scores[candidates].argsort(descending=True, stable=True)][:count]


def random_ranking(size: int, seed: int) -> Tensor:
    """All coordinates in random order (control)."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def as_long(order: Tensor, delta: Tensor, norm: float) -> Tensor:
    """The fewest first coordinates of a ranking on which δ is at least as long as `norm`; all if it never is."""
    lengths = delta[order].double().square().cumsum(0).sqrt()
    return order[: int(torch.searchsorted(lengths, norm)) + 1]


def rolled_back(delta: Tensor, chosen: Tensor, share: float) -> Tensor:
    """What is left of δ: δ − λδ_I, shape (p,).

    Args:
        delta: δ, shape (p,).
        chosen: indices of I.
        share: λ.
    """
    left = delta.clone()
    left[chosen] *= 1 - share
    return left


# --- Proposition 4 ---


class Terms(NamedTuple):
    """What Proposition 4 needs of a set I.

    Attributes:
        linear: gᵀδ_I.
        mixed: δ_IᵀHδ.
        own: δ_IᵀHδ_I.
    """

    linear: float
    mixed: float
    own: float

    def change(self, share: float) -> float:
        """The change of the predicted damage, −λ gᵀδ_I − λ δ_IᵀHδ + ½λ² δ_IᵀHδ_I; negative: it repairs."""
        return -share * (self.linear + self.mixed) + share**2 / 2 * self.own


def fisher_terms(scores: Tensor, chosen: Tensor) -> Terms:
    """The terms with the diagonal Fisher for H and no gradient, from its scores: their change is −(λ − λ²/2) Σ_I F_ii δ_i².

    That is a divergence in nats, which no factor turns into reward.
    """
    quadratic = 2 * float(scores[chosen].double().sum())
    return Terms(0.0, quadratic, quadratic)


@dataclass(frozen=True)
class QuadraticModel:
    """The damage m(δ) = gᵀδ + ½ δᵀHδ of one update, and what taking parts of it back changes.

    Attributes:
        product: v ↦ Hv.
        gradient: g, shape (p,).
        delta: δ, shape (p,).
        curved: Hδ, shape (p,).
    """

    product: Callable[[Tensor], Tensor]
    gradient: Tensor
    delta: Tensor
    curved: Tensor

    @classmethod
    def of(cls, objective: Objective, params: Parameters, delta: Tensor) -> QuadraticModel:
        """The model of a loss at θ_A, by its exact gradient and Hessian-vector products."""
        product = Hessian(objective, params)
        return cls(product, gradient(objective, params), delta, product(delta))

    def terms(self, chosen: Tensor) -> Terms:
        """The terms of Proposition 4 for a set of coordinates, given by indices; takes one product."""
        part = torch.zeros_like(self.delta)
        part[chosen] = self.delta[chosen]
        linear, mixed, own = (
            float(part.double() @ vector.double()) for vector in (self.gradient, self.curved, self.product(part))
        )
        return Terms(linear, mixed, own)

    def greedy(self, count: int, products: int, first: int = 1) -> Tensor:
        """A ranking that lowers m(δ − δ_I) greedily, a batch of coordinates at a time.

        With v = δ − δ_I left, coordinate i gives back δ_i (g + Hv)_i − ½H_ii δ_i². The first term is exact for every batch,
        since Hv is taken anew; what the coordinates of a batch do together is not in it. So a batch has at most `GROWTH` of
        what is chosen already, and is halved until it does not go past the least m on the way from v to v − δ_batch; one
        coordinate alone may, if it lowers m. Where none does any more, or the products are spent, those follow that
        change m least.

        Nothing makes this the best set: a step that is best by itself may be wrong for the next.

        Args:
            count: coordinates wanted.
            products: Hessian-vector products at most.
            first: coordinates of the first batch, before it is halved if need be.

        Raises:
            ValueError: the count is not between 1 and p.
        """
        if not 1 <= count <= len(self.delta):
            raise ValueError(f"count = {count}: expected 1 to {len(self.delta)} coordinates")
        left, gain = self.delta.clone(), self.delta * (self.gradient + self.curved)
        wanted, chosen, size = torch.ones(len(left), dtype=torch.bool), torch.empty(0, dtype=torch.long), first
        for _ in range(products):
            best = gain.masked_fill(~wanted, 0).topk(min(size, count - len(chosen)))
            batch = best.indices[best.values > 0]
            if len(batch) == 0:
                break
            trial = left.clone()
            trial[batch] = 0
            after = self.delta * (self.gradient + self.product(trial))
            # Along the way δ_batchᵀ∇m falls linearly, from `now` to `then`: m falls by half their sum.
            now, then = float(gain[batch].sum()), float(after[batch].sum())
            if then >= -(ROUNDING if len(batch) > 1 else 1) * now:
                left, gain, chosen = trial, after, torch.cat([chosen, batch])
                wanted[batch] = False
                size = max(1, min(2 * len(batch), int(GROWTH * len(chosen))))
            elif len(batch) == 1:
                wanted[batch] = False
            else:
                size = len(batch) // 2
        unchosen = torch.ones_like(wanted)
        unchosen[chosen] = False
        return (
            torch.cat([chosen, ranking(-gain.abs(), unchosen, count - len(chosen))]) if len(chosen) < count else chosen
        )


def _check_shapes(delta: Tensor, other: Tensor, what: str) -> None:
    if delta.shape != other.shape:
        raise ValueError(f"{what}: expected shape {tuple(delta.shape)} as the update has, got {tuple(other.shape)}")
