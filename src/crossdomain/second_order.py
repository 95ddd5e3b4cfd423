"""Chapter 4: the damage expansion (C6) on a run's checkpoints: along the update, with its controls, and its assumptions.

The main case is the paper's: A is the refreshed domain after its own stage, δ all that the later stages changed. Directions
are chosen on training prompts and reported on test prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from crossdomain import curvature, damage, measurements, objectives, rollouts, route_parameters, routes, spectrum
from crossdomain.anatomy import place
from crossdomain.curvature import ParameterSpace
from crossdomain.lineage import Lineage
from crossdomain.objectives import Objective, Parameters
from crossdomain.staging import expert_names, learned

CODE = [damage, curvature, spectrum, objectives, rollouts, route_parameters, routes]
SETTINGS = (
    *("prompt_template", "curvature_rollouts", "generations", "evaluation_batch", "derivative_batch"),
    *("curvature_prompts", "curvature_directions", "route_prompts"),
)
DIVERGENCE_ROLLOUTS = 2  # a prompt, for the KL objective
CONTROLS = 5  # random updates of the control
PATH = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


class Point(NamedTuple):
    """θ_A: the model (with eager attention), its parameters as they are differentiated, and their layout."""

    model: PreTrainedModel
    params: Parameters
    space: ParameterSpace


def point(lineage: Lineage, name: str) -> Point:
    """A checkpoint of a lineage, ready to be differentiated."""
    model = lineage.checkpoint(name).model(attn_implementation="eager")
    params = objectives.parameters(model)
    return Point(model, params, ParameterSpace(params))


def update(lineage: Lineage, before: str, after: str) -> Tensor:
    """δ from one checkpoint to another, shape (p,)."""
    first, second = (objectives.parameters(lineage.checkpoint(name).model()) for name in (before, after))
    space = ParameterSpace(first)
    return space.flatten(second) - space.flatten(first)


def loss_of(lineage: Lineage, name: str, at: Point, domain: str, split: str) -> Objective:
    """L_A of a domain at a checkpoint: the exact reward where one answer is right, else the importance-weighted one.

    Args:
        lineage: the run.
        name: of the checkpoint, whose rollouts the importance-weighted reward uses.
        at: the same checkpoint.
        domain: A.
        split: `train` (to choose directions) or `test` (to report).
    """
    profile, made = lineage.profile, lineage.domains[domain]
    tokenizer = lineage.checkpoint(name).tokenizer()
    items = made.items(split)[: profile.curvature_prompts]
    if made.answer(items[0]) is not None:
        return objectives.exact_reward(
            at.model, tokenizer, profile, made, items, split=split, batch_size=profile.derivative_batch
        )
    sampled = rollouts_of(lineage, name, at, domain, split, profile.curvature_rollouts or profile.generations)
    return objectives.importance_weighted(at.model, sampled, batch_size=profile.derivative_batch)


def divergence_of(lineage: Lineage, name: str, at: Point, domain: str, split: str) -> Objective:
    """The KL objective of a domain at a checkpoint, on the checkpoint's own rollouts."""
    sampled = rollouts_of(lineage, name, at, domain, split, DIVERGENCE_ROLLOUTS)
    return objectives.kl(at.model, sampled, batch_size=lineage.profile.derivative_batch)


def fisher_of(lineage: Lineage, name: str, at: Point, domain: str) -> Tensor:
    """Diagonal Fisher of a checkpoint on its own answers to a domain's training prompts, shape (p,); no reward is used.

    Args:
        lineage: the run.
        name: of the checkpoint.
        at: the same checkpoint.
        domain: whose prompts.
    """
    profile = lineage.profile
    answers = rollouts_of(lineage, name, at, domain, "train", profile.curvature_rollouts or profile.generations)
    scores = objectives.negative_log_likelihood(at.model, answers, batch_size=profile.derivative_batch)
    return curvature.fisher_diagonal(scores, at.params)


def rollouts_of(lineage: Lineage, name: str, at: Point, domain: str, split: str, samples: int) -> rollouts.Rollouts:
    """The checkpoint's own responses to a domain's prompts, so many a prompt."""
    profile, made = lineage.profile, lineage.domains[domain]
    return rollouts.sample_rollouts(
        at.model,
        lineage.checkpoint(name).tokenizer(),
        profile,
        made,
        made.items(split)[: profile.curvature_prompts],
        split=split,
        samples=samples,
        seed=lineage.seed,
    )


# --- The main case ---


class Case(NamedTuple):
    """The main case of a run: the domain A, the checkpoints before and after the later stages."""

    domain: str
    before: str
    after: str


def main_case(lineage: Lineage) -> Case:
    """The refreshed domain, hurt by all stages after its own, which `chapters.check` makes sure there are."""
    return Case(lineage.profile.refresh, learned(lineage), lineage.sequence[-1])


def kept(
    lineage: Lineage,
    what: str,
    checkpoints: Sequence[str],
    compute: Callable[[], measurements.Tables],
    *code: str | ModuleType,
    **settings: Any,
) -> dict[str, pd.DataFrame]:
    """A study's tables, computed once: `measurements.tables` with what all studies of derivatives depend on.

    Args:
        lineage: the run.
        what: names the study.
        checkpoints: that it uses.
        compute: makes the tables.
        code: `__name__` of the module that does, and others that it calls, besides those of `CODE`.
        settings: further values it depends on.
    """
    return measurements.tables(
        lineage,
        what,
        compute,
        checkpoints=checkpoints,
        settings={**lineage.profile.subset(*SETTINGS), "seed": lineage.seed, **settings},
        domains=expert_names(lineage),
        code=[*dict.fromkeys((*CODE, __name__, *code))],
    )


def path(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """The main case along tδ, its controls, and its terms taken apart.

    Returns:
        `path`: the rows of `damage.taylor_damage` for the two objectives (`objective`, `data`).
        `controls`: a row a control at t = 1: `direction` (the later stages; random with the same norm in every tensor; the
        same entries shuffled within every tensor; the later stages, but another domain's loss), `draw`, `first`,
        `second`, `actual`.
        `cross`: ½ δ_iᵀHδ_j by module: `i`, `j`, `value`.
        `drift`: the rows of `damage.hessian_drift`.
    """
    case = main_case(lineage)

    def compute() -> measurements.Tables:
        at, delta = point(lineage, case.before), update(lineage, case.before, case.after)
        loss = loss_of(lineage, case.before, at, case.domain, "test")
        divergence = divergence_of(lineage, case.before, at, case.domain, "test")
        paths = [
            damage.taylor_damage(objective, at.params, delta, PATH).assign(
                objective=objective.name, data=objective.data
            )
            for objective in (loss, divergence)
        ]
        cross = damage.cross_terms(loss, at.params, delta, {name: place(name).module for name in at.space.shapes})
        return {
            "path": pd.concat(paths, ignore_index=True),
            "controls": _controls(lineage, case, at, delta, loss),
            "cross": cross.rename_axis("i").reset_index().melt("i", var_name="j", value_name="value"),
            "drift": damage.hessian_drift(loss, at.params, delta, (0.25, 0.5, 1.0)),
        }

    return kept(lineage, "damage-path", [case.before, case.after], compute, __name__)


def _controls(lineage: Lineage, case: Case, at: Point, delta: Tensor, loss: Objective) -> pd.DataFrame:
    rows = []

    def add(direction: str, draw: int, around: damage.Local, step: Tensor) -> None:
        terms, found = around.expansion(step), around.actual(step)
        rows.append(
            {"direction": direction, "draw": draw, "first": terms.first, "second": terms.second, "actual": found.value}
        )

    own = damage.Local(loss, at.params)
    add("the later stages", 0, own, delta)
    for draw in range(CONTROLS):
        add("random, same norms", draw, own, like(at.space, delta, _random, draw))
        add("same entries, shuffled", draw, own, like(at.space, delta, _shuffled, draw))
    for other in expert_names(lineage):
        if other != case.domain:
            title = lineage.domains[other].title
            others = damage.Local(loss_of(lineage, case.before, at, other, "test"), at.params, keep=False)
            add(f"the later stages, for {title}", 0, others, delta)
    return pd.DataFrame(rows)


def like(space: ParameterSpace, delta: Tensor, make: Callable[[Tensor, torch.Generator], Tensor], seed: int) -> Tensor:
    """An update made tensor by tensor from δ, with its norm in every tensor."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for name, part in space.unflatten(delta).items():
        drawn = make(part, generator)
        norm = drawn.norm()
        parts[name] = drawn * (part.norm() / norm) if norm > 0 else drawn
    return space.flatten(parts)


def _random(part: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(part.shape, generator=generator, dtype=part.dtype)


def _shuffled(part: Tensor, generator: torch.Generator) -> Tensor:
    return part.flatten()[torch.randperm(part.numel(), generator=generator)].view(part.shape)


# --- Assumptions ---


def stationarity(lineage: Lineage) -> pd.DataFrame:
    """Whether the first-order term shrinks as A is trained further: the main case's δ at checkpoints of A's own stage.

    Returns:
        A row a checkpoint: `checkpoint`, `step` of A's stage (those of the refresh without damage counted on),
        `gradient_norm`, `first`, `second` and `actual`, on test prompts.
    """
    case = main_case(lineage)
    stage = lineage.stage(case.before)
    further = f"{case.before}-re{case.domain}"
    points = [(step, f"{case.before}@{step}") for step in lineage.checkpoint(case.before).snapshots()[1::2]]
    points += [(stage.steps, case.before), (stage.steps + lineage.stage(further).steps, further)]

    def compute() -> measurements.Tables:
        delta = update(lineage, case.before, case.after)
        rows = []
        for step, name in points:
            at = point(lineage, name)
            loss = loss_of(lineage, name, at, case.domain, "test")
            around = damage.Local(loss, at.params, keep=False)
            terms, found = around.expansion(delta), around.actual(delta)
            rows.append({"checkpoint": name, "step": step, **terms._asdict(), "actual": found.value})
        return {"stationarity": pd.DataFrame(rows)}

    names = [*(name for _, name in points), case.after]
    return kept(lineage, "damage-stationarity", names, compute, __name__)["stationarity"]
