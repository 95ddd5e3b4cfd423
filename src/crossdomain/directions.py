"""Directions of several vectors over a model's parameters (updates or gradients): cosines and sign agreement (C3, C5).

All of it follows from inner products, so these are computed once, in one pass over the parameters: the Gram matrix of the
vectors in every tensor and, where asked for, in every unit (neuron, head, key-value group). Cosines over any set of tensors
or units, random sets for a control included, are then sums of small matrices. Signs are treated alike: the Gram matrix of
sign(v) counts agreements minus disagreements, that of |sign(v)| the coordinates where both vectors are not zero.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from crossdomain import units
from crossdomain.anatomy import place
from crossdomain.weights import CHUNK, Vector, chunks

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Grams:
    """Inner products of n vectors.

    Attributes:
        labels: names of the vectors.
        names: names of the tensors.
        dimensions: axes of each tensor.
        tensors: inner products in each tensor, (tensors, n, n).
        units: inner products in each unit by kind, (layers, units of a layer, n, n); empty where not asked for.
    """

    labels: list[str]
    names: list[str]
    dimensions: list[int]
    tensors: Array
    units: dict[str, Array]

    def total(self, keep: Callable[[str], bool] = lambda name: True, *, matrices: bool = False) -> Array:
        """Inner products over the tensors whose name is kept, of those with two axes or more if `matrices`; (n, n)."""
        kept = [keep(name) and (d > 1 or not matrices) for name, d in zip(self.names, self.dimensions, strict=True)]
        return np.asarray(self.tensors[kept].sum(0))

    def save(self, directory: Path) -> None:
        """Write them to a directory."""
        arrays = {"tensors": self.tensors} | {f"units.{kind}": value for kind, value in self.units.items()}
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()}, directory / "grams.safetensors"
        )
        text = {"labels": self.labels, "names": self.names, "dimensions": self.dimensions}
        (directory / "grams.json").write_text(json.dumps(text))

    @classmethod
    def load(cls, directory: Path) -> Grams:
        """Read them back."""
        arrays = load_file(directory / "grams.safetensors")
        text = json.loads((directory / "grams.json").read_text())
        parts = {name.removeprefix("units."): value for name, value in arrays.items() if name.startswith("units.")}
        return cls(**text, tensors=arrays["tensors"], units=parts)


def grams(
    vectors: Mapping[str, Vector],
    shape: units.Shape | None = None,
    transform: Callable[[Tensor], Tensor] = lambda values: values,
) -> Grams:
    """Inner products of vectors, streamed: one stretch of one tensor of each in memory at a time.

    Args:
        vectors: at least one, over the same tensors.
        shape: units of the model, to have the inner products of each unit, too.
        transform: what is taken of each vector, coordinate by coordinate, such as `torch.sign`.

    Raises:
        ValueError: there is no vector, they are not over the same tensors, or one is not finite (the message names it).
    """
    if not vectors:
        raise ValueError("expected at least one vector, got none")
    labels, first = list(vectors), next(iter(vectors.values()))
    for label, vector in vectors.items():
        if {name: vector.shape(name) for name in vector.names} != {name: first.shape(name) for name in first.names}:
            raise ValueError(f"{label!r} is not over the same tensors as {labels[0]!r}: expected vectors of one model")
    n = len(labels)
    tensors = np.zeros((len(first.names), n, n))
    counts = {} if shape is None else {kind: (shape.layers, getattr(shape, kind), n, n) for kind in units.KINDS}
    by_unit = {kind: torch.zeros(size, dtype=torch.float64) for kind, size in counts.items()}
    for t, name in enumerate(first.names):
        blocks = units.blocks(name, first.shape(name), shape) if shape else []
        for start, stop in chunks(first, name, CHUNK // n):
            rows = [transform(vector.rows(name, start, stop).double()) for vector in vectors.values()]
            stacked = torch.stack(rows).reshape(n, stop - start, -1)  # (vector, row, column)
            flat = stacked.flatten(1)
            tensors[t] += (flat @ flat.T).numpy()
            for block in blocks:
                layer = by_unit[block.kind][place(name).layer or 0]
                _add_units(layer, block, stacked, start)
        if not np.isfinite(tensors[t]).all():
            bad = [label for label, value in zip(labels, tensors[t].diagonal(), strict=True) if not np.isfinite(value)]
            raise ValueError(f"{name} of {', '.join(bad)} has values that are not finite: nothing can be said of it")
    dimensions = [len(first.shape(name)) for name in first.names]
    return Grams(labels, list(first.names), dimensions, tensors, {kind: v.numpy() for kind, v in by_unit.items()})


def _add_units(layer: Tensor, block: units.Block, stacked: Tensor, start: int) -> None:
    """Add the inner products of rows from `start` on to those of a layer's units, (units, n, n)."""
    along = stacked.movedim(1 + block.axis, 0)  # (row or column of the block's axis, vector, the other axis)
    first = start if block.axis == 0 else 0
    position = torch.arange(first, first + len(along)) - block.start
    inside = (position >= 0) & (position < block.width * block.units)
    part = along[inside]
    layer.index_add_(0, position[inside] // block.width, part @ part.mT)


def cosines(gram: Array) -> Array:
    """Cosines from inner products, (…, n, n); NaN where a vector is zero."""
    norms = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    product = norms[..., :, None] * norms[..., None, :]
    return np.asarray(np.divide(gram, product, out=np.full_like(gram, np.nan), where=product > 0))


def matrix_cosines(found: Grams) -> pd.DataFrame:
    """Cosines of all pairs of vectors in every matrix (1-D tensors left out).

    Returns:
        A row a pair and matrix: `a`, `b`, `name`, `layer`, `module`, `block`, `cosine`.
    """
    rows = []
    for name, dimensions, cosine in zip(found.names, found.dimensions, cosines(found.tensors), strict=True):
        if dimensions > 1:
            at = {"name": name, **place(name)._asdict()}
            for (i, a), (j, b) in combinations(enumerate(found.labels), 2):
                rows.append({"a": a, "b": b, **at, "cosine": float(cosine[i, j])})
    return pd.DataFrame(rows)


def agreement(signs: Array, both: Array) -> Array:
    """Share of the coordinates where both vectors move that they move in the same direction; 0.5 by chance.

    Args:
        signs: Gram matrix of sign(v), (…, n, n).
        both: Gram matrix of |sign(v)|.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((1 + signs / both) / 2)


def on_route(found: Grams, route: pd.Series[bool]) -> tuple[Array, Array]:
    """Inner products on a route's units and on all other units, each (n, n).

    A key-value group is on the route if one of the heads that read it is. Parameters that belong to no unit are on neither
    side.

    Args:
        found: with inner products by unit.
        route: whether each unit is active, indexed by `kind`, `layer`, `index` (see `routes.active`).
    """
    on, off = _route_sums(found, {kind: mask[None] for kind, mask in _masks(found, route).items()})
    return on[0], off[0]


def random_routes(found: Grams, route: pd.Series[bool], draws: int, seed: int = 0) -> Array:
    """Inner products on random routes with as many neurons and heads in every layer as a given one, (draws, n, n)."""
    rng = np.random.default_rng(seed)
    shuffled = {
        kind: rng.permuted(np.broadcast_to(mask, (draws, *mask.shape)), axis=2)
        for kind, mask in _masks(found, route).items()
    }
    return _route_sums(found, shuffled)[0]


def _masks(found: Grams, route: pd.Series[bool]) -> dict[str, NDArray[np.bool_]]:
    """Active neurons and heads, (layers, units of a layer) each."""
    if not found.units:
        raise ValueError("these inner products are not by unit: call grams() with the shape of the model")
    masks = {kind: np.zeros(found.units[kind].shape[:2], dtype=bool) for kind in ("neuron", "head")}
    for kind, layer, index in route.index[route]:
        masks[kind][layer, index] = True
    return masks


def _route_sums(found: Grams, masks: Mapping[str, NDArray[np.bool_]]) -> tuple[Array, Array]:
    """Sums over the units inside and outside masks of shape (draws, layers, units of a layer); each (draws, n, n)."""
    heads = masks["head"]
    draws, layers, _ = heads.shape
    groups = np.any(heads.reshape(draws, layers, found.units["group"].shape[1], -1), axis=-1)
    n = len(found.labels)
    on, everything = np.zeros((draws, n, n)), np.zeros((n, n))
    for kind, mask in [*masks.items(), ("group", groups)]:
        values = found.units[kind]
        on += (mask.reshape(draws, -1).astype(float) @ values.reshape(-1, n * n)).reshape(-1, n, n)
        everything += values.sum((0, 1))
    return on, everything - on
