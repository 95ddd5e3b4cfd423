"""What a decoder costs: parameters, FLOPs a token, bytes of its cache, of training it and of its activations.

Standard counts: a forward pass takes 2 FLOPs a parameter and token (Kaplan et al., 2020) and attention's own 4 for each
query channel, layer and earlier token; the backward pass takes twice that; recomputing activations once more the forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BFLOAT16 = 2  # bytes
LOGIT_BYTES = 10  # of one logit while the loss is taken: bfloat16, float32, and its gradient


@dataclass(frozen=True)
class Architecture:
    """The sizes of a decoder with grouped-query attention, a gated MLP and RMS norms, of queries and keys too (Qwen3)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    query_key_norms: bool = True

    @classmethod
    def of(cls, config: Any) -> Architecture:
        """That of a `transformers` configuration of the Qwen3 or Llama families."""
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.num_attention_heads,
            key_value_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            vocabulary=config.vocab_size,
            tied=bool(config.tie_word_embeddings),
            query_key_norms=config.model_type == "qwen3",
        )

    @property
    def layer(self) -> int:
        """Parameters of a layer."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.key_value_heads)
        norms = 2 * self.hidden + (2 * self.head_dim if self.query_key_norms else 0)
        return attention + 3 * self.hidden * self.intermediate + norms

    @property
    def embedding(self) -> int:
        """Parameters of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.layer + self.hidden + self.embedding * (1 if self.tied else 2)

    def forward_flops(self, context: float) -> float:
        """FLOPs of a forward pass for one token after `context` others."""
        multiplied = self.layers * self.layer + self.embedding  # looking a token up multiplies nothing
        return 2 * multiplied + 4 * self.layers * self.heads * self.head_dim * context

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token in bfloat16."""
        return 2 * BFLOAT16 * self.layers * self.key_value_heads * self.head_dim

    def state_bytes(self, weight_bytes: int) -> int:
        """Weights, gradients and Adam's two moments, all of them as wide as the weights."""
        return 4 * weight_bytes * self.parameters

    def activation_bytes(self, recomputed: bool) -> int:
        """Activations of one token that wait for the backward pass, in bfloat16, without the logits.

        With recomputation only the input of each layer waits, and one layer is whole; without it, each layer keeps the
        inputs of its matrices, norms and products.
        """
        attention = 3 * self.heads * self.head_dim + 2 * self.key_value_heads * self.head_dim
        whole = BFLOAT16 * (6 * self.hidden + attention + 4 * self.intermediate)
        return self.layers * BFLOAT16 * self.hidden + whole if recomputed else self.layers * whole


KNOWN = {  # configurations of models that a profile names and that may not be here
    "Qwen/Qwen3-4B-Thinking-2507": Architecture(36, 2560, 9728, 32, 8, 128, 151_936, tied=True),
}
