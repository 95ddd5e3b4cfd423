"""Several responses to one prompt: the prompt is read once, and its keys and values serve all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel


def positions(attention_mask: Tensor) -> Tensor:
    """Each token's position among those that are not padding, as `generate` has it; shape of the mask."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def read_prompts(model: PreTrainedModel, ids: Tensor, attention_mask: Tensor) -> Cache:
    """Keys and values of all tokens of prompts but the last one, which is left for whoever goes on from there.

    Differentiable in the model's parameters.

    Args:
        model: the policy.
        ids: prompts padded on the left, of at least two tokens; equal rows are read once, (rows, tokens).
        attention_mask: 0 at padding, of the same shape.
    """
    (distinct, mask), which = torch.stack([ids, attention_mask]).unique(dim=1, return_inverse=True)
    backbone: Any = model.base_model
    mask = mask[:, :-1]
    output = backbone(input_ids=distinct[:, :-1], attention_mask=mask, position_ids=positions(mask), use_cache=True)
    cache: Cache = output.past_key_values
    cache.batch_select_indices(which)
    return cache
