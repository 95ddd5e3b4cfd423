"""What a diagnosis takes of memory and disk, known from the model's configuration before it starts."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from crossdomain.layerwise import Decoder
from crossdomain.layerwise_curvature import STATES

LOGITS = 2**25  # numbers of a microbatch's logits, which a single row may exceed
ROWS = 8  # of a microbatch at most

# Measured with SmolLM2 (`benchmarks/curvature_at_scale.py`) and rounded up.
OVERHEAD = 2**30  # bytes of Python and its libraries
PIECES, COPIES = 6, 8  # copies of the largest piece's parameters, and of a microbatch's logits


class Needs(NamedTuple):
    """Upper bounds, in GiB: `memory` that is resident, `disk` of the store."""

    memory: float
    disk: float


def rows_at_once(config: Any, max_new_tokens: int) -> int:
    """Answers in a microbatch of derivatives, so that their logits stay small."""
    return max(1, min(ROWS, LOGITS // (max_new_tokens * int(config.get_text_config().vocab_size))))


def needs(decoder: Decoder, config: Any, stored: int, max_new_tokens: int) -> Needs:
    """What a diagnosis takes at most.

    Answering holds the model as it is stored. Derivatives hold one piece of it, several times (weights, direction, product,
    gradients), in float32, as well as the head, the logits of a microbatch, and hidden states.

    Args:
        decoder: the model.
        config: its configuration.
        stored: bytes of its weights.
        max_new_tokens: of an answer.
    """
    largest = max(sum(math.prod(decoder.shape(name)) for name in piece.names) for piece in decoder.pieces)
    parameters = sum(math.prod(decoder.shape(name)) for name in decoder.names)
    logits = rows_at_once(config, max_new_tokens) * max_new_tokens * int(config.get_text_config().vocab_size)
    derivatives = 4 * (PIECES * largest + COPIES * logits) + STATES
    return Needs((OVERHEAD + max(stored, derivatives)) / 2**30, 4 * parameters / 2**30)
