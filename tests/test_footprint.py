"""Counts of parameters, FLOPs and bytes, against real models and closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from crossdomain.footprint import KNOWN, Architecture

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
QWEN = Architecture(3, 24, 40, 4, 2, 8, 50, tied=True)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("config", "model"), [(Qwen3Config, Qwen3ForCausalLM), (LlamaConfig, LlamaForCausalLM)], ids=["qwen3", "llama"]
)
def test_parameters_are_those_of_a_real_model(config: Any, model: Any, tied: bool) -> None:
    made = model(config(**SIZES, tie_word_embeddings=tied))
    assert Architecture.of(made.config).parameters == sum(p.numel() for p in made.parameters())


def test_the_papers_model_has_the_size_its_card_states() -> None:
    known = KNOWN["Qwen/Qwen3-4B-Thinking-2507"]
    assert known.parameters == pytest.approx(4.0e9, rel=0.01)
    assert known.parameters - known.embedding == pytest.approx(3.6e9, rel=0.01)


def test_flops_are_those_that_torch_counts() -> None:
    length = 16
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES, attn_implementation="eager"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros((1, length), dtype=torch.long), use_cache=False)
    # Eager attention multiplies the whole square, not only what precedes a token; norms and rotations are not counted.
    ours = length * QWEN.forward_flops(length)
    assert counter.get_total_flops() == pytest.approx(ours, rel=0.02)


def test_the_cache_and_the_state_in_closed_form() -> None:
    assert QWEN.cache_bytes == 2 * 2 * 3 * 2 * 8  # keys and values, two bytes, layers, heads, width
    assert QWEN.state_bytes(4) == 16 * QWEN.parameters
    assert QWEN.state_bytes(2) == 8 * QWEN.parameters


def test_activations_without_recomputation_are_at_least_what_autograd_keeps_for_the_matrices() -> None:
    length, kept = 32, 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        if tensor.numel() >= length and not isinstance(tensor, torch.nn.Parameter) and tensor.shape[-1] != 50:
            kept += tensor.numel()
        return tensor

    model = Qwen3ForCausalLM(Qwen3Config(**SIZES, attn_implementation="sdpa"))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=torch.zeros((1, length), dtype=torch.long), use_cache=False)
    estimated = QWEN.activation_bytes(recomputed=False) / 2  # numbers a token
    assert estimated == pytest.approx(kept / length, rel=0.6)  # autograd keeps views and transposed copies as well
    assert QWEN.activation_bytes(recomputed=True) < QWEN.activation_bytes(recomputed=False) / 2
