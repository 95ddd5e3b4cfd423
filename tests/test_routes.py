"""Scores against a pass by hand over single sequences, finite differences, and a model whose routes are planted."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from crossdomain.routes import (
    HEAD,
    NEURON,
    SCORES,
    UNIT,
    active,
    mean_over_halves,
    route_scores,
    shared,
    units_by_layer,
)

VOCABULARY, PAD = 20, 0
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "intermediate_size": 10,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,  # not hidden_size / num_attention_heads
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": PAD,
}
GEMMA3 = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 6}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 12, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, **GEMMA3)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
}
PROMPTS = [[1, 3, 4, 5, 6, 7, 8], [1, 9], [1, 10, 11], [1, 4, 4, 12], [1]]
RESPONSES = [[2], [13, 14, 2], [15, 2], [3, 16, 17, 18, 19, 2], [5, 2]]


def tiny(family: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """Random weights, biases and norms."""
    torch.manual_seed(0)
    model = FAMILIES[family]().to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape))
    return model


def projections(model: PreTrainedModel) -> list[tuple[str, int, nn.Module]]:
    """Kind, layer and output projection, found without the code under test."""
    if isinstance(model, GPT2LMHeadModel):
        pairs = [(layer.mlp.c_proj, layer.attn.c_proj) for layer in model.transformer.h]
    else:
        pairs = [(layer.mlp.down_proj, layer.self_attn.o_proj) for layer in model.model.layers]
    return [(NEURON, i, down) for i, (down, _) in enumerate(pairs)] + [(HEAD, i, o) for i, (_, o) in enumerate(pairs)]


def negative_log_likelihood(model: PreTrainedModel, prompt: list[int], response: list[int]) -> Tensor:
    """Mean over the response's tokens."""
    logp = model(input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(1)
    return -torch.stack([logp[len(prompt) + i - 1, token] for i, token in enumerate(response)]).mean()


def by_hand(model: PreTrainedModel, prompt: list[int], response: list[int]) -> pd.DataFrame:
    """Scores of all units on one sequence, token by token, every contribution spelled out."""
    model = copy.deepcopy(model)
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        arguments[0].retain_grad()
        seen[module] = (arguments[0], output)

    sites = projections(model)
    for *_, module in sites:
        module.register_forward_hook(keep)
    negative_log_likelihood(model, prompt, response).backward()

    rows = []
    for kind, layer, module in sites:
        z, output = (tensor.detach()[0] for tensor in seen[module])
        gradient = seen[module][0].grad[0]
        matrix = module.weight.detach().T if isinstance(model, GPT2LMHeadModel) else module.weight.detach()
        units = matrix.shape[1] if kind == NEURON else 4
        blocks = [slice(i * matrix.shape[1] // units, (i + 1) * matrix.shape[1] // units) for i in range(units)]
        contributions = [z[:, block] @ matrix[:, block].T for block in blocks]  # each (token, hidden)
        bias = 0 if module.bias is None else module.bias.detach()
        torch.testing.assert_close(sum(contributions) + bias, output)  # nothing of the output is left out
        for i, block in enumerate(blocks):
            rows.append(
                {
                    "kind": kind,
                    "layer": layer,
                    "index": i,
                    "contribution": float(np.mean([c.norm().item() for c in contributions[i]])),
                    "activation": float(np.mean([t.norm().item() for t in z[:, block]])),
                    "attribution": float(
                        np.mean([abs((a @ g).item()) for a, g in zip(z[:, block], gradient[:, block], strict=True)])
                    ),
                }
            )
    return pd.DataFrame(rows).set_index(UNIT)


def assert_scores_close(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    columns = [score for score in SCORES if score in found]
    found = found.set_index(UNIT)[columns]
    pd.testing.assert_frame_equal(found, expected.loc[found.index, columns], rtol=1e-6, atol=1e-10)


# --- Scores ---


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_single_sequences_by_hand(family: str) -> None:
    model = tiny(family)
    single = [by_hand(model, *pair) for pair in zip(PROMPTS, RESPONSES, strict=True)]
    scores = route_scores(model, PAD, PROMPTS, RESPONSES, batch_size=3, attribution=True)
    assert len(scores) == 2 * len(single[0])
    assert_scores_close(scores[scores["half"] == 0], sum(single[0::2]) / 3)
    assert_scores_close(scores[scores["half"] == 1], sum(single[1::2]) / 2)
    assert_scores_close(mean_over_halves(scores), sum(single) / 5)


@pytest.mark.parametrize(("kind", "layer", "index", "width"), [(NEURON, 0, 7, 1), (HEAD, 1, 2, 3), (HEAD, 0, 0, 3)])
def test_attribution_is_what_scaling_a_unit_at_one_token_does_to_the_loss(
    kind: str, layer: int, index: int, width: int
) -> None:
    model = tiny("gpt2")  # whose norms keep float64
    (module,) = (module for *site, module in projections(model) if site == [kind, layer])
    step, means = 1e-5, []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        slopes = []
        for token in range(len(prompt + response)):
            losses = []
            for scale in (1 + step, 1 - step):

                def rescale(_: nn.Module, arguments: tuple[Tensor], token: int = token, scale: float = scale) -> Tensor:
                    z = arguments[0].clone()
                    z[0, token, index * width : (index + 1) * width] *= scale
                    return z

                hook = module.register_forward_pre_hook(rescale)
                with torch.no_grad():
                    losses.append(negative_log_likelihood(model, prompt, response).item())
                hook.remove()
            slopes.append(abs(losses[0] - losses[1]) / (2 * step))
        means.append(np.mean(slopes))
    scores = mean_over_halves(route_scores(model, PAD, PROMPTS, RESPONSES, attribution=True)).set_index(UNIT)
    assert scores.loc[(kind, layer, index), "attribution"] == pytest.approx(np.mean(means), rel=1e-6)


def test_attribution_is_left_out_unless_asked_for() -> None:
    model = tiny("qwen3")
    scores = route_scores(model, PAD, PROMPTS, RESPONSES)
    with_attribution = route_scores(model, PAD, PROMPTS, RESPONSES, attribution=True)
    pd.testing.assert_frame_equal(scores, with_attribution.drop(columns="attribution"), rtol=1e-9)
    assert list(scores) == ["kind", "layer", "index", "half", "sequences", "contribution", "activation"]


SEQUENCES = st.lists(
    st.tuples(*[st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=6)] * 2), min_size=2, max_size=7
)


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "gpt2"])
def test_neither_padding_nor_the_batch_size_changes_a_score(family: str) -> None:
    model = tiny(family)

    @settings(max_examples=15)
    @given(SEQUENCES, st.integers(1, 8), st.integers(0, VOCABULARY - 1))
    def check(sequences: list[tuple[list[int], list[int]]], batch_size: int, pad: int) -> None:
        prompts, responses = zip(*sequences, strict=True)
        found = route_scores(model, pad, prompts, responses, batch_size=batch_size, attribution=True)
        unpadded = route_scores(model, PAD, prompts, responses, batch_size=1, attribution=True)
        pd.testing.assert_frame_equal(found, unpadded, rtol=1e-6, atol=1e-10)

    check()


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_lower_precision_gives_the_same_scores_within_rounding(dtype: torch.dtype, rtol: float) -> None:
    model = tiny("qwen3", dtype)
    found = route_scores(model, PAD, PROMPTS, RESPONSES)
    expected = route_scores(model.double(), PAD, PROMPTS, RESPONSES)
    pd.testing.assert_frame_equal(found, expected, rtol=rtol)


# --- What a pass leaves behind ---


def hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("attribution", [False, True])
def test_the_model_is_left_as_it_was(attribution: bool) -> None:
    model = tiny("gpt2").train()
    model.transformer.h[0].eval()
    model.transformer.h[1].mlp.c_fc.weight.requires_grad_(False)
    embedding = model.transformer.wte.weight
    embedding.grad = torch.ones_like(embedding)
    before = copy.deepcopy(model)
    route_scores(model, PAD, PROMPTS, RESPONSES, attribution=attribution)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for parameter, old in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(parameter, old)
        assert parameter.requires_grad == old.requires_grad
        assert parameter.grad is None or parameter is embedding
    assert torch.equal(embedding.grad, torch.ones_like(embedding))
    assert hooks(model) == 0


def test_dropout_does_not_disturb_scores_of_a_model_in_training() -> None:
    model = tiny("gpt2")
    assert model.config.resid_pdrop > 0
    expected = route_scores(model, PAD, PROMPTS, RESPONSES)
    pd.testing.assert_frame_equal(route_scores(model.train(), PAD, PROMPTS, RESPONSES), expected)


def test_a_frozen_model_has_the_same_attribution() -> None:
    model = tiny("qwen3")
    expected = route_scores(model, PAD, PROMPTS, RESPONSES, attribution=True)
    model.requires_grad_(False)
    pd.testing.assert_frame_equal(route_scores(model, PAD, PROMPTS, RESPONSES, attribution=True), expected)


@pytest.mark.parametrize("attribution", [False, True])
def test_hooks_and_mode_are_restored_after_an_error(attribution: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("qwen3").train()

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.model.layers[1].mlp.down_proj, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        route_scores(model, PAD, PROMPTS, RESPONSES, attribution=attribution)
    assert hooks(model) == 0
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


# --- Routes ---

A, B = list(range(1, 8)), list(range(8, 15))  # tokens of two domains
PLANTED = {  # units that read domain A, domain B, or both, in each layer
    (NEURON, 0): ([3, 11], [7, 18, 2], [0, 9, 15]),
    (NEURON, 1): ([5, 6], [1], [8]),
    (HEAD, 0): ([2], [9, 7], [4]),
    (HEAD, 1): ([1], [], [5]),
}
UNITS = set[tuple[str, int, int]]


def planted_units(*readers: int) -> UNITS:
    return {(kind, layer, i) for (kind, layer), sets in PLANTED.items() for reader in readers for i in sets[reader]}


def planted_model() -> PreTrainedModel:
    """Residual dimensions 0 and 1 say which domain a token is of; units read them and write elsewhere; others are noise."""
    torch.manual_seed(0)
    config = Qwen3Config(
        **SIZES
        | {
            "hidden_size": 16,
            "intermediate_size": 20,
            "num_attention_heads": 10,
            "num_key_value_heads": 10,
            "head_dim": 4,
        }
    )
    model = Qwen3ForCausalLM(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "lm_head" not in name:
                parameter.copy_(1e-3 * torch.randn(parameter.shape))
        model.lm_head.weight.normal_()
        embedding = model.model.embed_tokens.weight
        embedding[A, 0], embedding[B, 1] = 1.0, 1.0
        for (kind, i), sets in PLANTED.items():
            layer = model.model.layers[i]
            for dimensions, units in zip(([0], [1], [0, 1]), sets, strict=True):
                for unit in units:
                    for dimension in dimensions:
                        if kind == NEURON:
                            layer.mlp.gate_proj.weight[unit, dimension] = layer.mlp.up_proj.weight[unit, dimension] = (
                                0.5
                            )
                        else:
                            layer.self_attn.v_proj.weight[4 * unit : 4 * unit + 4, dimension] = 0.5
                    if kind == NEURON:
                        layer.mlp.down_proj.weight[4:, unit] = 0.1 * torch.randn(12, dtype=torch.float64)
                    else:
                        layer.self_attn.o_proj.weight[4:, 4 * unit : 4 * unit + 4] = 0.1 * torch.randn(12, 4).double()
    return model


@pytest.fixture(scope="module")
def planted_scores() -> dict[str, pd.DataFrame]:
    """Scores on random sequences of each domain's tokens."""
    model, generator = planted_model(), np.random.default_rng(0)
    found = {}
    for domain, tokens in {"A": A, "B": B}.items():
        prompts = [generator.choice(tokens, size).tolist() for size in (5, 3, 6, 4)]
        responses = [generator.choice(tokens, size).tolist() for size in (2, 3, 1, 4)]
        found[domain] = route_scores(model, PAD, prompts, responses, attribution=True)
    return found


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("half", [0, 1, None])
def test_planted_routes_and_their_intersection_are_recovered(
    planted_scores: dict[str, pd.DataFrame], score: str, half: int | None
) -> None:
    routes = {}
    for domain, readers in {"A": (0, 2), "B": (1, 2)}.items():
        scores = planted_scores[domain]
        scores = mean_over_halves(scores) if half is None else scores[scores["half"] == half]
        route = active(scores, 0.2, score=score)  # 8 of 40 neurons, 4 of 20 heads
        assert set(route[route].index) == planted_units(*readers)
        values = scores.set_index(UNIT)[score]
        for kind in (NEURON, HEAD):  # no accident of noise
            on = route.index.get_level_values("kind") == kind
            assert values[route & on].min() > 10 * values[~route & on].max()
        routes[domain] = route
    both = shared(routes["A"], routes["B"])
    assert set(both[both].index) == planted_units(2)


def test_a_routes_units_come_by_layer_with_nothing_for_layers_without_any() -> None:
    index = pd.MultiIndex.from_product([[NEURON, HEAD], [0, 1, 2], range(4)], names=UNIT)
    chosen = [(NEURON, 0, 3), (NEURON, 0, 1), (NEURON, 2, 0), (HEAD, 1, 2)]
    route = pd.Series(index.isin(chosen), index=index)
    neurons, heads = units_by_layer(route)
    assert {layer: units.tolist() for layer, units in neurons.items()} == {0: [1, 3], 2: [0]}
    assert {layer: units.tolist() for layer, units in heads.items()} == {1: [2]}


def table(neurons: np.ndarray, heads: np.ndarray) -> pd.DataFrame:
    """Scores of arrays of shape (layer, index)."""
    rows = [
        {"kind": kind, "layer": layer, "index": i, "contribution": value}
        for kind, values in ((NEURON, neurons), (HEAD, heads))
        for layer, row in enumerate(values)
        for i, value in enumerate(row)
    ]
    return pd.DataFrame(rows)


@settings(max_examples=20)
@given(st.sampled_from([0.05, 0.1, 0.2]), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_share_is_of_each_kind_and_holds_the_highest_scores(share: float, within_layer: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = {NEURON: generator.random((4, 40)), HEAD: generator.random((4, 5)) + 10}
    route = active(table(scores[NEURON], scores[HEAD]), share, within_layer=within_layer)
    for kind, values in scores.items():
        chosen = route.xs(kind).to_numpy().reshape(values.shape)
        groups = zip(values, chosen, strict=True) if within_layer else [(values.ravel(), chosen.ravel())]
        for group, on in groups:
            assert on.sum() == max(1, round(share * len(group)))
            assert group[on].min() > group[~on].max()


def test_ties_go_to_the_first_units() -> None:
    route = active(table(np.ones((2, 10)), np.ones((2, 5))), 0.2)
    assert list(route[route].index) == [(NEURON, 0, i) for i in range(4)] + [(HEAD, 0, i) for i in range(2)]


# --- What is refused ---


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        (PROMPTS, RESPONSES[:2], "5 prompts and 2 responses"),
        (PROMPTS[:1], RESPONSES[:1], "1 sequences: expected at least 2"),
        ([[1], []], [[2], [2]], "sequence 1 has 0 prompt and 1 response tokens"),
        ([[1], [1]], [[], [2]], "sequence 0 has 1 prompt and 0 response tokens"),
    ],
)
def test_sequences_that_cannot_be_scored_are_refused(
    prompts: list[list[int]], responses: list[list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        route_scores(tiny("qwen3"), PAD, prompts, responses)


def test_a_model_of_another_make_is_named() -> None:
    model = OPTForCausalLM(
        OPTConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, ffn_dim=8, num_attention_heads=2)
    )
    with pytest.raises(TypeError, match=r"OPTForCausalLM: found the output projections of 0 MLPs and 0 attentions"):
        route_scores(model, PAD, PROMPTS, RESPONSES)


def test_scores_of_both_halves_make_no_route() -> None:
    scores = route_scores(tiny("qwen3"), PAD, PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match="mean_over_halves"):
        active(scores, 0.1)
    with pytest.raises(ValueError, match="no score 'attribution': expected one of contribution, activation"):
        active(mean_over_halves(scores), 0.1, score="attribution")


def test_routes_of_different_models_share_nothing() -> None:
    small = active(table(np.ones((1, 10)), np.ones((1, 5))), 0.2)
    large = active(table(np.ones((2, 10)), np.ones((2, 5))), 0.2)
    with pytest.raises(ValueError, match=r"different units \(15 and 30\)"):
        shared(small, large)
