"""Places of parameters, by the names that real models and their checkpoints have."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from crossdomain.anatomy import MODULES, Place, neuron_axis, place
from crossdomain.weights import Weights

LAYERS, NEURONS = 3, 24
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": NEURONS,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
GATED = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def gpt2_config() -> GPT2Config:
    return GPT2Config(
        vocab_size=40,
        n_embd=16,
        n_layer=LAYERS,
        n_head=2,
        n_positions=8,
        n_inner=NEURONS,
        bos_token_id=0,
        eos_token_id=0,
    )


def multimodal() -> PreTrainedModel:
    vision = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=Gemma3TextConfig(**SIZES), vision_config=vision, mm_tokens_per_image=4)
    )


MODELS = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=True)),
    "qwen3, untied": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, attention_bias=True)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, mlp_bias=True)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SIZES)),
    "gemma3, multimodal": multimodal,
    "gpt2": lambda: GPT2LMHeadModel(gpt2_config()),
    "gpt2, without a prefix": lambda: GPT2Model(gpt2_config()),
}


def shapes_of(model: PreTrainedModel, source: str, directory: Path) -> dict[str, tuple[int, ...]]:
    if source == "state_dict":
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.save_pretrained(directory)
    weights = Weights(directory)
    return {name: weights.shape(name) for name in weights.names}


@pytest.mark.parametrize("source", ["state_dict", "checkpoint"])
@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_of_a_real_model_has_its_place(kind: str, source: str, tmp_path: Path) -> None:
    model = MODELS[kind]()
    shapes = shapes_of(model, source, tmp_path)
    places = {name: place(name) for name in shapes}
    text = {name: where for name, where in places.items() if not re.search("vision|projector", name)}
    assert not [name for name, where in text.items() if where.module == "other"]
    assert all(where.block == MODULES[where.module] for where in places.values())

    matrices = Counter(
        (w.layer, w.module) for name, w in text.items() if w.layer is not None and len(shapes[name]) == 2
    )
    inside = {"qkv_proj", "o_proj", "up_proj", "down_proj"} if "gpt2" in kind else GATED
    assert matrices == {(layer, module): 1 for layer in range(LAYERS) for module in inside}

    outside = {where.module for where in text.values() if where.layer is None}
    heads = {"lm_head"} if any(name.endswith("lm_head.weight") for name in shapes) else set()
    assert outside == {"embedding", "norm"} | heads


@pytest.mark.parametrize("source", ["state_dict", "checkpoint"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_axis_of_neurons_has_as_many_entries_as_there_are_neurons(kind: str, source: str, tmp_path: Path) -> None:
    shapes = shapes_of(MODELS[kind](), source, tmp_path)
    axes = {name: axis for name in shapes if (axis := neuron_axis(name)) is not None}
    assert {shapes[name][axis] for name, axis in axes.items()} == {NEURONS}
    assert len(axes) == LAYERS * (2 if "gpt2" in kind else 3)
    assert all(place(name).block == "mlp" for name in axes)


def test_the_axis_of_neurons_is_the_one_whose_units_the_layer_computes() -> None:
    model = GPT2Model(gpt2_config())
    mlp = model.h[0].mlp
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with torch.no_grad():  # cut one neuron off: its output becomes 0 for any input
        mlp.c_fc.weight.select(neuron_axis(names[id(mlp.c_fc.weight)]), 5).zero_()
    hidden = mlp.c_fc(torch.randn(2, 4, 16))
    assert (hidden[..., 5] == 0).all()
    assert (hidden[..., 6] != 0).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.12.self_attn.q_norm.weight", Place(12, "norm", "norm")),
        ("model.layers.0.self_attn.k_norm.weight", Place(0, "norm", "norm")),
        ("model.layers.3.pre_feedforward_layernorm.weight", Place(3, "norm", "norm")),
        ("model.layers.7.self_attn.q_proj.bias", Place(7, "q_proj", "attention")),
        ("model.language_model.layers.5.mlp.gate_proj.weight", Place(5, "gate_proj", "mlp")),
        ("language_model.model.layers.5.mlp.down_proj.weight", Place(5, "down_proj", "mlp")),
        ("model.vision_tower.vision_model.encoder.layers.4.self_attn.q_proj.weight", Place(None, "other", "other")),
        ("vision_tower.post_layernorm.weight", Place(None, "other", "other")),
        ("model.multi_modal_projector.mm_soft_emb_norm.weight", Place(None, "other", "other")),
        ("h.11.attn.c_proj.weight", Place(11, "o_proj", "attention")),
        ("transformer.h.11.mlp.c_proj.bias", Place(11, "down_proj", "mlp")),
        ("transformer.h.0.ln_2.bias", Place(0, "norm", "norm")),
        ("transformer.wpe.weight", Place(None, "embedding", "embedding")),
        ("ln_f.weight", Place(None, "norm", "norm")),
        ("model.norm.weight", Place(None, "norm", "norm")),
        ("lm_head.weight", Place(None, "lm_head", "embedding")),
        ("model.layers.2.mlp.experts.gate_up_proj", Place(2, "other", "other")),
        ("w", Place(None, "other", "other")),
    ],
)
def test_names_are_read(name: str, expected: Place) -> None:
    assert place(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.gate_proj.bias",
        "transformer.h.0.mlp.c_fc.bias",
        "transformer.h.0.mlp.c_proj.bias",
        "transformer.h.0.attn.c_proj.weight",
        "model.layers.0.mlp.experts.3.gate_proj.weight",
        "vision_tower.encoder.layers.0.mlp.up_proj.weight",
    ],
)
def test_what_holds_no_neurons_has_no_axis_of_them(name: str) -> None:
    assert neuron_axis(name) is None
