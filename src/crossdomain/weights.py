"""Checkpoints on disk, read a slice at a time, and the difference of two of them.

A slice is a view of the file, mapped into memory for that slice alone: its pages are given back with the tensor, so that
what is resident is a chunk and never a model. (A mapping kept open would hold on to every page that was ever read through
it, and the library's `pread` backend reads a whole tensor for every slice of it.) To open a large file takes 0.2 ms, about
as long as to read a million entries: chunks should not be much smaller.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
OUTPUT_HEAD = "lm_head.weight"
CHUNK = 2**20
CONVERT = "Pickled weights are never loaded: save the model anew with save_pretrained"


class Vector(Protocol):
    """A vector over named parameters that is read a slice of rows at a time: weights, a change, a saved gradient."""

    @property
    def names(self) -> list[str]:
        """Names of its tensors, sorted."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """A tensor's entries start … stop − 1 along its first axis; a scalar counts as one row, shape (1,)."""


class MismatchError(ValueError):
    """Two checkpoints do not hold the same tensors."""


class Weights:
    """The parameters of a checkpoint saved as safetensors.

    Args:
        path: a checkpoint's directory (`model.safetensors`, or an index with its shards), or one `.safetensors` file.

    Attributes:
        path: where it lies.
        tied: whether its `config.json` says that the output head is the input embedding. A stored `lm_head.weight` is
            then a second copy and is left out of `names`.

    Raises:
        FileNotFoundError: there are no safetensors there, or the index names a shard that is missing.
        ValueError: a file is not readable as safetensors, or holds a tensor that is not of floating point.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.tied = _tied(self.path / CONFIG if self.path.is_dir() else self.path.parent / CONFIG)
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        for file, expected in _files(self.path).items():
            self._read_header(file, expected)

    @property
    def names(self) -> list[str]:
        """Names of its tensors, sorted."""
        return sorted(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        self._check(name)
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        """The type a tensor is stored in."""
        self._check(name)
        return self._dtypes[name]

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """A tensor's entries start … stop − 1 along its first axis, in the stored type.

        Bounds are those of Python's slices; a scalar counts as one row, shape (1,).

        Raises:
            KeyError: there is no tensor of that name.
        """
        scalar = self.shape(name) == ()
        with safe_open(self._files[name], framework="pt") as file:
            tensor: Tensor = (
                file.get_tensor(name).reshape(1)[start:stop] if scalar else file.get_slice(name)[start:stop]
            )
        return tensor

    def _check(self, name: str) -> None:
        if name not in self._files:
            raise KeyError(f"{self.path} has no tensor {name!r}; it has {_some(self.names)}")

    def _read_header(self, path: Path, expected: set[str]) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                if missing := sorted(expected - set(file.keys())):
                    raise ValueError(f"{path} lacks what its index lists: {_some(missing)}; copy the checkpoint again")
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    if self.tied and name.endswith(OUTPUT_HEAD):
                        continue
                    header = file.get_slice(name)
                    if (dtype := header.get_dtype()) not in DTYPES:
                        raise ValueError(
                            f"{path}: {name} is stored as {dtype}; expected floating point ({', '.join(DTYPES)}). "
                            "Dequantise the checkpoint first"
                        )
                    self._files[name] = path
                    self._shapes[name] = tuple(header.get_shape())
                    self._dtypes[name] = DTYPES[dtype]
        except SafetensorError as error:
            raise ValueError(
                f"{path} cannot be read as safetensors ({error}): the file is damaged or incomplete; copy it again"
            ) from error


class Delta:
    """The change from one checkpoint to another: a `Vector` in float32.

    Types may differ between the two. An output head that only one of them stores is no difference where either ties it to
    its embedding.

    Raises:
        MismatchError: tensors are missing on a side, or have another shape; the message names them.
    """

    def __init__(self, before: Weights, after: Weights) -> None:
        self.before, self.after = before, after
        first, second = set(before.names), set(after.names)
        if before.tied or after.tied:
            lone = {name for name in first ^ second if name.endswith(OUTPUT_HEAD)}
            first, second = first - lone, second - lone
        self._names = sorted(first & second)
        reshaped = [
            f"{name} {before.shape(name)} and {after.shape(name)}"
            for name in self._names
            if before.shape(name) != after.shape(name)
        ]
        faults = {
            f"missing in {after.path}": sorted(first - second),
            f"missing in {before.path}": sorted(second - first),
            "of another shape": reshaped,
        }
        if any(faults.values()):
            listed = "; ".join(f"{fault}: {_some(names)}" for fault, names in faults.items() if names)
            raise MismatchError(f"the two checkpoints are not of one model; {listed}. Compare checkpoints of one model")

    @property
    def names(self) -> list[str]:
        """Names of its tensors, sorted."""
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.before.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of after − before, both converted to float32 before the subtraction."""
        before, after = self.pair(name, start, stop)
        return after.float() - before.float()

    def pair(self, name: str, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The same rows of before and after, in their stored types."""
        return self.before.rows(name, start, stop), self.after.rows(name, start, stop)


def chunks(vector: Vector, name: str, elements: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Ranges of rows that cover a tensor, in order, each with about that many elements and at least one row."""
    shape = vector.shape(name)
    count = shape[0] if shape else 1
    step = max(1, elements // max(1, math.prod(shape[1:])))
    for start in range(0, count, step):
        yield start, min(start + step, count)


def _files(path: Path) -> dict[Path, set[str]]:
    """The safetensors files of a checkpoint, found as transformers does, and the tensors its index says they hold."""
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ValueError(f"{path} is not a .safetensors file. {CONVERT}")
        return {path: set()}
    if (path / SINGLE).is_file():
        return {path / SINGLE: set()}
    if (path / INDEX).is_file():
        return _shards(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist; expected a checkpoint's directory or a .safetensors file")
    found = sorted(file.name for file in path.iterdir())
    message = f"{path} has neither {SINGLE} nor {INDEX}; it has {_some(found)}"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in found):
        message += f". {CONVERT}"
    raise FileNotFoundError(message)


def _shards(directory: Path) -> dict[Path, set[str]]:
    try:
        weight_map: dict[str, str] = json.loads((directory / INDEX).read_text())["weight_map"]
        shards: dict[Path, set[str]] = {}
        for name, shard in weight_map.items():
            shards.setdefault(directory / shard, set()).add(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{directory / INDEX} cannot be read ({error!r}): expected JSON with a weight_map") from error
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise FileNotFoundError(f"{directory / INDEX} names shards that are missing: {_some(missing)}; copy them again")
    return shards


def _tied(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); copy it again") from error
    text: dict[str, Any] = config.get("text_config") or {}
    return bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "nothing") + more
