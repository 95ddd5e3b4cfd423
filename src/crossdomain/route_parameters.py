"""The parameters of a route: which coordinates of a model belong to its active neurons and heads (P_R of C7).

A neuron owns its row of gate_proj and up_proj (their bias entries, too) and its column of down_proj; a head owns its rows
of q_proj and its columns of o_proj. With grouped-query attention the heads of a group share one key and one value head:
their rows of k_proj and v_proj belong to the route if any head of the group is active. GPT-2 keeps its weights
transposed, and queries, keys and values side by side in c_attn. Embeddings, norms and all other biases belong to no unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from crossdomain.anatomy import place

READING = ("o_proj", "down_proj")  # what reads the units
UNIT_WEIGHTED = ("q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", *READING)
UNIT_BIASED = ("gate_proj", "up_proj")


def route_mask(
    config: Any, name: str, shape: tuple[int, ...], neurons: Mapping[int, ArrayLike], heads: Mapping[int, ArrayLike]
) -> Tensor | None:
    """Which coordinates of one parameter belong to the active units.

    Args:
        config: the model's configuration.
        name: of the parameter, as in `named_parameters`.
        shape: of the parameter.
        neurons: indices of the active neurons of each layer, as from `routes.units_by_layer`.
        heads: indices of the active heads of each layer.

    Returns:
        Booleans of that shape, expanded along the residual stream's axis without taking its memory (clone before writing
        to them); None where no coordinate belongs to a unit.

    Raises:
        ValueError: a unit's index is not in the layer, or the shape is not what the configuration says.
    """
    where = place(name)
    bias = name.endswith(".bias")
    if where.layer is None or where.module not in (UNIT_BIASED if bias else UNIT_WEIGHTED):
        return None
    units = np.asarray((neurons if where.block == "mlp" else heads).get(where.layer, ()), dtype=np.int64)
    if units.size == 0:
        return None
    # Units lie along a weight's rows, and along the columns of the projections that read them; Conv1D transposes both.
    axis = 0 if bias else int((where.module in READING) != (".c_" in name))
    owned = _among(units, shape[axis], name) if where.block == "mlp" else _of_heads(config, where.module, units, name)
    if len(owned) != shape[axis]:
        raise ValueError(f"{name} has shape {tuple(shape)}, expected {len(owned)} along axis {axis}: another model's?")
    return (owned if bias or axis == 1 else owned[:, None]).expand(shape)


def _of_heads(config: Any, module: str, heads: NDArray[np.int64], name: str) -> Tensor:
    """Which rows of a projection belong to the active heads (columns, of o_proj)."""
    text = config.get_text_config()
    queries: int = text.num_attention_heads
    pairs: int = getattr(text, "num_key_value_heads", None) or queries  # of key and value heads
    width: int = getattr(text, "head_dim", None) or text.hidden_size // queries
    query = _among(heads, queries, name).repeat_interleave(width)
    pair = _among(heads * pairs // queries, pairs, name).repeat_interleave(width)
    rows = {
        "q_proj": query,
        "o_proj": query,
        "k_proj": pair,
        "v_proj": pair,
        "qkv_proj": torch.cat([query, pair, pair]),
    }
    return rows[module]


def _among(units: NDArray[np.int64], size: int, name: str) -> Tensor:
    if units.min() < 0 or units.max() >= size:
        raise ValueError(f"{name}: active units {units.min()} to {units.max()}, expected indices from 0 to {size - 1}")
    owned = torch.zeros(size, dtype=torch.bool)
    owned[units] = True
    return owned
