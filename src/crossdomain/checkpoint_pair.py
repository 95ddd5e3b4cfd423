"""Two checkpoints on disk that are to be compared, checked before anything is computed, and what all comparisons need.

`before` is the checkpoint whose skill was good, `after` the one that hurt it, `base` (if known) what `before` was trained
from. A skill is a file of prompts. The first file is the skill to bring back; the others are what should stay as `after`
has it. Of every file the first, third, … prompt choose coordinates, the second, fourth, … judge.

What is computed is kept in the store under all that determines it: what was interrupted goes on where it was, and a
rollback finds what a diagnosis computed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedTokenizerBase

from crossdomain import (
    checkpoint_rollback,
    directions,
    edits,
    generation,
    layerwise,
    layerwise_curvature,
    models,
    prompt_files,
    provenance,
    response_losses,
    routes,
    weights,
)
from crossdomain.checkpoint_rollback import RolledBack, Scores
from crossdomain.diagnosis_needs import Needs, needs, rows_at_once
from crossdomain.layerwise import Decoder
from crossdomain.layerwise_curvature import LayerwiseCurvature
from crossdomain.progress import Progress
from crossdomain.prompt_files import Answers, Prompts
from crossdomain.response_losses import negative_log_likelihood, own_divergence
from crossdomain.store import MANIFEST, Artifact, Store, sha256
from crossdomain.weights import Delta, Weights

FISHER, MAGNITUDE, RANDOM = "F·δ²", "magnitude", "random"
CODE = (
    layerwise,
    layerwise_curvature,
    response_losses,
    checkpoint_rollback,
    prompt_files,
    generation,
    routes,
    edits,
    directions,
)

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Candidate:
    """A set of coordinates to take back: the first `percent` of the parameters by a ranking."""

    ranking: str
    percent: float


class CheckpointPair:
    """Two checkpoints and prompts for them.

    Args:
        before: directory of the checkpoint whose skill was good.
        after: directory of the one that hurt it.
        prompts: files of prompts (`prompt_files`), first the skill to bring back.
        base: directory of what `before` was trained from, to compare the two trainings.
        limit: prompts of a file at most.
        max_new_tokens: where answers are cut off.
        store: where results are kept.
        refer: called with the key and the artifact of all that is kept, such as `Lineage.refer`.

    Raises:
        FileNotFoundError: a directory or file is missing.
        MismatchError: the checkpoints are not of one model.
        PromptError: a file of prompts cannot be used.
        TypeError: the model is of no supported family.
        ValueError: a checkpoint cannot be read, two files have one name, or before and after are the same.
    """

    def __init__(
        self,
        before: Path,
        after: Path,
        prompts: Sequence[Path],
        base: Path | None = None,
        *,
        limit: int = 64,
        max_new_tokens: int = 48,
        store: Store,
        refer: Callable[[str, Artifact], None] = lambda key, artifact: None,
    ) -> None:
        self.paths = {"before": before, "after": after} | ({"base": base} if base else {})
        self.max_new_tokens, self.store, self._refer = max_new_tokens, store, refer
        self.weights = {role: Weights(path) for role, path in self.paths.items()}
        self.delta = Delta(self.weights["before"], self.weights["after"])
        self.own_delta = Delta(self.weights["base"], self.weights["before"]) if base else None
        self.decoder = Decoder.of(before)
        self.tokenizer: PreTrainedTokenizerBase = models.load_tokenizer(before)
        self.config: Any = AutoConfig.from_pretrained(before, local_files_only=True)
        reach = getattr(self.config.get_text_config(), "max_position_embeddings", 2**20)
        found = [prompt_files.read(path, self.tokenizer, limit, reach - max_new_tokens) for path in prompts]
        self.prompts: dict[str, Prompts] = {file.name: file for file in found}
        if len(self.prompts) < len(prompts):
            raise ValueError(
                f"--prompts {', '.join(map(str, prompts))}: expected files of different names, one a domain"
            )
        if not prompts:
            raise ValueError("expected at least one file of prompts, --prompts FILE")
        self.identity = {role: _checksums(path) for role, path in self.paths.items()}
        if _weights(self.identity["before"]) == _weights(self.identity["after"]):
            raise ValueError(
                f"--before {before} and --after {after} hold the same weights: there is nothing to compare"
            )

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(math.prod(self.delta.shape(name)) for name in self.delta.names)

    @property
    def skill(self) -> str:
        """The skill to bring back: the name of the first file."""
        return next(iter(self.prompts))

    @property
    def others(self) -> list[str]:
        """Names of the other files."""
        return list(self.prompts)[1:]

    # --- What it takes ---

    def needs(self) -> Needs:
        """What the diagnosis takes at most."""
        held = self.weights["before"]
        stored = sum(math.prod(held.shape(name)) * held.dtype(name).itemsize for name in held.names)
        return needs(self.decoder, self.config, stored, self.max_new_tokens)

    # --- Answers and Fisher matrix ---

    def answers(self, role: str, name: str) -> Answers:
        """What a checkpoint (`before` or `after`) answers to a file's prompts."""

        def make(output: Path, work: Path) -> None:
            model = models.load_model(self.paths[role], dtype=self.dtype(role))
            found = prompt_files.answer(model, self.tokenizer, self.prompts[name], max_new_tokens=self.max_new_tokens)
            (output / "answers.json").write_text(json.dumps({"prompts": found.prompts, "responses": found.responses}))

        artifact = self._artifact("answers", self.asked(role, name), make)
        return Answers(**json.loads((artifact.path / "answers.json").read_text()))

    def rolled_back(self, candidate: Candidate) -> RolledBack:
        """The weights of `after` with a set of coordinates as in `before`."""
        scores = {
            FISHER: lambda: Scores.fisher(self.delta, self.fisher_diagonal()),
            MAGNITUDE: lambda: Scores.magnitude(self.delta),
            RANDOM: lambda: Scores.random(self.delta, 0),
        }[candidate.ranking]()
        count = max(1, round(candidate.percent / 100 * self.parameters))
        return RolledBack(scores, checkpoint_rollback.threshold(scores, count))

    def fisher_diagonal(self) -> Weights:
        """Diagonal of the Fisher matrix of `before` on its own answers to the skill's choosing prompts, on disk."""

        def make(output: Path, work: Path) -> None:
            answers = self.answers("before", self.skill).half(0)
            with self.curvature("before", answers, f"Fisher of {self.skill}", diagonal=True) as curvature:
                for name, part in curvature.fisher_diagonal():
                    file = output / f"{name}.safetensors"
                    save_file({name: part + load_file(file)[name] if file.exists() else part}, file)
            index = {"weight_map": {name: f"{name}.safetensors" for name in self.decoder.names}}
            (output / weights.INDEX).write_text(json.dumps(index))

        return Weights(self._artifact("fisher", self.asked("before", self.skill), make).whole())

    # --- Derivatives and keeping ---

    @contextmanager
    def curvature(
        self, role: str, answers: Answers, label: str, *, passes: int = 0, products: int = 0, diagonal: bool = False
    ) -> Iterator[LayerwiseCurvature]:
        """Derivatives of the divergence from a checkpoint (of the likelihood, for the Fisher `diagonal`), with progress.

        Args:
            role: of the checkpoint: where derivatives are taken.
            answers: its own.
            label: what the progress is of.
            passes: forward passes that will be asked for.
            products: products with a matrix that will be.
            diagonal: the diagonal will be.
        """
        losses = negative_log_likelihood if diagonal else own_divergence
        batches = answers.microbatches(1 if diagonal else rows_at_once(self.config, self.max_new_tokens))
        found = LayerwiseCurvature(self.decoder, self.weights[role], batches, losses)
        total = passes * len(self.decoder.pieces) + products * found.steps(2) + diagonal * found.steps(1)
        with Progress(label, total) as progress:
            found.piece_done = lambda: progress.to(progress.done + 1)
            yield found

    def tables(self, what: str, inputs: Mapping[str, Any], compute: Callable[[], Tables]) -> dict[str, pd.DataFrame]:
        """Tables of the comparison: read from the store, else computed and kept there.

        Args:
            what: names them.
            inputs: what they depend on besides the checkpoints.
            compute: makes them, by name.
        """

        def make(output: Path, work: Path) -> None:
            for name, table in compute().items():
                table.to_csv(output / f"{name}.csv", index=False)

        both = {role: self.identity[role] for role in ("before", "after")}
        artifact = self._artifact(what, {**inputs, "checkpoints": both}, make, compute.__module__)
        return {path.stem: pd.read_csv(path) for path in sorted(artifact.path.glob("*.csv"))}

    def asked(self, role: str, name: str) -> dict[str, Any]:
        """What determines a checkpoint's answers to a file."""
        return {
            "checkpoint": self.identity[role],
            "prompts": list(self.prompts[name].texts),
            "max_new_tokens": self.max_new_tokens,
        }

    def dtype(self, role: str) -> torch.dtype:
        """What most of a checkpoint is stored in, and so what it answers in."""
        held = self.weights[role]
        return held.dtype(max(held.names, key=lambda name: math.prod(held.shape(name))))

    def _artifact(
        self, what: str, inputs: Mapping[str, Any], make: Callable[[Path, Path], None], *code: str
    ) -> Artifact:
        settings = {
            "kind": "diagnosis",
            "what": what,
            "inputs": dict(inputs),
            "versions": provenance.versions(("torch", "transformers", "tokenizers", "numpy")),
            "code": provenance.code_fingerprint(*CODE, __name__, *code),
        }
        artifact = self.store.get(f"{what}-{self.paths['after'].name}", settings, make)
        self._refer(artifact.key, artifact)
        return artifact


def _weights(checksums: Mapping[str, str]) -> list[str]:
    return [checksum for file, checksum in checksums.items() if file.endswith(".safetensors")]


def _checksums(directory: Path) -> dict[str, str]:
    """Checksums of the files that make a checkpoint what it is."""
    kinds = ("safetensors", "json", "jinja", "model", "txt")
    files = sorted(file for kind in kinds for file in directory.glob(f"*.{kind}") if file.name != MANIFEST)
    return {file.name: sha256(file) for file in files}
