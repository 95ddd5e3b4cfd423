"""TRL's `GRPOTrainer`, spared work that changes nothing: for models whose every step takes seconds on a CPU.

A group of equal rewards has no advantages and adds nothing to the gradient; late in a stage that is most groups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer


class FrugalGRPOTrainer(GRPOTrainer):
    """GRPO without the forward and backward pass of completions that have no advantage.

    The gradient is the same up to rounding: TRL divides the loss (`dapo`) by the tokens of the whole batch, left out or
    not. Only the logged entropy is then that of the rest. Not for losses with a KL term (`kl_beta`), which every
    completion is part of.
    """

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, with_advantage(inputs))
        return loss

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        # Under an autocast around all of it, weights are rounded to bfloat16 once and not for every token.
        device = self.accelerator.device.type
        with torch.autocast(device, torch.bfloat16, enabled=bool(self.args.bf16)):
            return super()._generate_single_turn(*args, **kwargs)


def with_advantage(inputs: dict[str, Any]) -> dict[str, Any]:
    """The rows of a batch whose advantage is not zero, or one of them if there is none.

    Args:
        inputs: what TRL hands its loss: tensors with a row a completion, shape (rows, ...), beside values of the whole
            batch.
    """
    advantages: Tensor = inputs["advantages"]
    kept = advantages != 0
    if not kept.any():
        kept[0] = True
    rows = len(advantages)
    return {
        name: value[kept] if isinstance(value, Tensor) and value.ndim and len(value) == rows else value
        for name, value in inputs.items()
    }
