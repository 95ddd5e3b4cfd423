"""Chapter 4: how few directions hold the main case's damage (C7), on the shared route and beyond it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from crossdomain import curvature, damage, measurements, route_parameters, route_sets, routes, spectrum
from crossdomain.damage import Subspace
from crossdomain.lineage import Lineage
from crossdomain.route_sets import active_routes
from crossdomain.second_order import Case, Point, fisher_of, kept, loss_of, main_case, point, update

ROUTE_SHARE = 0.2  # of the units of each kind is a domain's route: the conflict subspace lies on what two routes share
TRACE_PROBES = 12  # at most, for an estimate of tr H: two products and four vectors in memory each
TOLERANCE = 0.05  # residual of an eigenpair over its eigenvalue: directions are wanted, not digits
SPACES = ("route", "route, MLP", "route, attention", "all parameters")
LEADING, FEW = ("route", "all parameters"), 16  # spaces that get all directions, and how many the others get


def concentration(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """How much of the main case's damage few directions hold.

    Returns:
        `captured`: the rows of `damage.captured` on test prompts for every `subspace` of `SPACES` and control, with
        `draw`. A part of the route without a unit, which few heads leave by chance, has no rows here or below.
        `summary`: a row a space of `SPACES`: `directions` computed; `parameters` in it, `norm_share` and
        `quadratic_share` of δ within it; `participation_ratio` of what the directions contribute; `needed_50`,
        `needed_80`, `needed_90` of them for a share of δᵀHδ (NaN if all computed ones are too few); `kappa` of the first 8;
        `top_eigenvalue`; `trace_share`, the part of tr H that all computed directions hold, which is what an update
        without any preference would have in them.
        `spectrum`: `space`, `index`, `eigenvalue`, `contribution` ½λc² to the damage, on training prompts.
    """
    case = main_case(lineage)

    def compute() -> measurements.Tables:
        at, delta = point(lineage, case.before), update(lineage, case.before, case.after)
        chosen, reported = (loss_of(lineage, case.before, at, case.domain, split) for split in ("train", "test"))
        masks = {space: mask for space, mask in spaces(lineage, case, at).items() if mask is None or mask.any()}
        hessian, around = curvature.Hessian(chosen, at.params), damage.Local(reported, at.params)
        directions = lineage.profile.curvature_directions
        ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= directions]
        captured, summary, spectra = [], [], []
        whole = damage.second_order(hessian, delta)
        probes = max(2, min(TRACE_PROBES, directions))  # a large model that affords few directions affords few of them
        trace = spectrum.xtrace(spectrum.HessianOperator(hessian, at.params), probes, seed=lineage.seed).value
        for space, mask in masks.items():
            restricted = spectrum.HessianOperator(hessian, at.params, mask)
            k = directions if space in LEADING else min(FEW, directions)
            found = spectrum.top_eigenpairs(
                restricted, k, tol=TOLERANCE, seed=lineage.seed, basis=basis(k, restricted.shape[0])
            )
            subspace = Subspace(found.vectors, restricted.coordinates, at.space.size)
            captured.append(
                damage.captured(around, delta, subspace, [n for n in ks if n <= k]).assign(subspace=space, draw=0)
            )
            inside = delta if restricted.coordinates is None else delta[restricted.coordinates]
            contributions = 0.5 * found.values * (found.vectors.T @ inside.numpy()) ** 2
            spectra.append(
                pd.DataFrame({"eigenvalue": found.values, "contribution": contributions})
                .rename_axis("index")
                .reset_index()
                .assign(space=space)
            )
            row = _summary(space, hessian, at, delta, whole, mask, subspace, found.values, contributions)
            summary.append(row | {"directions": k, "trace_share": float(found.values.sum() / trace)})
        assert masks["route"] is not None
        route = at.space.coordinates(masks["route"])
        for label, subspace, draw in _control_subspaces(lineage, case, at, delta, route, directions):
            captured.append(damage.captured(around, delta, subspace, ks).assign(subspace=label, draw=draw))
        return {
            "captured": pd.concat(captured, ignore_index=True),
            "summary": pd.DataFrame(summary),
            "spectrum": pd.concat(spectra, ignore_index=True),
        }

    later = [case.before, case.after]
    return kept(lineage, "damage-concentration", later, compute, __name__, route_sets, share=ROUTE_SHARE)


def basis(k: int, size: int) -> int:
    """Lanczos vectors for k eigenpairs: each has the size of the parameters, so few of them where k is small."""
    return min(2 * k + min(2 * k, 8), size)


def spaces(lineage: Lineage, case: Case, at: Point) -> dict[str, Tensor | None]:
    """Coordinates of each of `SPACES`: what A's route shares with later domains', its MLP and attention parts, and all.

    Args:
        lineage: the run.
        case: the main case.
        at: θ_A.

    Returns:
        Booleans by space, shape (p,); None where no coordinate is left out.
    """
    stages = lineage.profile.stages
    later = stages[stages.index(case.domain) + 1 :]

    def route(*kinds: str) -> Tensor:
        return shared_route(lineage, case.before, at, case.domain, later, kinds=kinds)

    return {
        "route": route(routes.NEURON, routes.HEAD),
        "route, MLP": route(routes.NEURON),
        "route, attention": route(routes.HEAD),
        "all parameters": None,
    }


def shared_route(
    lineage: Lineage,
    name: str,
    at: Point,
    domain: str,
    later: Sequence[str],
    *,
    kinds: Sequence[str] = (routes.NEURON, routes.HEAD),
) -> Tensor:
    """Coordinates of the units that A and at least one later domain both use at a checkpoint.

    Args:
        lineage: the run.
        name: of the checkpoint.
        at: the same checkpoint.
        domain: A.
        later: the later domains.
        kinds: of units.

    Returns:
        Booleans, shape (p,).
    """
    active = active_routes(lineage, name, ROUTE_SHARE)
    used_later = functools.reduce(operator.or_, (active[other] for other in later))
    shared = routes.shared(active[domain], used_later)
    neurons, heads = routes.units_by_layer(shared[shared.index.get_level_values("kind").isin(kinds)])
    parts = {}
    for parameter, shape in at.space.shapes.items():
        mask = route_parameters.route_mask(at.model.config, parameter, tuple(shape), neurons, heads)
        parts[parameter] = torch.zeros(shape, dtype=torch.bool) if mask is None else mask
    return at.space.flatten(parts)


def _summary(
    space: str,
    hessian: curvature.Hessian,
    at: Point,
    delta: Tensor,
    whole: float,
    mask: Tensor | None,
    subspace: Subspace,
    eigenvalues: np.ndarray,
    contributions: np.ndarray,
) -> dict[str, Any]:
    inside = delta if mask is None else delta * mask
    part = whole if mask is None else damage.second_order(hessian, inside)
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
        "kappa": damage.leakage(hessian, subspace, min(8, subspace.basis.shape[1])),
        "top_eigenvalue": float(eigenvalues[0]),
    }


def _control_subspaces(
    lineage: Lineage, case: Case, at: Point, delta: Tensor, route: Tensor, k: int
) -> Iterator[tuple[str, Subspace, int]]:
    """One after the other, since a random basis takes k times the memory of the parameters."""
    size = at.space.size
    diagonal = fisher_of(lineage, case.before, at, case.domain)
    yield "coordinates by ½Fδ²", damage.coordinate_subspace(diagonal * delta**2, k), 0
    yield "coordinates by |δ|", damage.coordinate_subspace(delta.abs(), k), 0
    for draw in range(2):
        yield (
            "random in the route",
            damage.random_subspace(size, k, coordinates=route, seed=draw, dtype=np.float32),
            draw,
        )
        yield "random", damage.random_subspace(size, k, seed=draw, dtype=np.float32), draw
