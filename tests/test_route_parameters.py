"""Coordinates of a route against closed-form counts, automatic differentiation and the output projections' algebra."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from crossdomain.route_parameters import route_mask

HIDDEN, NEURONS, HEADS, PAIRS, WIDTH = 16, 10, 4, 2, 6
SIZES = {
    "vocab_size": 20,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "intermediate_size": NEURONS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": PAIRS,
    "head_dim": WIDTH,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA3 = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
GPT2 = {"vocab_size": 20, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 10, "bos_token_id": 1, "eos_token_id": 2}
GATED: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, **GEMMA3)),
}
FAMILIES = GATED | {"gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2))}
Units = Mapping[int, list[int]]

units = st.dictionaries(st.integers(0, 1), st.lists(st.integers(0, 9), unique=True), max_size=2)
some_heads = st.dictionaries(st.integers(0, 1), st.lists(st.integers(0, 3), unique=True), max_size=2)


def tiny(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = FAMILIES[family]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape))
    return model


def masks(model: PreTrainedModel, neurons: Units, heads: Units) -> dict[str, Tensor]:
    """Of all parameters, in full."""
    found = {}
    for name, parameter in model.named_parameters():
        mask = route_mask(model.config, name, tuple(parameter.shape), neurons, heads)
        assert mask is None or (mask.shape == parameter.shape and mask.dtype == torch.bool and mask.any())
        found[name] = torch.zeros(parameter.shape, dtype=torch.bool) if mask is None else mask
    return found


def count(found: Mapping[str, Tensor]) -> int:
    return sum(int(mask.sum()) for mask in found.values())


def total(chosen: Units) -> int:
    return sum(map(len, chosen.values()))


@pytest.mark.parametrize("family", GATED)
@settings(max_examples=10)
@given(neurons=units, heads=some_heads)
def test_counts_of_gated_models_are_those_of_their_units(family: str, neurons: Units, heads: Units) -> None:
    pairs = sum(len({head // (HEADS // PAIRS) for head in layer}) for layer in heads.values())
    expected = 3 * HIDDEN * total(neurons) + 2 * WIDTH * HIDDEN * total(heads) + 2 * WIDTH * HIDDEN * pairs
    assert count(masks(tiny(family), neurons, heads)) == expected


@settings(max_examples=10)
@given(neurons=units, heads=some_heads)
def test_counts_of_gpt2_are_those_of_its_units(neurons: Units, heads: Units) -> None:
    expected = (2 * HIDDEN + 1) * total(neurons) + 4 * (HIDDEN // HEADS) * HIDDEN * total(heads)
    assert count(masks(tiny("gpt2"), neurons, heads)) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_all_units_together_own_every_block_but_norms_and_biases(family: str) -> None:
    model = tiny(family)
    everything = masks(model, {i: range(NEURONS) for i in (0, 1)}, {i: range(HEADS) for i in (0, 1)})
    for name, mask in everything.items():
        in_block = ("attn" in name or "mlp" in name) and "norm" not in name
        assert bool(mask.all()) == (in_block and (name.endswith("weight") or "c_fc" in name)), name
        assert bool(mask.any()) == bool(mask.all())


# --- What units are computed from, and what reads them ---


def projections(model: PreTrainedModel, layer: int) -> tuple[nn.Module, nn.Module]:
    """Output projections of a layer's MLP and attention."""
    if isinstance(model, GPT2LMHeadModel):
        block = model.transformer.h[layer]
        return block.mlp.c_proj, block.attn.c_proj
    block = model.model.layers[layer]
    return block.mlp.down_proj, block.self_attn.o_proj


def inputs(model: PreTrainedModel, projection: nn.Module) -> Tensor:
    """What a projection reads on some tokens, (token, units)."""
    seen: list[Tensor] = []
    hook = projection.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(input_ids=torch.tensor([[1, 5, 6, 7, 8, 9]]))
    hook.remove()
    return seen[0][0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(("kind", "chosen"), [("neuron", [1, 7, 8]), ("head", [2]), ("head", [0, 3])])
def test_the_parameters_above_a_unit_are_those_with_a_gradient(
    family: str, layer: int, kind: str, chosen: list[int]
) -> None:
    model = tiny(family)
    projection = projections(model, layer)[kind == "head"]
    z = inputs(model, projection)
    width = 1 if kind == "neuron" else z.shape[1] // HEADS
    z.unflatten(1, (-1, width))[:, chosen].square().sum().backward()
    found = masks(model, {layer: chosen} if kind == "neuron" else {}, {layer: chosen} if kind == "head" else {})
    block = "mlp" if kind == "neuron" else "attn"
    names = [
        name
        for name, parameter in model.named_parameters()
        if f".{layer}." in name and block in name and "norm" not in name and parameter is not projection.weight
        if not ("c_attn.bias" in name or "c_proj.bias" in name)  # the biases that belong to no unit
    ]
    assert len(names) >= {"mlp": 2, "attn": 1}[block]
    for name in names:
        assert torch.equal(found[name], model.get_parameter(name).grad != 0), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kind", "chosen"), [("neuron", [1, 7, 8]), ("head", [2])])
def test_the_parameters_below_a_unit_carry_its_contribution_alone(family: str, kind: str, chosen: list[int]) -> None:
    model = tiny(family)
    projection = projections(model, 1)[kind == "head"]
    z = inputs(model, projection).detach()
    alone = torch.zeros_like(z)
    width = 1 if kind == "neuron" else z.shape[1] // HEADS
    for unit in chosen:
        part = slice(unit * width, (unit + 1) * width)
        alone[:, part] = z[:, part]
    with torch.no_grad():
        nothing = projection(torch.zeros_like(z))
        expected = projection(alone) - nothing
        found = masks(model, {1: chosen} if kind == "neuron" else {}, {1: chosen} if kind == "head" else {})
        (name,) = (name for name, parameter in model.named_parameters() if parameter is projection.weight)
        projection.weight.masked_fill_(~found[name], 0)
        torch.testing.assert_close(projection(z) - nothing, expected, rtol=1e-10, atol=1e-12)


# --- Properties and special cases ---


@settings(max_examples=15)
@given(units, units, some_heads, some_heads)
def test_a_union_of_units_owns_the_union_of_coordinates(
    neurons_a: Units, neurons_b: Units, heads_a: Units, heads_b: Units
) -> None:
    def union(a: Units, b: Units) -> Units:
        return {layer: sorted({*a.get(layer, []), *b.get(layer, [])}) for layer in (0, 1)}

    model = tiny("qwen3")
    a, b = masks(model, neurons_a, heads_a), masks(model, neurons_b, heads_b)
    both = masks(model, union(neurons_a, neurons_b), union(heads_a, heads_b))
    assert all(torch.equal(both[name], a[name] | b[name]) for name in both)


@pytest.mark.parametrize("heads", [[0], [1], [0, 1]])
def test_a_key_value_head_belongs_to_the_route_if_any_head_of_its_group_is_active(heads: list[int]) -> None:
    found = masks(tiny("qwen3"), {}, {0: heads})
    for name in ("k_proj", "v_proj"):
        rows = found[f"model.layers.0.self_attn.{name}.weight"].all(1)
        assert rows.tolist() == [True] * WIDTH + [False] * WIDTH


def test_biases_of_gate_and_up_belong_to_their_neuron() -> None:
    config = LlamaConfig(**SIZES, mlp_bias=True, attention_bias=True)
    model = LlamaForCausalLM(config)
    found = masks(model, {1: [2, 3]}, {0: [1], 1: [1]})
    biases = {name: mask.nonzero().flatten().tolist() for name, mask in found.items() if name.endswith("bias")}
    assert {name for name, chosen in biases.items() if chosen} == {
        "model.layers.1.mlp.gate_proj.bias",
        "model.layers.1.mlp.up_proj.bias",
    }
    assert biases["model.layers.1.mlp.gate_proj.bias"] == biases["model.layers.1.mlp.up_proj.bias"] == [2, 3]


def test_the_text_model_inside_a_multimodal_one_is_found() -> None:
    config = Gemma3Config(text_config=Gemma3TextConfig(**SIZES, **GEMMA3))
    mask = route_mask(config, "model.language_model.layers.1.self_attn.k_proj.weight", (12, 16), {}, {1: [3]})
    assert mask is not None
    assert mask.all(1).tolist() == [False] * WIDTH + [True] * WIDTH


def test_a_mask_takes_no_memory_along_the_residual_stream() -> None:
    name, config = "model.layers.0.mlp.{}.weight", Qwen3Config(**SIZES)
    for module, shape in (("up_proj", (NEURONS, HIDDEN)), ("down_proj", (HIDDEN, NEURONS))):
        mask = route_mask(config, name.format(module), shape, {0: np.array([4])}, {})
        assert mask is not None
        assert mask.untyped_storage().nbytes() == NEURONS


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.layers.0.mlp.up_proj.weight", (7, 16), "expected 10 along axis 0"),
        ("model.layers.0.self_attn.q_proj.weight", (24, 16), "active units 0 to 9, expected indices from 0 to 3"),
        ("model.layers.1.self_attn.k_proj.weight", (8, 16), "expected 12 along axis 0"),
        ("model.layers.1.self_attn.o_proj.weight", (16, 8), "expected 24 along axis 1"),
    ],
)
def test_units_and_shapes_of_another_model_are_refused(name: str, shape: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        route_mask(Qwen3Config(**SIZES), name, shape, {0: [0, 9]}, {0: [0, 9], 1: [0]})
