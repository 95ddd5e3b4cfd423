"""A decoder run one piece at a time (embedding, blocks, head), with parameters that are read when their piece is due.

So a model is never whole in memory: what is resident is one piece's parameters, and the hidden states between pieces. The
blocks are those of the model's own class, called with the arguments that it hands to them (masks, positions), which depend
on no parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from crossdomain.anatomy import place
from crossdomain.weights import Weights

FAMILIES = "Qwen3, Llama (with SmolLM2), Gemma 3 (text) and GPT-2"
Tensors = Mapping[str, Tensor]
Batch = Mapping[
    str, Any
]  # a microbatch of `rollouts.microbatches`, with `calls`: what `Decoder.arguments` found for it


@dataclass(frozen=True)
class Piece:
    """A part of the decoder.

    Attributes:
        names: of its parameters; a tied embedding belongs to the first and to the last piece.
        run: hidden states, (rows, position, width), from its parameters, the hidden states before it, and a microbatch; the
            first piece takes no notice of hidden states, and the last gives logits where responses are predicted.
    """

    names: Sequence[str]
    run: Callable[[Tensors, Tensor, Batch], Tensor]


class Decoder:
    """A causal language model of a supported family, without weights.

    Attributes:
        pieces: embedding, blocks, head, in their order.
        names: of its parameters, tied ones once.
        tied: names that belong to two pieces.
        width: of the residual stream.
        dtype: that it computes in.

    Raises:
        TypeError: the model's parts are not where those of the supported families are.
    """

    def __init__(self, config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> None:
        with init_empty_weights(include_buffers=False):
            model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        model.tie_weights()
        self._model = model.to(dtype).eval()
        self._model.get_input_embeddings().padding_idx = None  # its gradient counts like that of any token
        base = model.base_model
        self._blocks: list[nn.Module] = list(getattr(base, "layers", None) or getattr(base, "h", None) or ())
        norm = getattr(base, "norm", None) or getattr(base, "ln_f", None)
        modules = {place(name).module for name, _ in model.named_parameters()}
        if not self._blocks or norm is None or not {"o_proj", "down_proj"} <= modules:
            raise TypeError(f"{type(model).__name__}: expected a model of a supported family: {FAMILIES}")
        self.names = [name for name, _ in model.named_parameters()]
        self.width, self.dtype = int(config.get_text_config().hidden_size), dtype
        known = {id(parameter): name for name, parameter in model.named_parameters()}
        head = _Head(norm, model.get_output_embeddings(), getattr(config, "final_logit_softcapping", None))
        inside = {known[id(p)] for part in (*self._blocks, norm) for p in part.parameters()}
        own = {known[id(p)] for p in base.parameters()}
        self.pieces = [
            Piece([name for name in self.names if name in own - inside], self._embed),
            *(self._block(block, known) for block in self._blocks),
            _piece(head, known, lambda batch: ((), {"keep": batch["targets"].shape[1]})),
        ]
        self.tied = sorted({*self.pieces[0].names} & {*self.pieces[-1].names})

    @classmethod
    def of(cls, directory: Path | str) -> Decoder:
        """The decoder of a checkpoint, in float32.

        Raises:
            TypeError: as the class.
            ValueError: the checkpoint does not hold the model's parameters and nothing else.
        """
        decoder = cls(AutoConfig.from_pretrained(directory, local_files_only=True))
        if odd := sorted({*decoder.names} ^ {*Weights(directory).names}):
            raise ValueError(
                f"{directory}: {len(odd)} tensors are only in the checkpoint or only in the model, {odd[0]!r} for one: "
                "load it with transformers and save it anew with save_pretrained"
            )
        return decoder

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a parameter."""
        return tuple(self._model.get_parameter(name).shape)

    def arguments(self, batch: Batch) -> list[tuple[Any, Any]]:
        """What the model hands to each block besides hidden states: positional and keyword arguments."""
        weights = {name: self._model.get_parameter(name) for name in self.pieces[0].names}
        blank = {name: torch.zeros(1, dtype=self.dtype).expand(weight.shape) for name, weight in weights.items()}
        with torch.no_grad():
            return self._enter(blank, batch)[1]

    def _embed(self, params: Tensors, _: Tensor, batch: Batch) -> Tensor:
        return self._enter(params, batch)[0]

    def _enter(self, params: Tensors, batch: Batch) -> tuple[Tensor, list[tuple[Any, Any]]]:
        """Hidden states before the first block, and the blocks' other arguments."""
        with _recorded(self._blocks) as calls, suppress(_LastBlockReached):
            functional_call(self._model, dict(params), kwargs={"input_ids": batch["ids"], "use_cache": False})
        return calls[0][0][0], [(positional[1:], keywords) for positional, keywords in calls]

    def _block(self, block: nn.Module, known: Mapping[int, str]) -> Piece:
        index = self._blocks.index(block)
        return _piece(block, known, lambda batch: batch["calls"][index])


class _LastBlockReached(Exception):  # noqa: N818 (no error)
    """Ends a run of the model where its blocks end."""


@contextmanager
def _recorded(blocks: Sequence[nn.Module]) -> Iterator[list[tuple[Any, Any]]]:
    """Blocks that hand on what they get, and note all their arguments; the last ends the run."""
    calls: list[tuple[Any, Any]] = []

    def record(hidden: Tensor, *positional: Any, **keywords: Any) -> Tensor:
        calls.append(((hidden, *positional), keywords))
        if len(calls) == len(blocks):
            raise _LastBlockReached
        return hidden

    for block in blocks:
        block.forward = record
    try:
        yield calls
    finally:
        for block in blocks:
            del block.forward


class _Head(nn.Module):
    """The last norm and the output head."""

    def __init__(self, norm: nn.Module, head: nn.Module, cap: float | None) -> None:
        super().__init__()
        self.norm, self.head, self.cap = norm, head, cap

    def forward(self, hidden: Tensor, keep: int) -> Tensor:
        """Logits of the last positions, (rows, keep, vocabulary)."""
        logits: Tensor = self.head(self.norm(hidden[:, -keep:]))
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def _piece(module: nn.Module, known: Mapping[int, str], arguments: Callable[[Batch], tuple[Any, Any]]) -> Piece:
    """A module that takes hidden states first, as a piece."""
    local = {known[id(parameter)]: name for name, parameter in module.named_parameters()}

    def run(params: Tensors, hidden: Tensor, batch: Batch) -> Tensor:
        positional, keywords = arguments(batch)
        own = {local[name]: tensor for name, tensor in params.items()}
        found: Tensor = functional_call(module, own, (hidden, *positional), keywords)
        return found

    return Piece(list(local), run)
