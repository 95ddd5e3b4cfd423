"""A tiny model with random weights of every supported family."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig, PretrainedConfig, Qwen3Config

VOCABULARY = 40
_SHAPE = {
    **{"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "bos_token_id": 1, "eos_token_id": 2},
    **{"pad_token_id": 0, "max_position_embeddings": 64},
}

CONFIGS: dict[str, PretrainedConfig] = {
    "qwen3": Qwen3Config(**_SHAPE, tie_word_embeddings=True),
    "llama": LlamaConfig(**_SHAPE, tie_word_embeddings=False),
    "gemma3": Gemma3TextConfig(
        **_SHAPE,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        sliding_window=4,
        final_logit_softcapping=3.0,
        query_pre_attn_scalar=4,
    ),
    "gpt2": GPT2Config(
        **{"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 64},
        **{
            "bos_token_id": 1,
            "eos_token_id": 2,
        },  # a padding token would be looked for in the inputs, which vmap forbids
    ),
}


class Held:
    """Tensors in memory as a `Vector`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    @property
    def names(self) -> list[str]:
        return sorted(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return self.tensors[name][start:stop]


def model(family: str, dtype: torch.dtype = torch.float64):
    """Random weights, large enough for predictions that depend on the prompt; eager attention, no dropout."""
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation="eager").to(dtype).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made
