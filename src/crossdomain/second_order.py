"""Chapter 4: the damage expansion (C6) and its concentration (C7) on a run's checkpoints, and who will hurt whom.

The main case is the paper's: A is the refreshed domain after its own stage, δ all that the later stages changed. Directions
are chosen on training prompts and reported on test prompts.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from crossdomain import curvature, damage, measurements, objectives, pairs, rollouts, route_parameters, routes, spectrum
from crossdomain.anatomy import place
from crossdomain.curvature import ParameterSpace
from crossdomain.damage import Subspace
from crossdomain.lineage import BASE, Lineage
from crossdomain.objectives import Objective, Parameters
from crossdomain.pathways import active_routes
from crossdomain.staging import expert_names, interferes, learned

CODE = [damage, curvature, spectrum, objectives, rollouts, route_parameters, routes]
SETTINGS = ("prompt_template", "curvature_prompts", "curvature_directions", "generations", "evaluation_batch")
ROUTE_SHARE = 0.2  # of the units of each kind is a domain's route: the conflict subspace lies on what two routes share
CONTROLS = 5  # random updates of the control
PATH = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
SPACES = ("route", "route, MLP", "route, attention", "all parameters")


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
        return objectives.exact_reward(at.model, tokenizer, profile, made, items, split=split)
    return objectives.importance_weighted(at.model, _rollouts(lineage, name, at, domain, split))


def divergence_of(lineage: Lineage, name: str, at: Point, domain: str, split: str) -> Objective:
    """The KL objective of a domain at a checkpoint, on the checkpoint's own rollouts."""
    return objectives.kl(at.model, _rollouts(lineage, name, at, domain, split))


def _rollouts(lineage: Lineage, name: str, at: Point, domain: str, split: str) -> rollouts.Rollouts:
    profile, made = lineage.profile, lineage.domains[domain]
    return rollouts.sample_rollouts(
        at.model,
        lineage.checkpoint(name).tokenizer(),
        profile,
        made,
        made.items(split)[: profile.curvature_prompts],
        split=split,
        samples=profile.generations,
        seed=lineage.seed,
    )


# --- The main case ---


class Case(NamedTuple):
    """The main case of a run: the domain A, the checkpoints before and after the later stages."""

    domain: str
    before: str
    after: str


def main_case(lineage: Lineage) -> Case:
    """The refreshed domain, hurt by all stages after its own.

    Raises:
        ValueError: no stage follows the refreshed domain's own.
    """
    if not interferes(lineage):
        raise ValueError(
            f"stages={','.join(lineage.profile.stages)}: no stage follows that of {lineage.profile.refresh}, so nothing "
            "damages it; choose another order or another refresh"
        )
    return Case(lineage.profile.refresh, learned(lineage), lineage.sequence[-1])


def _kept(lineage: Lineage, what: str, checkpoints: Sequence[str], compute: Callable[[], measurements.Tables],
          **settings: Any) -> dict[str, pd.DataFrame]:  # fmt: skip
    return measurements.tables(
        lineage,
        what,
        compute,
        checkpoints=checkpoints,
        settings={**lineage.profile.subset(*SETTINGS), "seed": lineage.seed, **settings},
        domains=expert_names(lineage),
        code=[*CODE, __name__],
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

    return _kept(lineage, "damage-path", [case.before, case.after], compute)


def _controls(lineage: Lineage, case: Case, at: Point, delta: Tensor, loss: Objective) -> pd.DataFrame:
    rows = []

    def add(direction: str, draw: int, objective: Objective, step: Tensor) -> None:
        terms = damage.expansion(objective, at.params, step)
        found = damage.actual(objective, at.params, step)
        rows.append(
            {"direction": direction, "draw": draw, "first": terms.first, "second": terms.second, "actual": found.value}
        )

    add("the later stages", 0, loss, delta)
    for draw in range(CONTROLS):
        add("random, same norms", draw, loss, like(at.space, delta, _random, draw))
        add("same entries, shuffled", draw, loss, like(at.space, delta, _shuffled, draw))
    for other in expert_names(lineage):
        if other != case.domain:
            title = lineage.domains[other].title
            add(f"the same, for {title}", 0, loss_of(lineage, case.before, at, other, "test"), delta)
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


# --- Concentration ---


def concentration(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """How much of the main case's damage few directions hold.

    Returns:
        `captured`: the rows of `damage.captured` on test prompts for every `subspace` of `SPACES` and control, with `draw`.
        `summary`: a row a space of `SPACES`: `parameters` in it, `norm_share` and `quadratic_share` of δ restricted to it,
        `participation_ratio` of the contributions of its directions, `needed_50`, `needed_80`, `needed_90` directions for a
        share of δᵀHδ (NaN if all computed ones are too few), `kappa` of the first 8 and `top_eigenvalue`.
        `spectrum`: `space`, `index`, `eigenvalue`, `contribution` ½λc² to the damage, on training prompts.
    """
    case = main_case(lineage)

    def compute() -> measurements.Tables:
        at, delta = point(lineage, case.before), update(lineage, case.before, case.after)
        chosen, reported = (loss_of(lineage, case.before, at, case.domain, split) for split in ("train", "test"))
        masks = _masks(lineage, case, at)
        directions = lineage.profile.curvature_directions
        ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= directions]
        captured, summary, spectra = [], [], []
        curved = damage.expansion(reported, at.params, delta)
        for space, mask in masks.items():
            hessian = spectrum.HessianOperator(chosen, at.params, mask)
            found = spectrum.top_eigenpairs(hessian, directions, tol=1e-2, seed=lineage.seed)
            subspace = Subspace(found.vectors, hessian.coordinates, at.space.size)
            captured.append(damage.captured(reported, at.params, delta, subspace, ks).assign(subspace=space, draw=0))
            inside = delta if hessian.coordinates is None else delta[hessian.coordinates]
            contributions = 0.5 * found.values * (found.vectors.T @ inside.numpy()) ** 2
            spectra.append(
                pd.DataFrame({"eigenvalue": found.values, "contribution": contributions})
                .rename_axis("index")
                .reset_index()
                .assign(space=space)
            )
            summary.append(_summary(space, chosen, at, delta, mask, subspace, found.values, contributions))
        assert masks["route"] is not None
        route = at.space.coordinates(masks["route"])
        for label, subspace, draw in _control_subspaces(lineage, case, at, delta, route, directions):
            captured.append(damage.captured(reported, at.params, delta, subspace, ks).assign(subspace=label, draw=draw))
        return {
            "captured": pd.concat(captured, ignore_index=True).assign(second=curved.second),
            "summary": pd.DataFrame(summary),
            "spectrum": pd.concat(spectra, ignore_index=True),
        }

    later = [case.before, case.after]
    return _kept(lineage, "damage-concentration", later, compute, share=ROUTE_SHARE)


def _masks(lineage: Lineage, case: Case, at: Point) -> dict[str, Tensor | None]:
    """Coordinates of each of `SPACES`: what A's route shares with later domains', its MLP and attention parts, and all."""
    active = active_routes(lineage, case.before, ROUTE_SHARE)
    stages = lineage.profile.stages
    later = stages[stages.index(case.domain) + 1 :]
    used_later = functools.reduce(operator.or_, (active[domain] for domain in later))
    shared = routes.shared(active[case.domain], used_later)
    neurons, heads = routes.units_by_layer(shared)
    nothing: Mapping[int, Any] = {}

    def mask(neurons: Mapping[int, Any], heads: Mapping[int, Any]) -> Tensor:
        parts = {}
        for name, shape in at.space.shapes.items():
            found = route_parameters.route_mask(at.model.config, name, tuple(shape), neurons, heads)
            parts[name] = torch.zeros(shape, dtype=torch.bool) if found is None else found
        return at.space.flatten(parts)

    return {
        "route": mask(neurons, heads),
        "route, MLP": mask(neurons, nothing),
        "route, attention": mask(nothing, heads),
        "all parameters": None,
    }


def _summary(
    space: str,
    loss: Objective,
    at: Point,
    delta: Tensor,
    mask: Tensor | None,
    subspace: Subspace,
    eigenvalues: np.ndarray,
    contributions: np.ndarray,
) -> dict[str, Any]:
    inside = delta if mask is None else delta * mask
    whole, part = (damage.expansion(loss, at.params, step).second for step in (delta, inside))
    needed = {
        f"needed_{100 * share:.0f}": damage.directions_needed(contributions, whole, share) for share in (0.5, 0.8, 0.9)
    }
    return {
        "space": space,
        "parameters": at.space.size if mask is None else int(mask.sum()),
        "norm_share": float((inside @ inside) / (delta @ delta)),
        "quadratic_share": part / whole,
        "participation_ratio": damage.participation_ratio(contributions),
        **needed,
        "kappa": damage.leakage(loss, at.params, subspace, min(8, subspace.basis.shape[1])),
        "top_eigenvalue": float(eigenvalues[0]),
    }


def _control_subspaces(
    lineage: Lineage, case: Case, at: Point, delta: Tensor, route: Tensor, k: int
) -> list[tuple[str, Subspace, int]]:
    size = at.space.size
    own = _rollouts(lineage, case.before, at, case.domain, "train")
    fisher = curvature.fisher_diagonal(objectives.negative_log_likelihood(at.model, own), at.params)
    found = [
        ("coordinates by ½Fδ²", damage.coordinate_subspace(fisher * delta**2, k), 0),
        ("coordinates by |δ|", damage.coordinate_subspace(delta.abs(), k), 0),
    ]
    for draw in range(2):
        found.append(("random in the route", damage.random_subspace(size, k, coordinates=route, seed=draw), draw))
        found.append(("random", damage.random_subspace(size, k, seed=draw), draw))
    return found


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
            terms, found = damage.expansion(loss, at.params, delta), damage.actual(loss, at.params, delta)
            rows.append({"checkpoint": name, "step": step, **terms._asdict(), "actual": found.value})
        return {"stationarity": pd.DataFrame(rows)}

    names = [*(name for _, name in points), case.after]
    return _kept(lineage, "damage-stationarity", names, compute)["stationarity"]


# --- Who will hurt whom ---


def predictions(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """The damage of every ordered pair, predicted at A's expert from B's expert alone.

    Returns:
        `pairs`: a row a pair `a`, `b`: `first`, `second`, `predicted` (their sum) on A's training prompts; `divergence`,
        ½ δᵀFδ for the KL objective, which needs no reward; `added`, the actual damage of adding B's update to A's expert,
        on test prompts.
        `lengths`: a row a pair and multiple `t` of B's update: the rows of `damage.taylor_damage` on test prompts.
        `sequence`: a row a stage B of the sequence and a domain A before it: `a`, `b`, `first`, `second`, `predicted` at the
        checkpoint after A, for the update of that stage.
    """
    domains = expert_names(lineage)
    after = dict(zip(lineage.profile.stages, lineage.sequence[1:], strict=False))
    before = dict(zip(lineage.profile.stages, lineage.sequence, strict=False))

    def compute() -> measurements.Tables:
        alone = {b: update(lineage, BASE, pairs.alone(lineage, b)) for b in domains}
        rows, lengths, sequence = [], [], []
        for a in domains:
            at = point(lineage, a)
            chosen, reported = (loss_of(lineage, a, at, a, split) for split in ("train", "test"))
            divergence = divergence_of(lineage, a, at, a, "train")
            for b in domains:
                if b == a:
                    continue
                terms = damage.expansion(chosen, at.params, alone[b])
                along = damage.taylor_damage(reported, at.params, alone[b], LENGTHS).assign(a=a, b=b)
                lengths.append(along)
                rows.append(
                    {
                        "a": a,
                        "b": b,
                        "first": terms.first,
                        "second": terms.second,
                        "predicted": terms.first + terms.second,
                        "divergence": damage.expansion(divergence, at.params, alone[b]).second,
                        "added": float(along.loc[along["t"] == 1, "actual"].iloc[0]),
                    }
                )
        for i, a in enumerate(lineage.profile.stages):
            at = point(lineage, after[a])
            loss = loss_of(lineage, after[a], at, a, "test")
            for b in lineage.profile.stages[i + 1 :]:
                terms = damage.expansion(loss, at.params, update(lineage, before[b], after[b]))
                found = {"first": terms.first, "second": terms.second, "predicted": terms.first + terms.second}
                sequence.append({"a": a, "b": b, **found})
        return {
            "pairs": pd.DataFrame(rows),
            "lengths": pd.concat(lengths, ignore_index=True),
            "sequence": pd.DataFrame(sequence, columns=["a", "b", "first", "second", "predicted"]),
        }

    checkpoints = [*domains, *(pairs.alone(lineage, b) for b in domains), *lineage.sequence]
    return _kept(lineage, "damage-pairs", checkpoints, compute)


def over_seeds(
    lineages: Sequence[Lineage], study: Callable[[Lineage], Mapping[str, pd.DataFrame]]
) -> dict[str, pd.DataFrame]:
    """The tables of a study of every seed, with `seed`."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for lineage in lineages:
        for name, table in study(lineage).items():
            parts.setdefault(name, []).append(table.assign(seed=lineage.seed))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
