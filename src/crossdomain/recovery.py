"""Chapter 5: refreshes of the main case against Theorem 1 (C8) and against Proposition 3.

The main case is that of `second_order`: A is the refreshed domain, θ_A the policy after its own stage, δ all that the later
stages changed. Subspaces are chosen, and gradients taken, on A's training prompts; losses and scores are reported on test
prompts. Gradient descent is on the loss that the theory is about; the GRPO refreshes are chapter 1's and their variants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from crossdomain import (
    bounds,
    collateral,
    concentration,
    curvature,
    damage,
    measurements,
    objectives,
    policy_scores,
    refresh,
    refresh_variants,
    route_sets,
    second_order,
    spectrum,
)
from crossdomain.damage import Subspace
from crossdomain.lineage import Lineage
from crossdomain.objectives import Objective
from crossdomain.refresh import CurvedSubspace, Path
from crossdomain.refresh_variants import Variant, variants
from crossdomain.second_order import Case, Point, loss_of, main_case, point, update
from crossdomain.staging import expert_names

WHOLE, ROUTE, RANDOM = "all parameters", "route", "random"
DIMENSIONS = (1, 4, concentration.FEW)  # leading directions that span S
MULTIPLES = (0.5, 1.0, 1.5, 2.5)  # steps α of gradient descent, as multiples of 1/λ_max(H) at θ_A over all parameters
MATCHED = 1.0  # the multiple whose step lengths the control takes
FEWER = 4  # collateral of domains with several right answers is on a fourth of the prompts: each has several rollouts
DESCENT, GRPO, ANYWHERE = "gradient descent", "GRPO", "random, as long as GRPO's"

CODE = [
    *(*second_order.CODE, second_order, concentration, route_sets, bounds, refresh, refresh_variants, collateral),
    *(policy_scores, __name__),
]
SETTINGS = (*second_order.SETTINGS, "descent_steps", "refresh_snapshot_every", "curve_prompts", "samples")


def refreshes(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """The main case's refreshes, by gradient descent and as trained.

    Returns:
        `constants`: a row a `space` and dimension `k`: `mu`, `L`, `kappa` at θ_A, `inside` = ‖Pδ‖, `outside` = ‖Qδ‖,
        `gradient_inside` = ‖Pg‖ at θ_A, and the `objective`.
        `curvature`: λ_max of A's Hessian at θ_A and where the refresh starts: `at` (before, after), `top_eigenvalue`.
        `contraction`: a row a descent, `space`, `k` and step: the rows of `CurvedSubspace.contraction`. A descent is known
        by the domain `on` whose loss it descends, by `multiple` = αλ_max and `alpha`; where `on` is another domain, its
        steps are as long as those of the refresh at that multiple, and there are no bounds.
        `descent`: a row a descent and step: `train_loss` and `test_loss` of A, `undamaged`, the test loss at θ_A,
        `distance` = ‖e_t‖ and `moved` = ‖θ_t − θ_0‖.
        `domains`: a row a descent, step and `domain`: `score` in points, at the steps a GRPO refresh keeps.
        `grpo`: a row a GRPO refresh, space, k and step: `rate`, `batch`, `own` and the rows of `projections`.
        `collateral`: a row another `domain` and displacement: the rows of `collateral.collateral`, with `objective`.
    """
    case, made = main_case(lineage), variants(lineage)

    def compute() -> measurements.Tables:
        at, delta = point(lineage, case.before), update(lineage, case.before, case.after)
        train, test = (loss_of(lineage, case.before, at, case.domain, split) for split in ("train", "test"))
        spaces = dict(_spaces(lineage, case, at, train))
        top = spaces[WHOLE, 1].constants.L
        scorer = policy_scores.PolicyScores(lineage, case.before)
        contraction, losses, scores, ends = [], [], [], {}
        for label, path in _descents(lineage, case, at, delta, train, top):
            own = label["on"] == case.domain
            for (space, k), curved in spaces.items():
                rows = curved.contraction(path, label["alpha"]) if own else curved.projections(path.displacements)
                contraction.append(rows.assign(space=space, k=k, **label))
            losses.append(_losses(at, path, train, test).assign(**label))
            scores.append(_scores(lineage, at, path, scorer).assign(**label))
            if own and label["multiple"] == MATCHED:
                ends[DESCENT] = path.displacements[-1] - delta
            del path  # twice the vectors of a model a step, before the next ones are made
        ends[GRPO] = update(lineage, case.after, made[0].name)
        ends[ANYWHERE] = second_order.like(at.space, ends[GRPO], _random, lineage.seed)
        return {
            "constants": _constants(spaces, delta, curvature.gradient(train, at.params), train),
            "curvature": pd.DataFrame(
                {
                    "at": ["before", "after"],
                    "top_eigenvalue": [top, collateral.top_eigenvalue(train, damage.moved(at.params, delta))],
                }
            ),
            "contraction": pd.concat(contraction, ignore_index=True),
            "descent": pd.concat(losses, ignore_index=True),
            "domains": pd.concat(scores, ignore_index=True),
            "grpo": pd.concat([_projections(variant, at, spaces) for variant in made], ignore_index=True),
            "collateral": _collateral(lineage, case, ends),
        }

    return measurements.tables(
        lineage,
        "refreshes",
        compute,
        checkpoints=[case.before, case.after],
        settings={
            **lineage.profile.subset(*SETTINGS),
            "seed": lineage.seed,
            "variants": [variant.lineage.checkpoint(variant.name).key for variant in made],
        },
        domains=expert_names(lineage),
        code=CODE,
    )


def _spaces(
    lineage: Lineage, case: Case, at: Point, train: Objective
) -> Iterator[tuple[tuple[str, int], CurvedSubspace]]:
    """S in three makings, each by its first k directions, with H at θ_A."""
    most = min(concentration.FEW, lineage.profile.curvature_directions)
    masks = concentration.spaces(lineage, case, at)
    made = {RANDOM: damage.random_subspace(at.space.size, most, seed=lineage.seed, dtype=np.float32)}
    hessian = curvature.Hessian(train, at.params)
    for space in (WHOLE, ROUTE):
        restricted = spectrum.HessianOperator(hessian, at.params, masks[space])
        found = spectrum.top_eigenpairs(
            restricted,
            most,
            tol=concentration.TOLERANCE,
            seed=lineage.seed,
            basis=concentration.basis(most, restricted.shape[0]),
        )
        made[space] = Subspace(found.vectors, restricted.coordinates, at.space.size)
    for space in (WHOLE, ROUTE, RANDOM):
        curved = CurvedSubspace.under(hessian, made[space])
        for k in sorted({min(k, most) for k in DIMENSIONS}):
            yield (space, k), curved.leading(k)


def _descents(
    lineage: Lineage, case: Case, at: Point, delta: Tensor, train: Objective, top: float
) -> Iterator[tuple[dict[str, Any], Path]]:
    """Descents on A at all steps, then the control: other domains with one right answer, in steps as long."""
    for multiple in MULTIPLES:
        label = {"on": case.domain, "multiple": multiple, "alpha": multiple / top}
        path = refresh.descent(train, at.params, delta, multiple / top, lineage.profile.descent_steps)
        if multiple == MATCHED:
            lengths = [float((later - earlier).norm()) for earlier, later in pairwise(path.displacements)]
        yield label, path
        del path
    for other in expert_names(lineage):
        if other != case.domain and lineage.domains[other].answer(lineage.domains[other].items("train")[0]) is not None:
            loss = loss_of(lineage, case.before, at, other, "train")
            label = {"on": other, "multiple": MATCHED, "alpha": float("nan")}
            yield label, refresh.descent_by_lengths(loss, at.params, delta, lengths)


def _losses(at: Point, path: Path, train: Objective, test: Objective) -> pd.DataFrame:
    found = []
    for e in path.displacements:  # one at a time: each point takes the memory of a model
        params = damage.moved(at.params, e)
        found.append((train.value(params).value, test.value(params).value))
    on_train, on_test = zip(*found, strict=True)
    return pd.DataFrame(
        {
            "step": range(len(found)),
            "train_loss": on_train,
            "test_loss": on_test,
            "undamaged": test.value(at.params).value,
            "distance": path.displacements.norm(dim=1),
            "moved": [float((e - path.displacements[0]).norm()) for e in path.displacements],
        }
    )


def _scores(lineage: Lineage, at: Point, path: Path, scorer: policy_scores.PolicyScores) -> pd.DataFrame:
    last = len(path.displacements) - 1
    rows = []
    for step in [*range(0, last, lineage.profile.refresh_snapshot_every), last]:
        params = damage.moved(at.params, path.displacements[step])
        for domain in expert_names(lineage):
            score = float(scorer.expected(params, domain).mean())
            rows.append({"step": step, "domain": domain, "score": score})
    return pd.DataFrame(rows)


def _constants(
    spaces: Mapping[tuple[str, int], CurvedSubspace], delta: Tensor, g: Tensor, train: Objective
) -> pd.DataFrame:
    rows = []
    for (space, k), curved in spaces.items():
        known, lies = curved.constants, curved.projections(torch.stack([delta, g]))
        rows.append(
            {
                "space": space,
                "k": k,
                "mu": known.mu,
                "L": known.L,
                "kappa": known.kappa,
                "inside": lies["inside"].iloc[0],
                "outside": lies["outside"].iloc[0],
                "gradient_inside": lies["inside"].iloc[1],
                "objective": train.describe(),
            }
        )
    return pd.DataFrame(rows)


def _projections(variant: Variant, at: Point, spaces: Mapping[tuple[str, int], CurvedSubspace]) -> pd.DataFrame:
    """Where the points of a GRPO refresh lie."""
    points = variant.points()
    weights = [
        at.space.flatten(objectives.parameters(variant.lineage.checkpoint(name).model())) for name in points.values()
    ]
    displacements = torch.stack(weights) - at.space.flatten(at.params)
    parts = [
        curved.projections(displacements).assign(step=list(points), space=space, k=k)
        for (space, k), curved in spaces.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(rate=variant.rate, batch=variant.batch, own=variant.own)


def _collateral(lineage: Lineage, case: Case, ends: Mapping[str, Tensor]) -> pd.DataFrame:
    start = point(lineage, case.after)
    fewer = lineage.variant({"curvature_prompts": max(2, lineage.profile.curvature_prompts // FEWER)})
    parts = []
    for other in expert_names(lineage):
        if other == case.domain:
            continue
        exact = lineage.domains[other].answer(lineage.domains[other].items("test")[0]) is not None
        loss = loss_of(lineage if exact else fewer, case.after, start, other, "test")
        found = collateral.collateral(loss, start.params, ends)
        parts.append(found.assign(domain=other, objective=loss.describe()))
    return pd.concat(parts, ignore_index=True)


def _random(part: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(part.shape, generator=generator, dtype=part.dtype)
