"""TRL's `GRPOTrainer`, spared work that changes nothing: for models whose every step takes seconds on a CPU.

A group of equal rewards has no advantages and adds nothing to the gradient; late in a stage that is most groups. The
completions of a group share their prompt; where prompts are longer than completions, reading it once is most of the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.grpo_trainer import GRPOTrainer

from crossdomain.shared_prompts import positions, read_prompts


class FrugalGRPOTrainer(GRPOTrainer):
    """GRPO that reads the prompt of a group once, and makes no pass over completions that have no advantage.

    The gradient is the same up to rounding: TRL divides the loss (`dapo`) by the tokens of the whole batch, left out or
    not. Only the logged entropy is then that of the rest. Not for losses with a KL term (`kl_beta`), which every
    completion is part of, and for one process.
    """

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, with_advantage(inputs))
        return loss

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        # Under an autocast around all of it, weights are rounded to bfloat16 once and not for every token.
        device, model = self.accelerator.device.type, cast(PreTrainedModel, self.model)
        with torch.autocast(device, torch.bfloat16, enabled=bool(self.args.bf16)), reading_prompts_once(model):
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,
        compute_entropy: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        """As TRL's, by a pass over the distinct prompts and one over all completions."""
        if self.args.gradient_checkpointing:  # which keeps no keys and values
            whole: tuple[Tensor, Tensor | None, None] = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, compute_entropy=compute_entropy, **kwargs
            )
            return whole
        prompt = slice(0, input_ids.shape[1] - logits_to_keep)
        completion = slice(prompt.stop - 1, -1)  # each token is predicted at the one before it
        labels = input_ids[:, prompt.stop :].masked_fill(attention_mask[:, prompt.stop :] == 0, -100)
        with self.accelerator.autocast():
            cache = read_prompts(self.accelerator.unwrap_model(model), input_ids[:, prompt], attention_mask[:, prompt])
            outputs = model(
                input_ids=input_ids[:, completion],
                attention_mask=attention_mask[:, :-1],
                position_ids=positions(attention_mask)[:, completion],
                past_key_values=cache,
                shift_labels=labels,
                fused_lm_head=True,
            )
        return outputs.log_probs, outputs.entropy if compute_entropy else None, None


@contextmanager
def reading_prompts_once(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's `generate` read equal prompts of a batch once."""
    original: Any = model.generate

    def generate(*args: Any, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Any:
        cache = read_prompts(model, input_ids, attention_mask)
        return original(*args, input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, **options)

    model.generate = generate  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.generate


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
