"""Losses of responses as functions of their logits, which is all that is needed where the network is run piece by piece.

Logits are of a microbatch of `rollouts.microbatches`, (rows, position, vocabulary); a loss has shape (rows,).
"""

from __future__ import annotations

from torch import Tensor

from crossdomain.layerwise import Batch


def own_divergence(logits: Tensor, batch: Batch) -> Tensor:
    """KL of each response from the very policy that the logits are of, (rows,): 0, its gradient too, its Hessian Fisher."""
    return divergence(logits.detach(), logits, batch)


def divergence(expected: Tensor, logits: Tensor, batch: Batch) -> Tensor:
    """KL(expected ‖ logits) of each response: the sum over its tokens, each over the whole vocabulary, (rows,)."""
    first, second = expected.log_softmax(-1), logits.log_softmax(-1)
    return (first.exp() * (first - second)).sum(-1).masked_fill(~batch["mask"], 0).sum(1)


def negative_log_likelihood(logits: Tensor, batch: Batch) -> Tensor:
    """−log π(y|x) of each response, (rows,): its gradients are minus the scores that make the Fisher matrix."""
    tokens = logits.log_softmax(-1).gather(2, batch["targets"][..., None]).squeeze(2)
    return -tokens.masked_fill(~batch["mask"], 0).sum(1)
