"""Active routes: the MLP neurons and attention heads that a domain's computation runs through (C4).

A unit is a neuron (what one column of an MLP's output projection reads) or a head (what one block of columns of
attention's output projection reads). Units are scored in one pass over tokenised prompts with the model's own responses:

* `contribution`: mean |activation|·‖down column‖ of a neuron, mean ‖W_O z‖ of a head, z being what the head hands to its
  block W_O of the output projection (whose bias belongs to no head): how much the unit writes to the residual stream
  (in models that normalise a block's output first, as Gemma 3, before that);
* `activation`: mean |activation| of a neuron, mean ‖z‖ of a head;
* `attribution`: mean |activation · ∂L/∂activation| of a neuron, mean |z · ∂L/∂z| of a head, L being the mean negative
  log-likelihood of a sequence's own response tokens: what the loss would change by, to first order, without the unit
  [Molchanov et al. 2017, arXiv 1611.06440; for heads Michel et al. 2019, arXiv 1905.10650]. It needs no labels, but a
  backward pass.

The paper does not publish its score; these are our construction (theory, measured objects).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from crossdomain import overlap
from crossdomain.anatomy import place

NEURON, HEAD = "neuron", "head"
UNIT = ["kind", "layer", "index"]
SCORES = ["contribution", "activation", "attribution"]


def route_scores(
    model: PreTrainedModel,
    pad_token_id: int,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    *,
    batch_size: int = 64,
    attribution: bool = False,
) -> pd.DataFrame:
    """Scores of every neuron and head on prompts followed by their responses, in one pass of bounded memory.

    A score is a mean over all tokens of a sequence, then over sequences, so that each sequence weighs the same. Even and
    odd sequences are kept apart: how far the two halves agree is how stable a route is across prompts.

    Args:
        model: the policy; it is run in evaluation mode and left as it was.
        pad_token_id: id that fills up shorter sequences of a batch (on the right); any will do.
        prompts: token ids of each prompt.
        responses: token ids of the model's own response to each, its end included.
        batch_size: sequences at a time.
        attribution: also score by attribution, which takes a backward pass.

    Returns:
        A row a unit and half: `kind` (neuron or head), `layer`, `index` (within its layer), `half` (0: even sequences,
        1: odd), `sequences` (in that half), `contribution`, `activation` and, where asked for, `attribution`.

    Raises:
        ValueError: there are fewer than two sequences, prompts and responses do not match, or one is empty.
        TypeError: the model has no output projections of MLPs and attention where this project looks for them.
    """
    _check(prompts, responses)
    sites = _sites(model)
    with _evaluating(model), torch.set_grad_enabled(attribution):
        for batch in _batches(model, pad_token_id, prompts, responses, batch_size):
            with _hooked(sites, batch.weights):
                if attribution:
                    _attribute(model, sites, batch)
                else:  # the base model alone: no unit depends on the logits
                    model.base_model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    halves = np.array([(len(prompts) + 1) // 2, len(prompts) // 2])
    return pd.concat([site.table(halves) for site in sites], ignore_index=True)


def mean_over_halves(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores over all sequences: a row a unit with `kind`, `layer`, `index`, `sequences` and the scores."""
    columns = [score for score in SCORES if score in scores]
    totals = scores[columns].mul(scores["sequences"], axis=0).join(scores[[*UNIT, "sequences"]])
    found = totals.groupby(UNIT, sort=False)[["sequences", *columns]].sum()
    found[columns] = found[columns].div(found["sequences"], axis=0)
    return found.reset_index()


def active(
    scores: pd.DataFrame, share: float, score: str = "contribution", within_layer: bool = False
) -> pd.Series[bool]:
    """The active route: the top share of neurons and, separately, of heads.

    Args:
        scores: a row a unit, from `mean_over_halves` or one half of `route_scores`.
        share: of the units of each kind, in (0, 1); at least one is taken, ties go to the first.
        score: by which column.
        within_layer: take the share of every layer instead of all layers together.

    Returns:
        Whether each unit is active, indexed by `kind`, `layer`, `index`.

    Raises:
        ValueError: there is no such score, or a unit has several rows.
    """
    if score not in scores:
        there = ", ".join(name for name in SCORES if name in scores)
        raise ValueError(f"no score {score!r}: expected one of {there} (attribution only where it was asked for)")
    values = scores.set_index(UNIT)[score]
    if not values.index.is_unique:
        raise ValueError("units have several rows: pass mean_over_halves(scores), or the rows of one half")
    kinds, layers = values.index.get_level_values("kind"), values.index.get_level_values("layer").to_numpy()
    found = np.zeros(len(values), dtype=bool)
    for kind in kinds.unique():
        of_kind = np.asarray(kinds == kind)
        groups = layers[of_kind] if within_layer else None
        found[of_kind] = overlap.top(values.to_numpy()[of_kind], share, within=groups)
    return pd.Series(found, index=values.index, name="active")


def shared(route_a: pd.Series[bool], route_b: pd.Series[bool]) -> pd.Series[bool]:
    """The shared route: units that are active in both.

    Raises:
        ValueError: the routes are not over the same units.
    """
    if not route_a.index.equals(route_b.index):
        raise ValueError(f"routes over different units ({len(route_a)} and {len(route_b)}): expected one model's")
    return route_a & route_b


def units_by_layer(route: pd.Series[bool]) -> tuple[dict[int, NDArray[np.int64]], dict[int, NDArray[np.int64]]]:
    """Indices of a route's neurons, and of its heads, in each layer that has any: what `route_mask` asks for."""
    units = route[route].index.to_frame(index=False)
    neurons, heads = (
        {
            cast(int, layer): group.to_numpy(np.int64, copy=True)
            for layer, group in units[units["kind"] == kind].groupby("layer")["index"]
        }
        for kind in (NEURON, HEAD)
    )
    return neurons, heads


# --- What is measured where ---


class _Site(ABC):
    """The input of one output projection: units side by side, all of one width, and their running sums."""

    kind: ClassVar[str]
    input: Tensor  # of the last batch, kept only until its gradient is there

    def __init__(self, layer: int, projection: nn.Linear | Conv1D, units: int) -> None:
        self.layer, self.projection, self.units = layer, projection, units
        self.totals: dict[str, Tensor] = {}

    @abstractmethod
    def measure(self, z: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Weighted sums over tokens of contribution and activation, each (halves, units).

        Args:
            z: what the projection reads, (tokens, units · width).
            weights: of the tokens, (halves, tokens).
        """

    def observe(self, weights: Tensor, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """A forward pre-hook of the projection."""
        (z,) = arguments  # (batch, position, units · width)
        if torch.is_grad_enabled():
            self.input = z if z.requires_grad else z.requires_grad_()  # a frozen model's activations have no graph yet
        self._add(self.measure(z.detach().flatten(0, 1).to(weights.dtype), weights))

    def observe_gradient(self, weights: Tensor, gradient: Tensor) -> None:
        """Takes in ∂L/∂z of the last batch."""
        product = (self.input.detach().to(weights.dtype) * gradient).flatten(0, 1)
        del self.input
        self._add({"attribution": weights @ product.unflatten(1, (self.units, -1)).sum(2).abs()})

    def table(self, sequences: NDArray[np.int64]) -> pd.DataFrame:
        """A row a half and unit; `sequences` counts those of each half."""
        return pd.DataFrame(
            {
                "kind": self.kind,
                "layer": self.layer,
                "index": np.tile(np.arange(self.units), 2),
                "half": np.repeat([0, 1], self.units),
                "sequences": np.repeat(sequences, self.units),
            }
            | {score: (total.cpu().numpy() / sequences[:, None]).ravel() for score, total in self.totals.items()}
        )

    def _add(self, sums: dict[str, Tensor]) -> None:
        for score, value in sums.items():
            self.totals[score] = self.totals.get(score, 0) + value.double()


class _Neurons(_Site):
    kind = NEURON

    def __init__(self, layer: int, projection: nn.Linear | Conv1D) -> None:
        self.norms = _output_weight(projection).square().sum(0).sqrt()  # norm(dim=0) is ten times slower
        super().__init__(layer, projection, len(self.norms))

    def measure(self, z: Tensor, weights: Tensor) -> dict[str, Tensor]:
        activation = weights @ z.abs()
        return {"contribution": activation * self.norms, "activation": activation}


class _Heads(_Site):
    kind = HEAD

    def __init__(self, layer: int, projection: nn.Linear | Conv1D, heads: int) -> None:
        super().__init__(layer, projection, heads)
        # ‖W_O z‖ = ‖R z‖ with W_O = QR: R has the width of a head where W_O has that of the residual stream. It is the
        # root of W_O's Gram matrix, found without squaring, so that small contributions keep their digits.
        blocks = _output_weight(projection).unflatten(1, (heads, -1)).transpose(0, 1)  # (heads, hidden, width)
        self.factors = torch.linalg.qr(blocks, mode="r").R  # (heads, width or less, width)

    def measure(self, z: Tensor, weights: Tensor) -> dict[str, Tensor]:
        z = z.unflatten(1, (self.units, -1)).transpose(0, 1)  # (heads, tokens, width)
        contribution, activation = (z @ self.factors.mT).norm(dim=2), z.norm(dim=2)
        return {"contribution": weights @ contribution.T, "activation": weights @ activation.T}


def _sites(model: PreTrainedModel) -> list[_Site]:
    """Neurons of all layers, then heads of all layers."""
    found: dict[str, dict[int, nn.Linear | Conv1D]] = {"down_proj": {}, "o_proj": {}}
    for name, module in model.named_modules():
        where = place(f"{name}.weight")
        if where.layer is not None and where.module in found and isinstance(module, nn.Linear | Conv1D):
            found[where.module][where.layer] = module
    down, output = found["down_proj"], found["o_proj"]
    if not down or down.keys() != output.keys():
        raise TypeError(
            f"{type(model).__name__}: found the output projections of {len(down)} MLPs and {len(output)} attentions, "
            "expected one of each a layer, named as in Qwen3, Llama, Gemma 3 or GPT-2 (see crossdomain.anatomy)"
        )
    heads: int = model.config.get_text_config().num_attention_heads
    return [
        *(_Neurons(layer, down[layer]) for layer in sorted(down)),
        *(_Heads(layer, output[layer], heads) for layer in sorted(output)),
    ]


def _output_weight(projection: nn.Linear | Conv1D) -> Tensor:
    """Weight in the precision of sums, (hidden, units · width)."""
    weight = projection.weight.detach()
    return (weight.T if isinstance(projection, Conv1D) else weight).to(_arithmetic(weight.dtype))


def _arithmetic(dtype: torch.dtype) -> torch.dtype:
    """What sums are made in: float32, or float64 for a model of that precision."""
    return torch.promote_types(dtype, torch.float32)


# --- Batches ---


class _Batch(NamedTuple):
    """Right-padded sequences."""

    ids: Tensor  # (batch, position)
    mask: Tensor  # 1 on tokens, 0 on padding, (batch, position)
    weights: Tensor  # of a token in the mean of each half, (halves, batch · position)
    response: Tensor  # of a token in its sequence's L, (batch, position)


def _batches(
    model: PreTrainedModel, pad: int, prompts: Sequence[list[int]], responses: Sequence[list[int]], size: int
) -> Iterator[_Batch]:
    for start in range(0, len(prompts), size):
        prompt, response = prompts[start : start + size], responses[start : start + size]
        rows = [torch.tensor(first + second) for first, second in zip(prompt, response, strict=True)]
        ids = pad_sequence(rows, batch_first=True, padding_value=pad)
        position, length = torch.arange(ids.shape[1]), torch.tensor([[len(row)] for row in rows])
        mask = position < length
        answer = mask & (position >= torch.tensor([[len(tokens)] for tokens in prompt]))
        half = torch.arange(2)[:, None] == torch.arange(start, start + len(rows)) % 2  # (halves, batch)
        dtype = _arithmetic(model.dtype)
        weights = half[:, :, None] * (mask.to(dtype) / length)  # each sequence weighs 1 in its half, 0 in the other
        batch = (ids, mask.long(), weights.flatten(1), answer.to(dtype) / answer.sum(1, keepdim=True))
        yield _Batch(*(tensor.to(model.device) for tensor in batch))


def _check(prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> None:
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts and {len(responses)} responses: expected one response a prompt")
    if len(prompts) < 2:
        raise ValueError(f"{len(prompts)} sequences: expected at least 2, one for each half")
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        if not prompt or not response:
            raise ValueError(
                f"sequence {i} has {len(prompt)} prompt and {len(response)} response tokens: expected at least one of "
                "each (a response holds at least its end)"
            )


# --- The pass ---


def _attribute(model: PreTrainedModel, sites: list[_Site], batch: _Batch) -> None:
    """Forward and backward pass of one batch; gradients of parameters are neither computed nor touched."""
    logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
    logits = logits[:, :-1].to(batch.weights.dtype)
    nll = F.cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    loss = nll @ batch.response[:, 1:].flatten()  # the sum over sequences of L, each of its own tokens alone
    gradients = torch.autograd.grad(loss, [site.input for site in sites])
    for site, gradient in zip(sites, gradients, strict=True):
        site.observe_gradient(batch.weights, gradient)


@contextmanager
def _hooked(sites: Sequence[_Site], weights: Tensor) -> Iterator[None]:
    with ExitStack() as stack:
        for site in sites:
            hook: Any = functools.partial(site.observe, weights)
            stack.callback(site.projection.register_forward_pre_hook(hook).remove)
        yield


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
