"""Which rows or columns of a parameter belong to which unit: MLP neuron, attention head or key-value group.

A neuron owns row i of gate_proj and up_proj, their bias entries, and column i of down_proj; a head its rows of q_proj and
columns of o_proj; a key-value group, which one head or several share, its rows of k_proj and v_proj. What is left
(embeddings, norms, other biases) belongs to no unit. In GPT-2 weights are transposed, and q, k and v lie side by side in
one matrix.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from crossdomain.anatomy import place

Kind = Literal["neuron", "head", "group"]
KINDS: tuple[Kind, ...] = ("neuron", "head", "group")
BIASED = ("gate_proj", "up_proj")  # whose bias entries belong to neurons


class Shape(NamedTuple):
    """How many layers a model has, units of each kind in a layer, and how wide its heads are."""

    layers: int
    neuron: int
    head: int
    group: int
    head_dim: int


class Block(NamedTuple):
    """A stretch of a parameter along one axis that holds units of one kind side by side.

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
    groups = getattr(config, "num_key_value_heads", None) or heads
    return Shape(layers, neurons, heads, groups, getattr(config, "head_dim", None) or config.hidden_size // heads)


def blocks(name: str, size: tuple[int, ...], units: Shape) -> list[Block]:
    """The units of a parameter; empty for one that belongs to none.

    Args:
        name: of the parameter.
        size: its shape.
        units: of its model.

    Raises:
        ValueError: the parameter has another size than the model's units need.
    """
    layer, module, _ = place(name)
    if layer is None or len(size) > 2 or (len(size) == 1 and module not in BIASED):
        return []
    transposed = ".c_" in name and len(size) == 2  # GPT-2's Conv1D: (in, out)
    read, write = (1, 0) if transposed else (0, 1)  # axis of a unit in a matrix that feeds it, and in one it feeds
    parts: list[tuple[Kind, int]]  # kind and axis, in the order in which they lie side by side
    match module:
        case "gate_proj" | "up_proj":
            parts = [("neuron", read)]
        case "down_proj":
            parts = [("neuron", write)]
        case "q_proj":
            parts = [("head", read)]
        case "o_proj":
            parts = [("head", write)]
        case "k_proj" | "v_proj":
            parts = [("group", read)]
        case "qkv_proj":
            parts = [("head", read), ("group", read), ("group", read)]
        case _:
            return []
    found, start = [], 0
    for kind, axis in parts:
        count, width = getattr(units, kind), 1 if kind == "neuron" else units.head_dim
        found.append(Block(kind, axis, start, width, count))
        start += count * width
    if size[found[0].axis] != start:
        raise ValueError(
            f"{name} has shape {tuple(size)}, expected {start} along axis {found[0].axis}: another model's?"
        )
    return found
