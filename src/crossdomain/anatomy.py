"""Where in a transformer a parameter belongs, read from its name.

Known are the names that transformers gives Qwen3, Llama, Gemma 3 (alone or inside its multimodal model) and GPT-2, in a
model as well as in its saved checkpoint.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MODULES = {
    "q_proj": "attention",
    "k_proj": "attention",
    "v_proj": "attention",
    "o_proj": "attention",
    "qkv_proj": "attention",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
    "embedding": "embedding",
    "lm_head": "embedding",
    "norm": "norm",
    "other": "other",
}
"""The modules, each with its block."""

ALIASES = {
    "embed_tokens": "embedding",
    "wte": "embedding",
    "wpe": "embedding",
    "attn.c_attn": "qkv_proj",
    "attn.c_proj": "o_proj",
    "mlp.c_fc": "up_proj",
    "mlp.c_proj": "down_proj",
}
NORM = re.compile(r"\w*norm|ln_\w+")
LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")
OUTSIDE = re.compile(r"(?:^|\.)(?:vision_tower|vision_model|visual|multi_modal_projector)\.")
NEURON_AXES = {
    "mlp.gate_proj.weight": 0,
    "mlp.up_proj.weight": 0,
    "mlp.down_proj.weight": 1,
    "mlp.c_fc.weight": 1,  # GPT-2 keeps its weights as (in, out)
    "mlp.c_proj.weight": 0,
}


class Place(NamedTuple):
    """Where a parameter belongs: its layer (None outside of layers), module and block."""

    layer: int | None
    module: str
    block: str


def place(name: str) -> Place:
    """Where the parameter of that name belongs.

    Modules are those of `MODULES`. GPT-2's fused projection is `qkv_proj`, its `c_fc` an `up_proj`, its `c_proj` an
    `o_proj` or `down_proj`. A bias belongs to the module of its weight. The output head counts to the embedding's block.
    What is not part of the language model (a vision tower) has no layer and is `other`, as is what is not known.
    """
    if OUTSIDE.search(name):
        return Place(None, "other", "other")
    layer = LAYER.search(name)
    parent, _, owner = name.rpartition(".")[0].rpartition(".")
    module = ALIASES.get(owner) or ALIASES.get(f"{parent.rpartition('.')[2]}.{owner}") or owner
    if NORM.fullmatch(module):
        module = "norm"
    if module not in MODULES:
        module = "other"
    return Place(int(layer[1]) if layer else None, module, MODULES[module])


def neuron_axis(name: str) -> int | None:
    """The axis of a tensor along which the MLP's neurons (intermediate channels) are counted; None if there is none.

    A neuron is a row of `gate_proj` and `up_proj` and a column of `down_proj`; in GPT-2 a column of `c_fc` and a row of
    `c_proj`. Biases have none.
    """
    if OUTSIDE.search(name):
        return None
    return NEURON_AXES.get(".".join(name.split(".")[-3:]))
