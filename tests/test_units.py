"""Units of real architectures: every row and column of a layer's matrices belongs to one unit."""

import pytest
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Qwen3Config,
)

from crossdomain import units

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24, "head_dim": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
CONFIGS = {
    "qwen3": Qwen3Config(**SMALL),
    "llama": LlamaConfig(**SMALL),
    "gemma3": Gemma3TextConfig(**SMALL),
    "gpt2": GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=4),
}


@pytest.mark.parametrize("family", CONFIGS)
def test_every_matrix_of_a_layer_is_split_among_the_units_of_the_model(family: str) -> None:
    shape = units.shape(CONFIGS[family])
    model = AutoModelForCausalLM.from_config(CONFIGS[family])
    assert shape == (2, 64 if family == "gpt2" else 24, 4, 4 if family == "gpt2" else 2, 4)
    owned = dict.fromkeys(units.KINDS, 0)
    for name, parameter in model.named_parameters():
        found = units.blocks(name, tuple(parameter.shape), shape)
        if parameter.dim() == 2 and ".0." in name:
            assert found, name
        for block in found if parameter.dim() == 2 else []:
            assert block.units == getattr(shape, block.kind)
            owned[block.kind] += block.width * block.units * parameter.shape[1 - block.axis]
        if found and parameter.dim() == 2:  # the blocks of a matrix lie side by side and fill it
            assert sum(block.width * block.units for block in found) == parameter.shape[found[0].axis]
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and (".layers." in n or ".h." in n))
    assert sum(owned.values()) == matrices


def test_fused_projections_hold_heads_then_keys_then_values() -> None:
    found = units.blocks("transformer.h.1.attn.c_attn.weight", (16, 48), units.shape(CONFIGS["gpt2"]))
    assert found == [("head", 1, 0, 4, 4), ("group", 1, 16, 4, 4), ("group", 1, 32, 4, 4)]


def test_what_belongs_to_no_unit_has_none() -> None:
    shape = units.shape(CONFIGS["qwen3"])
    for name, size in {"model.embed_tokens.weight": (50, 16), "model.norm.weight": (16,),
                       "model.layers.0.self_attn.q_norm.weight": (4,)}.items():  # fmt: skip
        assert units.blocks(name, size, shape) == []


def test_a_matrix_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"q_proj.*expected 16 along axis 0"):
        units.blocks("model.layers.0.self_attn.q_proj.weight", (18, 16), units.shape(CONFIGS["qwen3"]))
