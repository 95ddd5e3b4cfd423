"""Chapter 5: GRPO refreshes of the damaged policy at other learning rates and batch sizes, and what they cost (C9)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from crossdomain import evaluation, interference
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.staging import expert_names, learned, refresh_names


class RefreshLineage(Lineage):
    """A lineage whose refreshes of the whole sequence are made under other settings; all else is the trunk's own.

    Args:
        trunk: what the refreshes start from.
        learning_rate: of the refreshes.
        batch_size: completions a step.

    Raises:
        ProfileError: a setting cannot be used.
    """

    def __init__(self, trunk: Lineage, learning_rate: float, batch_size: int) -> None:
        changes = {"refresh_learning_rate": learning_rate, "batch_size": batch_size}
        super().__init__(trunk.profile.override(changes), trunk.seed, trunk.store, trunk.run)
        self.trunk = trunk

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint of that name: a refresh, or what the trunk has."""
        made_here = name.startswith(f"{self.trunk.sequence[-1]}-re")
        return super().checkpoint(name) if made_here else self.trunk.checkpoint(name)


class Variant(NamedTuple):
    """A GRPO refresh of the profile's domain.

    Attributes:
        rate: its learning rate.
        batch: its completions a step.
        own: whether these are the profile's own settings.
        lineage: the lineage it belongs to.
        name: of its checkpoint there.
    """

    rate: float
    batch: int
    own: bool
    lineage: Lineage
    name: str

    def points(self) -> dict[int, str]:
        """Names of the checkpoints along it by step: where it starts, its snapshots, its end."""
        stage = self.lineage.stage(self.name)
        kept = self.lineage.checkpoint(self.name).snapshots()
        return {0: stage.parent} | {step: f"{self.name}@{step}" for step in kept} | {stage.steps: self.name}


def variants(lineage: Lineage) -> list[Variant]:
    """The refreshes over the profile's rates and batch sizes, its own (the one of chapter 1) first."""
    profile, name = lineage.profile, refresh_names(lineage)[0]
    own = (lineage.stage(name).learning_rate, profile.batch_size)
    group = profile.generations
    batches = [max(1, round(factor * profile.batch_size / group)) * group for factor in profile.refresh_batches]
    cases = dict.fromkeys([own, *product([factor * own[0] for factor in profile.refresh_rates], batches)])
    return [
        Variant(*case, case == own, lineage if case == own else RefreshLineage(lineage, *case), name) for case in cases
    ]


def budget(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """What each refresh has gained after so many steps, and what first learning needed for the same points.

    The refresh starts at the damaged score; first learning passes that and the refreshed score on its own curve, where
    steps are interpolated linearly (as `interference.relearning` does for the profile's own refresh at its end).

    Returns:
        A row a seed, refresh and step: `rate`, `batch`, `own`, `step`, `completions` so far, `score` of the refreshed
        domain, `gained` since the start and the mean change `others` of the other domains, in points on the curve's
        prompts; `first_learning_steps`, a lower bound where `at_least` (first learning never got there), NaN where nothing
        was gained or first learning began above the damaged score; `ratio` of steps and `completions_ratio`.
    """
    rows = []
    for lineage in lineages:
        domain, first_batch = lineage.profile.refresh, lineage.profile.batch_size
        others = [name for name in expert_names(lineage) if name != domain]
        learning = evaluation.curve(lineage, learned(lineage))
        learning = learning[learning["domain"] == domain]
        for variant in variants(lineage):
            scores = evaluation.curve(variant.lineage, variant.name).pivot(
                index="step", columns="domain", values="score"
            )
            steps, own = scores.index.to_numpy(int), scores[domain].to_numpy(float)
            around = scores[others].mean(axis=1).to_numpy(float)
            for step, reached, other in zip(steps[1:], own[1:], around[1:], strict=True):
                needed, at_least = _first_learning(learning, own[0], reached)
                rows.append(
                    {
                        "seed": lineage.seed,
                        "rate": variant.rate,
                        "batch": variant.batch,
                        "own": variant.own,
                        "step": step,
                        "completions": step * variant.batch,
                        "score": 100 * reached,
                        "gained": 100 * (reached - own[0]),
                        "others": 100 * (other - around[0]),
                        "first_learning_steps": needed,
                        "at_least": at_least,
                        "ratio": needed / step,
                        "completions_ratio": needed * first_batch / (step * variant.batch),
                    }
                )
    return pd.DataFrame(rows)


def _first_learning(learning: pd.DataFrame, start: float, reached: float) -> tuple[float, bool]:
    """Steps of first learning from one score to a higher one, and whether they are a lower bound."""
    if reached <= start:
        return np.nan, False
    never = bool(learning["score"].max() < reached)
    end = float(learning["step"].iloc[-1]) if never else interference.step_at(learning, reached)
    return end - interference.step_at(learning, start), never
