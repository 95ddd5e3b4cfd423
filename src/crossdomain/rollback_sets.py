"""Chapter 6: which coordinates of a later update are taken back (C10), by each score, filter and control.

A is a domain, θ_A the policy after its stage, δ what later stages changed. Coordinates are chosen on A's training prompts;
the shared route is that of chapters 3 and 4, found on what the policy answers to test prompts, right or wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from crossdomain import rollback
from crossdomain.anatomy import place
from crossdomain.concentration import shared_route
from crossdomain.lineage import Lineage
from crossdomain.rollback import QuadraticModel
from crossdomain.second_order import Point, divergence_of, fisher_of, loss_of, main_case, point, update

FISHER = "Fisher"
OPPOSITE, ROUTE, BOTH = "Fisher, opposite sign", "Fisher, shared route", "Fisher, both filters"
ATTENTION, MLP = "Fisher, attention only", "Fisher, MLP only"
DAMAGED = "Fisher of the damaged policy"
REWARD, DIVERGENCE = "Hessian of the reward, greedy", "Hessian of the divergence, greedy"
MAGNITUDE, RANDOM, MATCHED = "magnitude", "random", "random, same norm"

LEADING = (FISHER, DAMAGED, DIVERGENCE, MAGNITUDE, RANDOM)
FILTERS = (OPPOSITE, ROUTE, BOTH, ATTENTION, MLP)
CONTROLS = (MAGNITUDE, RANDOM, MATCHED)

NEXT, ALL = "the next stage", "all later stages"


class Case(NamedTuple):
    """A rollback: A, the checkpoint θ_A, those that δ leads from and to, and the domains that δ trained."""

    label: str
    domain: str
    learned: str
    before: str
    after: str
    later: tuple[str, ...]


def cases(lineage: Lineage) -> list[Case]:
    """The refreshed domain hurt by the next stage alone (the paper's pair) and, if there are more, by all later ones."""
    main = main_case(lineage)
    own = lineage.profile.stages.index(main.domain)
    later = lineage.profile.stages[own + 1 :]
    found = [Case(NEXT, main.domain, main.before, main.before, lineage.sequence[own + 2], (later[0],))]
    if len(later) > 1:
        others = tuple(dict.fromkeys(stage for stage in later if stage != main.domain))
        found.append(Case(ALL, main.domain, main.before, main.before, main.after, others))
    return found


def ordered_pairs(lineage: Lineage) -> list[Case]:
    """Every domain A of the sequence with the stage of every other domain after it."""
    stages, sequence = lineage.profile.stages, lineage.sequence
    return [
        Case(f"{a}–{b}", a, sequence[i + 1], sequence[j], sequence[j + 1], (b,))
        for i, a in enumerate(stages)
        for j, b in enumerate(stages)
        if j > i and a != b
    ]


class Chosen(NamedTuple):
    """A set of coordinates: how they were ranked, how many were taken, which random draw, and their indices."""

    score: str
    percent: float
    draw: int
    coordinates: Tensor


def chosen_sets(lineage: Lineage, case: Case, at: Point, delta: Tensor) -> Iterator[Chosen]:
    """The sets of a case by all rankings and sizes, one ranking after the other; `FISHER` comes first.

    Random sets come twice: with as many coordinates, and with as much of ‖δ‖ on them as the Fisher's.

    Args:
        lineage: the run.
        case: whose sets.
        at: θ_A.
        delta: δ, shape (p,).
    """
    percents = lineage.profile.rollback_percents
    lengths: dict[float, float] = {}
    for score, draw, order in _rankings(lineage, case, at, delta):
        for percent in percents:
            coordinates = first(order, percent, len(delta))
            yield Chosen(score, percent, draw, coordinates)
            if score == FISHER:
                lengths[percent] = float(delta[coordinates].double().norm())
            if score == RANDOM:
                yield Chosen(MATCHED, percent, draw, rollback.as_long(order, delta, lengths[percent]))


def first(order: Tensor, percent: float, size: int) -> Tensor:
    """The first of a ranking, so many percent of the parameters, or all that it has."""
    return order[: count(percent, size)]


def count(percent: float, size: int) -> int:
    """Coordinates in so many percent of the parameters."""
    return max(1, round(percent / 100 * size))


def _rankings(lineage: Lineage, case: Case, at: Point, delta: Tensor) -> Iterator[tuple[str, int, Tensor]]:
    """Score, draw and ranking: one at a time, since each takes twice the memory of the parameters."""
    profile = lineage.profile
    most = count(max(profile.rollback_percents), len(delta))
    scores = rollback.fisher_scores(fisher_of(lineage, case.learned, at, case.domain), delta)
    yield FISHER, 0, rollback.ranking(scores, count=most)
    opposite = rollback.opposing(delta, update(lineage, lineage.stage(case.learned).parent, case.learned))
    route = shared_route(lineage, case.learned, at, case.domain, case.later)
    allowed = (opposite, route, opposite & route, _block(at, "attention"), _block(at, "mlp"))
    for score, mask in zip(FILTERS, allowed, strict=True):
        yield score, 0, rollback.ranking(scores, mask, most)
    hurt = point(lineage, case.after)
    scores = rollback.fisher_scores(fisher_of(lineage, case.after, hurt, case.domain), delta)
    yield DAMAGED, 0, rollback.ranking(scores, count=most)
    for score, objective in ((DIVERGENCE, divergence_of), (REWARD, loss_of)):
        loss = objective(lineage, case.learned, at, case.domain, "train")
        model = QuadraticModel.of(loss, at.params, delta)
        yield score, 0, model.greedy(most, products=profile.rollback_products, first=profile.rollback_batch)
    yield from controls(lineage, delta, most)


def controls(lineage: Lineage, delta: Tensor, most: int) -> Iterator[tuple[str, int, Tensor]]:
    """The rankings that know nothing of A: score, draw and ranking, of so many coordinates or, random ones, of all."""
    yield MAGNITUDE, 0, rollback.ranking(delta.abs(), count=most)
    for draw in range(lineage.profile.rollback_draws):
        yield RANDOM, draw, rollback.random_ranking(len(delta), seed=draw)


def _block(at: Point, block: str) -> Tensor:
    """Coordinates of all attention or all MLP parameters."""
    return at.space.flatten(
        {name: torch.full(shape, place(name).block == block) for name, shape in at.space.shapes.items()}
    )
