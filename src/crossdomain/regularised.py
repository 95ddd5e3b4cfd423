"""Training a later domain so that earlier ones keep what they have: changes of every step's gradient.

elastic_penalty   EWC: adds the gradient of (λ/2) Σ_D Σ_i F_D,ii (θ_i − θ_D,i)², with θ_D the policy after the earlier
                  domain D and F_D its Fisher matrix there, of which the diagonal is kept (Kirkpatrick et al. 2017)
projection        GEM: replaces the gradient by the nearest one that, to first order, raises the loss of no earlier domain
                  (Lopez-Paz and Ranzato 2017, arXiv 1706.08840), with TorchJD's `DualProj` (arXiv 2406.16232)

Both act on the gradient as the optimizer gets it, after clipping. Adam then scales it by coordinate, so that GEM's
guarantee is of the gradient, not of the step. Neither keeps a state: what they do depends on the parameters of the step
alone, so that a resumed stage takes the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torchjd.aggregation import DualProj
from torchjd.linalg import DualConeProjector, PSDMatrix
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from crossdomain import curvature
from crossdomain.curvature import ParameterSpace
from crossdomain.objectives import Objective, Parameters

Change = Callable[[Tensor, Parameters], Tensor]  # (gradient (p,), parameters) -> gradient (p,)


class Anchor(NamedTuple):
    """What EWC keeps of an earlier domain.

    Attributes:
        fisher: diagonal of the Fisher matrix, shape (p,).
        params: the policy after that domain, shape (p,).
    """

    fisher: Tensor
    params: Tensor


class GradientCallback(TrainerCallback):
    """Changes the gradient of every optimizer step.

    Args:
        change: the new gradient from the trainer's and the parameters.
    """

    def __init__(self, change: Change) -> None:
        self.change = change

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> None:
        """Called by the trainer between clipping and the optimizer."""
        named = {} if model is None else dict(model.named_parameters())
        gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
        if len(gradients) < len(named) or not named:
            raise ValueError(
                f"{len(gradients)} of {len(named)} parameters have a gradient: expected all, train the whole policy"
            )
        space = ParameterSpace(named)
        with torch.no_grad():
            params = {name: parameter.detach().float() for name, parameter in named.items()}
        found = space.unflatten(self.change(space.flatten(gradients).float(), params))
        for name, gradient in gradients.items():
            gradient.copy_(found[name])


def elastic_penalty(anchors: Sequence[Anchor], strength: float) -> Change:
    """EWC: the gradient plus λ Σ_D F_D (θ − θ_D).

    Args:
        anchors: one an earlier domain.
        strength: λ.
    """

    def change(gradient: Tensor, params: Parameters) -> Tensor:
        theta = ParameterSpace(params).flatten(params)
        pulls = [anchor.fisher.to(theta) * (theta - anchor.params.to(theta)) for anchor in anchors]
        return gradient + strength * torch.stack(pulls).sum(0)

    return change


def projection(losses: Sequence[Objective]) -> Change:
    """GEM: the gradient projected so that a step against it raises none of the losses, to first order.

    Args:
        losses: of the earlier domains, on what is kept of their data.
    """

    def change(gradient: Tensor, params: Parameters) -> Tensor:
        return projected(gradient, [curvature.gradient(loss, params) for loss in losses])

    return change


def projected(gradient: Tensor, protected: Sequence[Tensor]) -> Tensor:
    """The nearest vector to a gradient whose inner product with every protected gradient is not negative.

    Args:
        gradient: shape (p,).
        protected: gradients of the losses that must not rise, each of shape (p,).

    Returns:
        Shape (p,); the gradient itself where nothing conflicts.
    """
    rows = torch.stack([gradient, *protected])
    preference = rows.new_zeros(len(rows))
    preference[0] = 1
    projector = DualProj(pref_vector=preference, projector=NonNegativeLeastSquares())
    found: Tensor = projector(rows)
    return found


class NonNegativeLeastSquares(DualConeProjector):
    """The dual-cone projection, min vᵀGv over v ≥ u, as non-negative least squares in x = v − u.

    TorchJD's own projector needs quadprog, whose licence is the GPL, and adds 1e-4 to the diagonal of a normalised G: what
    it returns may still conflict a little. Here G = AᵀA from its eigenvectors, and ‖A(u + x)‖ is least over x ≥ 0.
    """

    def __call__(self, U: Tensor, G: PSDMatrix) -> Tensor:
        """Weights of the projection, of the shape of U.

        Args:
            U: weights of the vectors to project, shape (..., m).
            G: Gramian of the rows, shape (m, m).
        """
        gramian = np.asarray(G.detach().cpu(), dtype=np.float64)
        scale = np.sqrt(np.diagonal(gramian))  # rows of length 1: gradients' sizes differ by orders of magnitude
        safe = np.where(scale > 0, scale, 1)
        values, vectors = np.linalg.eigh(gramian / np.outer(safe, safe))
        root = np.sqrt(values.clip(min=0))[:, None] * vectors.T
        weights = np.asarray(U.detach().cpu(), dtype=np.float64).reshape(-1, len(gramian)) * safe
        found = np.stack([u + nnls(root, -root @ u)[0] for u in weights]) / safe
        return torch.as_tensor(found, dtype=U.dtype, device=U.device).reshape(U.shape)
