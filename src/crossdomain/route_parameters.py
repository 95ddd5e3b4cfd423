"""The parameters of a route: which coordinates of a model belong to its active neurons and heads (P_R of C7).

What a unit owns is said in `units`. With grouped-query attention the heads of a group share one key and one value head,
which belong to the route if any head of the group is active.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from crossdomain import units
from crossdomain.anatomy import place


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
    model = units.shape(config)
    blocks = units.blocks(name, shape, model)
    layer = place(name).layer
    if not blocks or layer is None:
        return None
    axis = blocks[0].axis
    owned = torch.zeros(shape[axis], dtype=torch.bool)
    for block in blocks:
        active = np.asarray((neurons if block.kind == "neuron" else heads).get(layer, ()), dtype=np.int64)
        if active.size:
            _check(active, model.head if block.kind == "group" else block.units, name)
            chosen = active * model.group // model.head if block.kind == "group" else active
            owned[block.start : block.start + block.units * block.width].view(block.units, -1)[chosen] = True
    if not owned.any():
        return None
    return (owned[:, None] if axis == 0 and len(shape) > 1 else owned).expand(shape)


def _check(active: NDArray[np.int64], size: int, name: str) -> None:
    if active.min() < 0 or active.max() >= size:
        raise ValueError(
            f"{name}: active units {active.min()} to {active.max()}, expected indices from 0 to {size - 1}"
        )
