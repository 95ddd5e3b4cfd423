"""Training-free rollback (C10) of checkpoints on disk: coordinates are scored, chosen and taken back a tensor at a time.

The coordinates with the highest ½F_ii δ_i² (Proposition 4, see `rollback`) get their value in `before` back; all others
keep that in `after`. Nothing of the model's size is held in memory: scores are computed where they are read, and the
score from which coordinates are taken is found by counting.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossdomain.anatomy import place
from crossdomain.progress import Progress
from crossdomain.rollback import fisher_scores
from crossdomain.store import MANIFEST
from crossdomain.weights import DTYPES, Delta, Vector, chunks

PICKLED = (".bin", ".pt", ".pth")  # weights that would still be those of after
HALF = 1 << 16  # values of half of a float32's bits
Score = Callable[
    [str, int, int, Tensor], Tensor
]  # of rows start … stop − 1 of a tensor, from its name and their change


class Scores:
    """Scores of all coordinates, computed when they are read: a `Vector`.

    Args:
        delta: the update δ.
        score: scores of 0 or more, in float32; a coordinate with score 0 is never taken back.
    """

    def __init__(self, delta: Delta, score: Score) -> None:
        self.delta, self.score = delta, score

    @classmethod
    def fisher(cls, delta: Delta, diagonal: Vector) -> Scores:
        """½F_ii δ_i², with the diagonal of the Fisher matrix."""
        return cls(delta, lambda name, start, stop, change: fisher_scores(diagonal.rows(name, start, stop), change))

    @classmethod
    def magnitude(cls, delta: Delta) -> Scores:
        """|δ_i| (control)."""
        return cls(delta, lambda name, start, stop, change: change.abs())

    @classmethod
    def random(cls, delta: Delta, seed: int) -> Scores:
        """Random scores of the coordinates that moved (control)."""

        def score(name: str, start: int, stop: int, change: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed)
            drawn = torch.rand(delta.shape(name) or (1,), generator=generator)[start:stop]
            return (1 - drawn) * (change != 0)

        return cls(delta, score)

    @property
    def names(self) -> list[str]:
        """Names of its tensors, sorted."""
        return self.delta.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.delta.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Scores of a tensor's entries start … stop − 1 along its first axis."""
        return self.score(name, start, stop, self.delta.rows(name, start, stop))


def threshold(scores: Scores, count: int) -> float:
    """The lowest score among the `count` highest ones; the lowest positive one if fewer are positive.

    Found by counting bit patterns, which order positive floating-point numbers: the upper halves of all, then the lower
    halves of those that share the upper half in question.

    Raises:
        ValueError: the count is not positive, no score is, or one is negative or not finite.
    """
    if count < 1:
        raise ValueError(f"count = {count}: expected at least one coordinate to take back")
    upper, left = _position(_histogram(scores, lambda bits: bits // HALF), count)
    lower, _ = _position(_histogram(scores, lambda bits: bits[bits // HALF == upper] % HALF), left)
    return float(torch.tensor(upper * HALF + lower, dtype=torch.int32).view(torch.float32))


def _histogram(scores: Scores, part: Callable[[Tensor], Tensor]) -> Tensor:
    counts = torch.zeros(HALF, dtype=torch.long)
    for name in scores.names:
        for start, stop in chunks(scores, name):
            found = scores.rows(name, start, stop).float().flatten()
            if not (found.isfinite() & (found >= 0)).all():
                raise ValueError(
                    f"{name}: expected finite scores of 0 or more; are the weights those of a trained model?"
                )
            counts += torch.bincount(part(found[found > 0].view(torch.int32)), minlength=HALF)
    return counts


def _position(counts: Tensor, count: int) -> tuple[int, int]:
    """The bin that holds the count-th number from above, and which of its numbers, from above, that is."""
    above = counts.flip(0).cumsum(0)
    total = int(above[-1])
    if total == 0:
        raise ValueError("no coordinate has a score above 0: nothing can be taken back (are the checkpoints the same?)")
    place = int(torch.searchsorted(above, min(count, total)))
    bin_ = len(counts) - 1 - place
    return bin_, min(count, total) - int(above[place] - counts[bin_])


class RolledBack:
    """`after` with its highest-scored coordinates as in `before`: a `Vector` in float32.

    Args:
        scores: of the coordinates of the update.
        limit: the score from which coordinates are taken back.
    """

    def __init__(self, scores: Scores, limit: float) -> None:
        self.scores, self.limit = scores, limit

    @property
    def names(self) -> list[str]:
        """Names of its tensors, sorted."""
        return self.scores.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.scores.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of the rolled-back weights."""
        before, after = self.scores.delta.pair(name, start, stop)
        return torch.where(self.taken(name, start, stop), before.float(), after.float())

    def taken(self, name: str, start: int, stop: int) -> Tensor:
        """Which of a tensor's entries are taken back, booleans."""
        scores = self.scores.rows(name, start, stop)
        return (scores > 0) & (scores >= self.limit)

    def count(self) -> int:
        """How many coordinates are taken back."""
        parts = ((name, *rows) for name in self.names for rows in chunks(self, name))
        return sum(int(self.taken(*part).sum()) for part in parts)


class Difference:
    """first − second, a `Vector` in float32."""

    def __init__(self, first: Vector, second: Vector) -> None:
        self.first, self.second = first, second

    @property
    def names(self) -> list[str]:
        """Names of its tensors, sorted."""
        return self.first.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.first.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of the difference."""
        return self.first.rows(name, start, stop).float() - self.second.rows(name, start, stop).float()


def parse_percent(text: str) -> float:
    """A share of the parameters, such as `5%` or `0.5%`, in percent.

    Raises:
        ValueError: it is none, or not above 0 and up to 100.
    """
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 < percent <= 100:
        raise ValueError(f"--keep {text}: expected percent of the parameters, above 0 and up to 100, such as 5%")
    return percent


def check(output: Path) -> None:
    """Make sure that nothing is overwritten.

    Raises:
        FileExistsError: the output is there already.
    """
    if output.exists():
        raise FileExistsError(f"--out {output} exists already; choose another directory or remove it")


def write(after: Path, repaired: RolledBack, output: Path) -> int:
    """Save the rolled-back checkpoint as a copy of `after` in which the taken coordinates are overwritten in place.

    Configuration, tokenizer, shards and the types that weights are stored in are those of `after`, so that whatever loads
    `after` loads this. It appears under its name when it is whole.

    Args:
        after: directory of the checkpoint that is repaired.
        repaired: what to write.
        output: directory, which must not exist.

    Returns:
        How many coordinates were taken back.

    Raises:
        FileExistsError: the output is there already.
    """
    check(output)
    draft = output.with_name(f".{output.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for file in sorted(after.iterdir()):
        if file.is_file() and file.suffix not in PICKLED and file.name != MANIFEST:
            shutil.copyfile(file, draft / file.name)
    taken = 0
    with Progress("writing", len(repaired.names)) as progress:
        for file in sorted(draft.glob("*.safetensors")):
            layout, start = _layout(file)
            for done, name in enumerate(sorted(name for name in layout if name != "__metadata__"), start=1):
                stored = layout[name]
                twin = _twin(repaired, name)
                count = _overwrite(file, start + stored["data_offsets"][0], DTYPES[stored["dtype"]], repaired, twin)
                taken += count if twin == name else 0
                progress.to(done)
    draft.replace(output)
    return taken


def _twin(repaired: RolledBack, name: str) -> str:
    """The tensor that a stored one is a copy of: itself, or the embedding for an output head that is tied to it."""
    if name in repaired.names:
        return name
    return next(other for other in repaired.names if place(other).module == "embedding")


def _layout(file: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file holds where, by name, and the position its offsets count from."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return json.loads(stream.read(size)), 8 + size


def _overwrite(file: Path, position: int, kind: torch.dtype, repaired: RolledBack, name: str) -> int:
    """Write a tensor's taken entries, block of rows by block of rows."""
    shape, taken = repaired.shape(name), 0
    width = torch.Size(shape[1:]).numel() * kind.itemsize
    with file.open("r+b") as stream:
        for start, stop in chunks(repaired, name):
            mask = repaired.taken(name, start, stop)
            if mask.any():
                before, after = repaired.scores.delta.pair(name, start, stop)
                rows = torch.where(mask, before.to(kind), after.to(kind)).contiguous()
                stream.seek(position + start * width)
                stream.write(rows.view(torch.uint8).numpy().tobytes())
                taken += int(mask.sum())
    return taken
