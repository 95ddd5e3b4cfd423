"""Chapter 6: what taking coordinates back gives A and costs the others, measured on test prompts and predicted (C10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from crossdomain import (
    concentration,
    curvature,
    generation,
    measurements,
    policy_scores,
    rollback,
    rollback_sets,
    route_sets,
    second_order,
)
from crossdomain.damage import moved
from crossdomain.evaluation import GREEDY, TEMPERATURE_1
from crossdomain.lineage import Lineage
from crossdomain.objectives import Parameters
from crossdomain.policy_scores import PolicyScores
from crossdomain.rollback import QuadraticModel
from crossdomain.rollback_sets import DAMAGED, FISHER, LEADING, NEXT, Case, Chosen
from crossdomain.second_order import fisher_of, loss_of, point, update
from crossdomain.staging import expert_names

LEARNED, HURT = "before the later stages", "after them"

CODE = (
    *(*second_order.CODE, second_order, curvature, concentration, route_sets),
    *(generation, policy_scores, rollback, rollback_sets),
)
SETTINGS = (
    *second_order.SETTINGS,
    *(
        "rollback_percents",
        "rollback_points",
        "rollback_shares",
        "rollback_draws",
        "rollback_batch",
        "rollback_products",
        "curve_prompts",
        "samples",
    ),
)


def full(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """The refreshed domain's cases with all scores and sizes: the tables of `rolled_back` with the column `case`."""
    parts = [
        {name: table.assign(case=case.label) for name, table in rolled_back(lineage, case).items()}
        for case in rollback_sets.cases(lineage)
    ]
    return {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}


def rolled_back(lineage: Lineage, case: Case) -> dict[str, pd.DataFrame]:
    """One case of the refreshed domain.

    Returns:
        `levels`: a row a domain (A, then those that δ trained): `domain`, its expected reward in points `before` δ and
        `after` it.
        `measured`: a row a set, share and domain: `score`, `percent` of the parameters, `draw`, `share` λ, `coordinates`
        in the set, `norm_share` of ‖δ‖² on them, `domain`, `change` of its expected reward by the rollback in points, and
        `change_0`, `change_1` on every other prompt, from the first and from the second on.
        `predicted`: a row a set (first draws) and share: the change of A's loss by Proposition 4 with the `hessian`; with
        the diagonal `fisher` instead (in nats); and the `actual` one, on the same prompts.
        `policies`: a row a policy (`score`, or `LEARNED` and `HURT`), `percent` (NaN for these), `domain` and `decoding`:
        mean score in `points`; at T = 1 on all domains, greedy on those of the case.
    """
    return _kept(
        lineage,
        f"rollback-{case.after}",
        [case.learned, case.after],
        lambda: _measured(lineage, case),
    )


def _measured(lineage: Lineage, case: Case) -> measurements.Tables:
    at, delta = point(lineage, case.learned), update(lineage, case.before, case.after)
    damaged, scores = moved(at.params, delta), PolicyScores(lineage, case.after)
    before, after = (
        {domain: scores.expected(params, domain) for domain in (case.domain, *case.later)}
        for params in (at.params, damaged)
    )
    loss = loss_of(lineage, case.learned, at, case.domain, "test")
    model, hurt = QuadraticModel.of(loss, at.params, delta), loss.value(damaged).value
    diagonal = rollback.fisher_scores(fisher_of(lineage, case.learned, at, case.domain), delta)
    measured, predicted = [], []
    policies = _policy(scores, case, at.params, LEARNED) + _policy(scores, case, damaged, HURT)
    for chosen in rollback_sets.chosen_sets(lineage, case, at, delta):
        size = _size(delta, chosen.coordinates)
        if chosen.draw == 0:
            terms = model.terms(chosen.coordinates)
            by_fisher = rollback.fisher_terms(diagonal, chosen.coordinates)
        for share in _shares(lineage, case, chosen):
            params = moved(at.params, rollback.rolled_back(delta, chosen.coordinates, share))
            key = {"score": chosen.score, "percent": chosen.percent, "draw": chosen.draw, "share": share}
            measured += [{**key, **size, **change} for change in _changes(scores, params, after)]
            if chosen.draw == 0:
                found = {"hessian": terms.change(share), "fisher": by_fisher.change(share)}
                predicted.append({**key, **found, "actual": loss.value(params).value - hurt})
            if _is_detailed(lineage, chosen) and chosen.draw == 0 and share == 1:
                policies += _policy(scores, case, params, chosen.score, chosen.percent)
    levels = [{"domain": d, "before": float(before[d].mean()), "after": float(after[d].mean())} for d in after]
    tables = {"levels": levels, "measured": measured, "predicted": predicted, "policies": policies}
    return {name: pd.DataFrame(rows) for name, rows in tables.items()}


def _is_detailed(lineage: Lineage, chosen: Chosen) -> bool:
    return chosen.score in LEADING and chosen.percent in lineage.profile.rollback_points


def _shares(lineage: Lineage, case: Case, chosen: Chosen) -> Sequence[float]:
    detailed = case.label == NEXT and _is_detailed(lineage, chosen)
    return lineage.profile.rollback_shares if detailed else [1.0]


def _size(delta: Tensor, coordinates: Tensor) -> dict[str, float]:
    part, whole = (float(vector.double().square().sum()) for vector in (delta[coordinates], delta))
    return {"coordinates": len(coordinates), "norm_share": part / whole}


def _changes(scores: PolicyScores, params: Parameters, start: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    rows = []
    for domain, reference in start.items():
        change = scores.expected(params, domain) - reference
        halves = {f"change_{half}": float(change[half::2].mean()) for half in (0, 1)}
        rows.append({"domain": domain, "change": float(change.mean()), **halves})
    return rows


def _policy(
    scores: PolicyScores, case: Case, params: Parameters, score: str, percent: float = float("nan")
) -> list[dict[str, Any]]:
    found = {(TEMPERATURE_1, domain): scores.expected(params, domain) for domain in expert_names(scores.lineage)}
    found |= {(GREEDY, domain): scores.greedy(params, domain) for domain in (case.domain, *case.later)}
    return [
        {
            "score": score,
            "percent": percent,
            "domain": domain,
            "decoding": decoding,
            "points": float(by_prompt.mean()),
        }
        for (decoding, domain), by_prompt in found.items()
    ]


def pairs(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """Every A of the sequence with every later stage B, at the sizes of `rollback_points` and λ = 1.

    Returns:
        `pairs`: a row a pair `a`, `b`, `score`, `percent` and `draw`: `damage` by B's stage to A and B's `gain` from it;
        what A gets back, `regained`, and B loses, `lost`; all in points of expected reward.
    """

    def compute() -> measurements.Tables:
        rows = [row for case in rollback_sets.ordered_pairs(lineage) for row in _pair(lineage, case)]
        return {"pairs": pd.DataFrame(rows)}

    return _kept(lineage, "rollback-pairs", lineage.sequence, compute)


def _pair(lineage: Lineage, case: Case) -> list[dict[str, Any]]:
    a, (b,) = case.domain, case.later
    at, start, end = (point(lineage, name) for name in (case.learned, case.before, case.after))
    delta, scores = update(lineage, case.before, case.after), PolicyScores(lineage, case.after)

    def expected(params: Parameters) -> tuple[float, float]:
        return float(scores.expected(params, a).mean()), float(scores.expected(params, b).mean())

    (a_before, b_before), (a_after, b_after) = expected(start.params), expected(end.params)
    diagonals = {
        FISHER: fisher_of(lineage, case.learned, at, a),
        DAMAGED: fisher_of(lineage, case.after, end, a),
    }
    most = rollback_sets.count(max(lineage.profile.rollback_points), len(delta))
    rankings = [
        (score, 0, rollback.ranking(rollback.fisher_scores(f, delta), count=most)) for score, f in diagonals.items()
    ]
    rows = []
    for score, draw, order in [*rankings, *rollback_sets.controls(lineage, delta, most)]:
        for percent in lineage.profile.rollback_points:
            coordinates = rollback_sets.first(order, percent, len(delta))
            a_now, b_now = expected(moved(start.params, rollback.rolled_back(delta, coordinates, 1.0)))
            key: dict[str, Any] = {"a": a, "b": b, "score": score, "percent": percent, "draw": draw}
            whole = {"damage": a_before - a_after, "gain": b_after - b_before}
            rows.append({**key, **whole, "regained": a_now - a_after, "lost": b_after - b_now})
    return rows


def _kept(
    lineage: Lineage, what: str, checkpoints: Sequence[str], compute: Callable[[], measurements.Tables]
) -> dict[str, pd.DataFrame]:
    settings = {**lineage.profile.subset(*SETTINGS), "seed": lineage.seed, "route_share": concentration.ROUTE_SHARE}
    return measurements.tables(
        lineage,
        what,
        compute,
        checkpoints=checkpoints,
        settings=settings,
        domains=expert_names(lineage),
        code=[*CODE, __name__],
    )
