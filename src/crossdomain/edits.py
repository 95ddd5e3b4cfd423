"""What training changed in a model's parameters: how much, how sparsely, and in which neurons (C1, C2).

Two checkpoints are read side by side, once, a block of rows at a time, so that memory does not grow with the model.

Whether an entry counts as changed depends on where the subtraction is made: `stored` subtracts in the type the weights are
stored in, as `after - before` would; `float32` converts both first. In bfloat16 neighbouring numbers are 0.4 to 0.8 %
apart, so no smaller relative change can be stored, and the share of entries that changed by less than 0.1 % is the share
that is exactly equal.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossdomain.anatomy import neuron_axis, place
from crossdomain.progress import Progress
from crossdomain.weights import Delta, Weights, chunks

THRESHOLDS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
PAPER_ABSOLUTE, PAPER_RELATIVE = 1e-7, 1e-3  # C1: changed by less than both
KINDS = [*(("absolute", t) for t in THRESHOLDS), *(("relative", t) for t in THRESHOLDS), ("paper", math.nan)]
SUBTRACTIONS = ("stored", "float32")

EXACT = 512  # smaller dimension up to which the effective rank is exact
BUCKETS = 64  # of the sketch beyond it
SEED = 0  # of the sketch
READ, BLOCK = 2**22, 2**19  # entries that are read, and worked on, at a time
LARGE = 2**28  # parameters from which progress is shown

PLACE_COLUMNS = ["name", "layer", "module", "block"]
TENSOR_COLUMNS = [
    *(*PLACE_COLUMNS, "parameters", "norm_before", "norm_delta", "relative_norm", "max_abs"),
    *("effective_rank", "effective_rank_method", "dtype"),
]
SHARE_COLUMNS = [*PLACE_COLUMNS, "subtraction", "kind", "threshold", "unchanged", "parameters"]


@dataclass(frozen=True)
class Edits:
    """The change from one checkpoint to another.

    Attributes:
        tensors: a row a tensor: `name`, `layer`, `module`, `block` (`anatomy.place`), `parameters`, `norm_before`,
            `norm_delta`, `relative_norm` (their ratio), `max_abs`, `effective_rank`, `effective_rank_method` (`exact`,
            `sketch`, `n/a`) and `dtype`, the type in which `stored` subtracts: that of before.
        shares: a row a tensor (`name`, `layer`, `module`, `block`), `subtraction`, `kind` and `threshold`: how many
            entries are `unchanged` of `parameters`. An entry w that moved by δ is unchanged where |δ| ≤ threshold
            (`absolute`), |δ| ≤ threshold·|w| (`relative`), or |δ| < 1e-7 and |δ| < 1e-3·|w| (`paper`). Where δ = 0 it is
            unchanged by every kind, also at w = 0; where w = 0 and δ ≠ 0 it is changed by `relative` and `paper`.
            Comparisons are made in float32.
        neurons: a row an MLP neuron: `layer`, `index`, and `magnitude`, the L2 norm of its change over gate row, up row
            and down column (GPT-2: `c_fc` column and `c_proj` row).
    """

    tensors: pd.DataFrame
    shares: pd.DataFrame
    neurons: pd.DataFrame


def analyse(before: Weights, after: Weights) -> Edits:
    """The change from one checkpoint to another, in one pass over both.

    The effective rank of a matrix is the participation ratio of its squared singular values, (Σσ²)²/Σσ⁴: 1 for rank one,
    r for r equal singular values, NaN where nothing changed. It is exact where the smaller dimension is at most 512, and
    estimated from a sketch beyond it (`RowSketch`). Tensors of more than two axes count as matrices of their rows.

    Raises:
        MismatchError: the two do not hold the same tensors.
        ValueError: a tensor is stored as float64, or holds values that are not finite.
    """
    delta = Delta(before, after)
    places = {name: place(name) for name in delta.names}
    neurons: dict[int, Tensor] = {}
    tensors, shares = [], []
    size = sum(math.prod(delta.shape(name)) for name in delta.names)
    with Progress("edits", len(places)) if size >= LARGE else contextlib.nullcontext() as progress:
        for done, (name, where) in enumerate(places.items(), start=1):
            tally = _Tally(delta, name)
            tally.read(delta)
            tensors.append((name, *where, *tally.row()))
            shares += [(name, *where, *row) for row in tally.share_rows()]
            if tally.neurons is not None and where.layer is not None:
                neurons[where.layer] = neurons.get(where.layer, 0) + tally.neurons
            if progress:
                progress.to(done)
    return Edits(_table(tensors, TENSOR_COLUMNS), _table(shares, SHARE_COLUMNS), _neuron_table(neurons))


def summarise(shares: pd.DataFrame, by: str | Sequence[str] = ()) -> pd.DataFrame:
    """Shares of unchanged parameters over the whole model, or over parts of it.

    Args:
        shares: of `Edits`.
        by: columns that name the parts, such as `"layer"` or `["layer", "module"]`; none for the whole model.

    Returns:
        A row a part, `subtraction`, `kind` and `threshold`: `unchanged`, `parameters` and `share`, their ratio.

    Raises:
        ValueError: there is no such column to take parts by.
    """
    parts = [by] if isinstance(by, str) else list(by)
    if unknown := [part for part in parts if part not in PLACE_COLUMNS]:
        raise ValueError(f"by = {', '.join(unknown)}: expected columns of {', '.join(PLACE_COLUMNS)}")
    keys = [*parts, "subtraction", "kind", "threshold"]
    table = shares.groupby(keys, sort=False, dropna=False)[["unchanged", "parameters"]].sum().reset_index()
    return table.assign(share=table["unchanged"] / table["parameters"])


class _Tally:
    """One tensor's change, as a matrix of its rows, summed over one pass."""

    def __init__(self, delta: Delta, name: str) -> None:
        shape = delta.shape(name)
        self.name, self.parameters = name, math.prod(shape)
        self.dtype, other = delta.before.dtype(name), delta.after.dtype(name)
        if torch.float64 in (self.dtype, other):
            raise ValueError(f"{name} is stored as float64; expected float32 or less: save the checkpoint in float32")
        self.same_dtype = self.dtype == other
        # Where neighbouring numbers are further apart than any relative threshold, no entry's size needs to be looked up.
        self.coarse = self.same_dtype and torch.finfo(self.dtype).eps / 2 > max(*THRESHOLDS, PAPER_RELATIVE)
        self.rows, self.columns = (shape[0] if shape else 1), math.prod(shape[1:])
        self.spectrum = _spectrum(self.rows, self.columns) if len(shape) > 1 else None
        self.axis = neuron_axis(name)
        self.row_norms = torch.zeros(2, self.rows)  # of before and of the change
        self.column_squares = torch.zeros(self.columns, dtype=torch.float64)
        self.max_abs = 0.0
        self.changed = np.zeros((len(SUBTRACTIONS), len(KINDS)), dtype=np.int64)

    def read(self, delta: Delta) -> None:
        """Go through the tensor once."""
        step = max(1, min(self.rows, BLOCK // max(1, self.columns)))
        buffers = torch.empty(2, step, self.columns)  # fresh memory would cost as much as the arithmetic
        for start, stop in chunks(delta, self.name, READ):
            old, new = (side.reshape(stop - start, self.columns) for side in delta.pair(self.name, start, stop))
            for first in range(start, stop, step):
                last = min(first + step, stop)
                block = slice(first - start, last - start)
                self._add(slice(first, last), old[block], new[block], buffers[:, : last - first])
        if not self.row_norms.isfinite().all():
            raise ValueError(f"{self.name} holds values that are not finite; expected the weights of a trained model")

    def _add(self, rows: slice, old: Tensor, new: Tensor, buffers: Tensor) -> None:
        before, change = buffers.unbind()
        change.copy_(new).sub_(before.copy_(old))
        torch.linalg.vector_norm(buffers, dim=2, out=self.row_norms[:, rows])
        if self.spectrum is not None:
            self.spectrum.add(rows, change)
        if self.axis == 1:
            self.column_squares += change.square().sum(dim=0)
        moves, sizes = self._moved(before, change)
        self.max_abs = max(self.max_abs, float(moves.max(initial=0)))
        stored = counts = _changed(moves, sizes)
        if self.dtype != torch.float32:
            if not self.same_dtype:
                moves, sizes = self._moved(before, new.to(self.dtype).float() - before)
            stored = _changed(torch.from_numpy(moves).to(self.dtype).float().numpy(), sizes)
        self.changed += (stored, counts)

    def _moved(self, before: Tensor, change: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """|δ| of the entries that moved (most do not), and their |w| where it is needed."""
        flat = change.view(-1).numpy()
        moved = np.flatnonzero(flat != 0)
        return np.abs(np.take(flat, moved)), None if self.coarse else np.abs(np.take(before.view(-1).numpy(), moved))

    def row(self) -> tuple[object, ...]:
        """The tensor's row of `Edits.tensors`, from `parameters` on."""
        _, row_squares = self.row_norms.double().square()
        before, change = self.row_norms.double().norm(dim=1).tolist()
        rank, method = math.nan, "n/a"
        if self.spectrum is not None:
            method = self.spectrum.method
            fourth = self.spectrum.fourth_moment(row_squares)
            rank = change**4 / fourth if change else math.nan
        relative = change / before if before else math.nan
        dtype = str(self.dtype).removeprefix("torch.")
        return self.parameters, before, change, relative, self.max_abs, rank, method, dtype

    def share_rows(self) -> list[tuple[object, ...]]:
        """The tensor's rows of `Edits.shares`, from `subtraction` on."""
        return [
            (subtraction, kind, threshold, self.parameters - changed, self.parameters)
            for subtraction, counts in zip(SUBTRACTIONS, self.changed.tolist(), strict=True)
            for (kind, threshold), changed in zip(KINDS, counts, strict=True)
        ]

    @property
    def neurons(self) -> Tensor | None:
        """Squared change of each neuron in this tensor, shape (neurons,); None where it has none."""
        return None if self.axis is None else (self.row_norms[1].double().square(), self.column_squares)[self.axis]


class ColumnGram:
    """Σσ⁴ of a matrix with few columns, from its Gram matrix: exact."""

    method = "exact"

    def __init__(self, columns: int) -> None:
        self._gram = torch.zeros(columns, columns, dtype=torch.float64)

    def add(self, rows: slice, block: Tensor) -> None:
        """Take in a block: these rows of the matrix."""
        exact = block.double()
        self._gram.addmm_(exact.T, exact)

    def fourth_moment(self, row_squares: Tensor) -> float:
        """Σσ⁴, the squared Frobenius norm of the Gram matrix."""
        return float(self._gram.square().sum())


class RowSketch:
    """Σσ⁴ of a matrix D from one pass over its rows: exact for few rows, an estimate for many.

    Σσ⁴ = ‖DDᵀ‖² is Σ_r ‖D_r‖⁴, known exactly, plus what pairs of different rows add. Rows fall into random buckets and are
    summed there with random signs (a count sketch, Charikar et al., 2002), S = CD with Gram matrix G = SSᵀ. Over the
    buckets j ≠ k, E Σ G_jk² is that part of the pairs times the share of pairs in different buckets, and E Σ G_jj G_kk is
    its known bound Σ_{r≠s} ‖D_r‖²‖D_s‖² times the same share: the ratio of the two sums estimates the one from the other.
    It is exact for rank one and for orthogonal rows. With m buckets the relative error is at most about 2/m for a high
    rank (3 % at m = 64) and about 10 % where few directions rule. A bucket for each row makes it exact.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.method = "exact" if rows <= EXACT else "sketch"
        if self.method == "exact":
            self._buckets, self._places = rows, torch.arange(rows)
        else:
            signed = np.random.default_rng(SEED).integers(2 * BUCKETS, size=rows)
            self._buckets, self._places = BUCKETS, torch.from_numpy(signed)
        self._sums = torch.zeros(2 * self._buckets, columns)  # rows of positive sign, then of negative

    def add(self, rows: slice, block: Tensor) -> None:
        """Take in a block: these rows of the matrix."""
        self._sums.index_add_(0, self._places[rows], block)

    def fourth_moment(self, row_squares: Tensor) -> float:
        """Σσ⁴, given the squared norms of the rows, shape (rows,); NaN where one bucket holds all that is not zero."""
        signed = self._sums.double()
        sums = signed[: self._buckets] - signed[self._buckets :]
        gram = sums @ sums.T
        same = float(row_squares.square().sum())
        if row_squares.count_nonzero() == 1:
            return same
        bound = float(row_squares.sum()) ** 2 - same
        seen_bound = float(gram.trace()) ** 2 - float(gram.diagonal().square().sum())
        seen = float(gram.square().sum()) - float(gram.diagonal().square().sum())
        return same + bound * seen / seen_bound if seen_bound > 0 else math.nan


def _spectrum(rows: int, columns: int) -> ColumnGram | RowSketch:
    return ColumnGram(columns) if columns <= min(rows, EXACT) else RowSketch(rows, columns)


def _changed(moves: NDArray[np.float32], sizes: NDArray[np.float32] | None) -> NDArray[np.int64]:
    """How many entries of size |w| that moved by |δ| count as changed, by kind; without sizes, all do relatively."""
    absolute = [np.count_nonzero(moves > limit) for limit in THRESHOLDS]
    if sizes is None:
        return np.array(absolute + [len(moves)] * (len(THRESHOLDS) + 1))
    with np.errstate(invalid="ignore"):  # what is not finite is refused in the end
        relative = [np.count_nonzero(moves > limit * sizes) for limit in THRESHOLDS]
        paper = (moves >= PAPER_ABSOLUTE) | (moves >= PAPER_RELATIVE * sizes)
    return np.array([*absolute, *relative, np.count_nonzero(paper)])


def _table(rows: list[tuple[object, ...]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})


def _neuron_table(squares: dict[int, Tensor]) -> pd.DataFrame:
    tables = [
        pd.DataFrame(
            {"layer": layer, "index": np.arange(len(squares[layer])), "magnitude": squares[layer].sqrt().numpy()}
        )
        for layer in sorted(squares)
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["layer", "index", "magnitude"])
