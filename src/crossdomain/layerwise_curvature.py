"""Curvature of models too large for `curvature`: exact products, a microbatch and one piece of the model at a time.

Going forward, only the hidden states between pieces are kept (activation checkpointing); going backward, a piece is run
again from what went into it, and its part of the product is handed out at once. Weights and directions are read from
`weights.Vector`s, so that neither they nor the product are ever whole in memory.

A product is carried by tangents and their adjoints. With ḣ the change of hidden states along v, λ = ∂L/∂h and λ̇ the change
of λ along v, a piece y = f(w, h) gives

    (Hv)_w = ∂q/∂w,  λ̇_h = ∂q/∂h,  q = ⟨∂⟨λ, y⟩/∂w, v_w⟩ + ⟨∂⟨λ, y⟩/∂h, ḣ⟩ + ⟨λ̇_y, y⟩,

which is the chain rule for the gradient's derivative along v (Pearlmutter, 1994); no graph reaches past a piece. The
Gauss–Newton product is the same with λ = 0 and with H_out ẏ for λ̇ at the logits (Schraudolph, 2002): of
`response_losses.own_divergence` it is the Fisher matrix's, and equal to the Hessian's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jvp

from crossdomain.layerwise import Batch, Decoder, Piece, Tensors
from crossdomain.response_losses import divergence
from crossdomain.weights import Vector

STATES = 2**30  # bytes of hidden states kept at a time; rows beyond it take another pass over the weights

Losses = Callable[[Tensor, Batch], Tensor]
Part = tuple[str, Tensor]


class Pulled(NamedTuple):
    """A piece's part of a product by parameter, and λ (None for 0) and λ̇ before the piece."""

    parts: list[Tensor]
    adjoint: Tensor | None
    change: Tensor


class LayerwiseCurvature:
    """Derivatives of a mean over rows of losses of a decoder's logits.

    Args:
        decoder: the model.
        params: where they are taken.
        batches: as `rollouts.microbatches` makes them.
        losses: of each row from the logits of its response, shape (rows,).
        states: bytes of hidden states kept at a time.
        piece_done: called after each piece of each pass, to show progress.

    Raises:
        ValueError: there are no rows.
    """

    def __init__(
        self,
        decoder: Decoder,
        params: Vector,
        batches: Sequence[Mapping[str, Tensor]],
        losses: Losses,
        *,
        states: int = STATES,
        piece_done: Callable[[], None] = lambda: None,
    ) -> None:
        self.decoder, self.params, self.losses = decoder, params, losses
        self.states, self.piece_done = states, piece_done
        self.batches: list[Batch] = [{**batch, "calls": decoder.arguments(batch)} for batch in batches]
        self.rows = sum(len(batch["ids"]) for batch in batches)
        if self.rows == 0:
            raise ValueError("expected at least one row to differentiate a loss on, got none")

    def hvp(self, direction: Vector) -> Iterator[Part]:
        """H v, exactly, in parts.

        Args:
            direction: v.

        Yields:
            Name and part of the product for one parameter and as many rows as fit (`states`): the product is the sum of a
            name's parts. A tied embedding has one from either end.
        """
        return self._product(direction, self._slope)

    def ggn_vp(self, direction: Vector) -> Iterator[Part]:
        """G v, the Gauss–Newton product, in parts as `hvp`."""
        return self._product(direction, self._curved)

    def quadratic_form(self, direction: Vector) -> Tensor:
        """½ vᵀGv of each row, shape (rows,), float64: by a forward pass alone."""
        found = []
        for batch, (hidden, tangent), tail in self._ends(direction):
            logits, change = _pushed(self.decoder.pieces[-1], tail, hidden, tangent, batch)
            found.append(0.5 * (self._curvature(logits, change, batch) * change).sum((1, 2)).double())
        return torch.cat(found)

    def divergences(self, others: Sequence[Vector]) -> Tensor:
        """KL(π_params ‖ π_other) of each row for each of other parameters; shape (others, rows), float64.

        Takes hidden states of all rows before the head at a time, but logits of a microbatch.
        """
        head = self.decoder.pieces[-1]
        own = [hidden for _, (hidden, _), _ in self._ends(None)]
        weights = self._read(self.params, head)
        found = []
        with torch.no_grad():
            for other in others:
                rows = [
                    divergence(head.run(weights, mine, batch), head.run(tail[0], hidden, batch), batch).double()
                    for mine, (batch, (hidden, _), tail) in zip(own, self._ends(None, other), strict=True)
                ]
                found.append(torch.cat(rows))
        return torch.stack(found)

    def fisher_diagonal(self) -> Iterator[Part]:
        """The diagonal of mean g gᵀ over rows, g the gradient of a row's loss, in parts whose sum it is.

        Raises:
            ValueError: a microbatch has several rows, whose gradients would add up before they are squared.
        """
        if largest := max(len(batch["ids"]) for batch in self.batches) - 1:
            raise ValueError(f"a microbatch has {largest + 1} rows: expected one, since each row's gradient is squared")
        pieces, tied = self.decoder.pieces, self.decoder.tied
        head = self._read(self.params, pieces[-1])
        for group in self._groups(1):
            inputs = self._inputs(group, None)
            adjoints = [torch.empty(0) for _ in group]
            for k, piece in reversed(list(enumerate(pieces))):
                weights = head if k == len(pieces) - 1 else self._read(self.params, piece)
                own = {name: weight for name, weight in weights.items() if k == 0 or name not in tied}
                totals = {name: torch.zeros_like(weight) for name, weight in own.items()}
                for i, batch in enumerate(group):
                    leaves, hidden = _leaves(own), inputs[k][i][0].detach().requires_grad_()
                    if k == len(pieces) - 1:
                        scalar = self._loss({**head, **leaves}, hidden, batch)
                    else:
                        scalar = (piece.run(leaves, hidden, batch) * adjoints[i]).sum()
                    if k == 0 and tied:  # a tied embedding's gradient must be whole before it is squared
                        tail = {**head, **{name: leaves[name] for name in tied}}
                        scalar = scalar + self._loss(tail, inputs[-1][i][0], batch)
                    *gradients, adjoints[i] = _derivatives(scalar, [*leaves.values(), hidden])
                    for total, gradient in zip(totals.values(), gradients, strict=True):
                        total.addcmul_(gradient, gradient, value=1 / self.rows)
                yield from totals.items()
                self.piece_done()

    def steps(self, copies: int) -> int:
        """Pieces that a product (`copies` = 2) or the diagonal (1) runs through; a forward pass runs once through each."""
        return sum(2 * len(self.decoder.pieces) - 1 for _ in self._groups(copies))

    # --- Forward ---

    def _inputs(self, group: Sequence[Batch], direction: Vector | None) -> list[list[tuple[Tensor, Tensor]]]:
        """What goes into each piece, with its tangent (the same where there is no direction), by piece and microbatch."""
        nothing = torch.empty(0, dtype=self.decoder.dtype)
        inputs = [[(nothing, nothing) for _ in group]]
        for piece in self.decoder.pieces[:-1]:
            inputs.append(self._step(piece, group, inputs[-1], direction, self.params))
        return inputs

    def _step(
        self,
        piece: Piece,
        group: Sequence[Batch],
        states: Sequence[tuple[Tensor, Tensor]],
        direction: Vector | None,
        params: Vector,
    ) -> list[tuple[Tensor, Tensor]]:
        weights = self._read(params, piece)
        found = []
        if direction is None:
            with torch.no_grad():
                for batch, (hidden, _) in zip(group, states, strict=True):
                    state = piece.run(weights, hidden, batch)
                    found.append((state, state))
        else:
            tangents = self._read(direction, piece)
            for batch, (hidden, tangent) in zip(group, states, strict=True):
                found.append(_pushed(piece, (weights, tangents), hidden, tangent, batch))
        self.piece_done()
        return found

    def _ends(
        self, direction: Vector | None, params: Vector | None = None
    ) -> Iterator[tuple[Batch, tuple[Tensor, Tensor], tuple[Tensors, Tensors]]]:
        """Every microbatch with the states before the head, and the head's weights and tangents."""
        where = params or self.params
        nothing = torch.empty(0, dtype=self.decoder.dtype)
        states = [(nothing, nothing)] * len(self.batches)
        for piece in self.decoder.pieces[:-1]:
            states = self._step(piece, self.batches, states, direction, where)
        head = self.decoder.pieces[-1]
        tail = (self._read(where, head), {} if direction is None else self._read(direction, head))
        for batch, state in zip(self.batches, states, strict=True):
            yield batch, state, tail
        self.piece_done()

    # --- Backward ---

    def _product(self, direction: Vector, head: Callable[..., Pulled]) -> Iterator[Part]:
        pieces = self.decoder.pieces
        for group in self._groups(2):
            inputs = self._inputs(group, direction)
            behind: list[tuple[Tensor | None, Tensor]] = []  # λ and λ̇ behind the piece, by microbatch
            for k, piece in reversed(list(enumerate(pieces))):
                weights, tangents = self._read(self.params, piece), self._read(direction, piece)
                totals = [torch.zeros_like(weight) for weight in weights.values()]
                before = []
                for i, (batch, state) in enumerate(zip(group, inputs[k], strict=True)):
                    if k == len(pieces) - 1:
                        found = head(weights, tangents, *state, batch)
                    else:
                        found = _pulled(_of_batch(piece, batch), weights, tangents, *state, *behind[i])
                    for total, part in zip(totals, found.parts, strict=True):
                        total += part
                    before.append((found.adjoint, found.change))
                behind = before
                inputs.pop()
                yield from zip(piece.names, totals, strict=True)
                self.piece_done()

    def _slope(self, weights: Tensors, tangents: Tensors, hidden: Tensor, tangent: Tensor, batch: Batch) -> Pulled:
        """The head with the losses, for `hvp`."""

        def run(found: Tensors, state: Tensor) -> Tensor:
            return self._loss(found, state, batch) / self.rows

        one = torch.ones((), dtype=self.decoder.dtype)
        return _pulled(run, weights, tangents, hidden, tangent, one, 0 * one)

    def _loss(self, head: Tensors, hidden: Tensor, batch: Batch) -> Tensor:
        """The sum of the losses of a microbatch, from the states before the head."""
        return self.losses(self.decoder.pieces[-1].run(head, hidden, batch), batch).sum()

    def _curved(self, weights: Tensors, tangents: Tensors, hidden: Tensor, tangent: Tensor, batch: Batch) -> Pulled:
        """The head with the losses' curvature in the logits, for `ggn_vp`."""
        head = self.decoder.pieces[-1]
        logits, change = _pushed(head, (weights, tangents), hidden, tangent, batch)
        adjoint = self._curvature(logits, change, batch) / self.rows
        return _pulled(_of_batch(head, batch), weights, tangents, hidden, tangent, None, adjoint)

    def _curvature(self, logits: Tensor, change: Tensor, batch: Batch) -> Tensor:
        """H_out ẏ, the losses' Hessian in the logits times their change, (rows, position, vocabulary)."""
        outputs = logits.detach().requires_grad_()
        (slope,) = _derivatives(self.losses(outputs, batch).sum(), [outputs], create_graph=True)
        (curved,) = _derivatives((slope * change).sum(), [outputs])
        return curved

    # --- Reading ---

    def _read(self, vector: Vector, piece: Piece) -> dict[str, Tensor]:
        """A piece's parameters, in the decoder's precision."""
        found = {}
        for name in piece.names:
            shape = vector.shape(name)
            rows = vector.rows(name, 0, shape[0] if shape else 1)
            found[name] = rows.reshape(shape).to(self.decoder.dtype)
        return found

    def _groups(self, copies: int) -> Iterator[list[Batch]]:
        """Microbatches whose hidden states, with their tangents if `copies` is 2, may be kept at a time; one at least."""
        size = copies * self.decoder.dtype.itemsize * self.decoder.width * len(self.decoder.pieces)
        group: list[Batch] = []
        for batch in self.batches:
            if group and size * sum(kept["ids"].numel() for kept in (*group, batch)) > self.states:
                yield group
                group = []
            group.append(batch)
        yield group


def _pushed(
    piece: Piece, weights: tuple[Tensors, Tensors], hidden: Tensor, tangent: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """A piece's output and its change along the tangents of its weights and of what goes into it."""
    params, direction = weights
    with torch.no_grad():
        value, change, *_ = jvp(_of_batch(piece, batch), (dict(params), hidden), (dict(direction), tangent))
    return value, change


def _pulled(
    run: Callable[[Tensors, Tensor], Tensor],
    weights: Tensors,
    tangents: Tensors,
    hidden: Tensor,
    tangent: Tensor,
    adjoint: Tensor | None,
    change: Tensor,
) -> Pulled:
    """A piece's part of a product, and λ and λ̇ before it, from those behind it; no λ stands for 0."""
    leaves, state = _leaves(weights), hidden.detach().requires_grad_()
    inputs = [*leaves.values(), state]
    output = run(leaves, state)
    slope = (output * change).sum()
    before = None
    if adjoint is not None:
        first = _derivatives((output * adjoint).sum(), inputs, create_graph=True)
        before = first[-1].detach()
        along = [*tangents.values(), tangent]
        slope = slope + torch.stack([(g * t).sum() for g, t in zip(first, along, strict=True)]).sum()
    *parts, after = _derivatives(slope, inputs)
    return Pulled(parts, before, after)


def _of_batch(piece: Piece, batch: Batch) -> Callable[[Tensors, Tensor], Tensor]:
    return lambda weights, hidden: piece.run(weights, hidden, batch)


def _leaves(weights: Tensors) -> dict[str, Tensor]:
    return {name: weight.detach().requires_grad_() for name, weight in weights.items()}


def _derivatives(scalar: Tensor, inputs: Sequence[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """Derivatives of a scalar: zero where it does not depend on them."""
    found: Any = torch.autograd.grad(scalar, inputs, create_graph=create_graph, materialize_grads=True)
    return tuple(found)
