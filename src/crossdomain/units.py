"""Which rows or columns of a parameter belong to which unit: MLP neuron, attention head or key-value group.

A neuron owns row i of gate_proj and up_proj and column i of down_proj; a head its rows of q_proj and columns of o_proj; a
key-value group, which one head or several share, its rows of k_proj and v_proj. What is left (embeddings, norms, biases)
belongs to no unit. In GPT-2 weights are transposed and q, k and v lie side by side in one matrix.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from crossdomain.anatomy import place

Kind = Literal["neuron", "head", "group"]
KINDS: tuple[Kind, ...] = ("neuron", "head", "group")


class Shape(NamedTuple):
    """How many units of each kind a layer has."""

    layers: int
    neuron: int
    head: int
    group: int


class Block(NamedTuple):
    """A stretch of a matrix along one axis that holds units of one kind side by side.

    Attributes:
        kind: of the units.
        axis: 0 for rows, 1 for columns.
        start: where the first unit begins.
        width: rows or columns of a unit.
        units: how many of them.
    """

    kind: Kind
    axis: int
    start: int
    width: int
    units: int


def shape(config: Any) -> Shape:
    """Units of a model, from its Hugging Face configuration.

    Raises:
        ValueError: the configuration does not say how many layers, heads or neurons there are.
    """
    config = config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    layers = getattr(config, "num_hidden_layers", None)
    neurons = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    if neurons is None and hasattr(config, "n_embd"):
        neurons = 4 * config.n_embd  # GPT-2's default
    if not heads or not layers or not neurons:
        raise ValueError(
            f"{type(config).__name__}: expected num_hidden_layers, num_attention_heads and intermediate_size (or GPT-2's "
            f"names), found {layers}, {heads} and {neurons}"
        )
    return Shape(layers, neurons, heads, getattr(config, "num_key_value_heads", None) or heads)


def blocks(name: str, size: tuple[int, ...], units: Shape) -> list[Block]:
    """The units of a parameter; empty for one that belongs to none.

    Args:
        name: of the parameter.
        size: its shape.
        units: of its model.

    Raises:
        ValueError: the matrix cannot be split among the model's units.
    """
    if place(name).layer is None or len(size) != 2:
        return []
    transposed = ".c_" in name  # GPT-2's Conv1D: (in, out)
    read, write = (1, 0) if transposed else (0, 1)  # axis of a unit in a matrix that feeds it, and in one it feeds
    match place(name).module:
        case "gate_proj" | "up_proj":
            parts: list[tuple[Kind, int, int]] = [("neuron", read, size[read])]
        case "down_proj":
            parts = [("neuron", write, size[write])]
        case "q_proj":
            parts = [("head", read, size[read])]
        case "o_proj":
            parts = [("head", write, size[write])]
        case "k_proj" | "v_proj":
            parts = [("group", read, size[read])]
        case "qkv_proj":
            width = size[read] // (units.head + 2 * units.group)
            shared: tuple[Kind, int, int] = ("group", read, units.group * width)
            parts = [("head", read, units.head * width), shared, shared]
        case _:
            return []
    found, start = [], 0
    for kind, axis, length in parts:
        count: int = getattr(units, kind)
        if length % count:
            raise ValueError(f"{name} {size}: {length} along axis {axis} cannot be split among {count} {kind}s a layer")
        found.append(Block(kind, axis, start, length // count, count))
        start += length
    return found
