"""Chapter 7: alternating refresh (C11) on a run's checkpoints, by gradient descent on two losses and by RL on all domains.

Everything starts from the damaged policy, after the whole sequence. A is the refreshed domain; B goes through the others.
The order of deviations in α is taken in float64; steps are multiples of 1/(λ_A + λ_B), λ the top eigenvalue of a loss's
Hessian there, which is at most 1/λ_max of the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from crossdomain import alternating, bounds, collateral, interference, measurements, precision, second_order
from crossdomain.lineage import Lineage
from crossdomain.mixture import Rotation, Shares, train_mixture
from crossdomain.objectives import Objective, parameters
from crossdomain.second_order import Point, loss_of, main_case, point
from crossdomain.staging import expert_names, refresh_names, title

MULTIPLES = tuple(np.geomspace(0.01, 1, 5).tolist())  # steps α, in units of 1/(λ_A + λ_B)
SMALL = 0.1  # of them, those from which the order in α is read
FEWER = 8  # losses of domains with several right answers are on an eighth of the prompts: each has several rollouts

ALTERNATING, IN_BLOCKS, MIXED = "alternating", "one after another", "mixed batches"
CODE = [*second_order.CODE, second_order, alternating, bounds, collateral, precision, __name__]
SETTINGS = (*second_order.SETTINGS, "alternating_cycles")


# --- Gradient descent on two losses ---


def partner(lineage: Lineage) -> str:
    """B of the main pair: the first other domain with one right answer, else the first other one."""
    others = [domain for domain in expert_names(lineage) if domain != lineage.profile.refresh]
    return next((domain for domain in others if _one_answer(lineage, domain)), others[0])


def pairs(lineage: Lineage) -> list[tuple[str, str]]:
    """The refreshed domain with each of the others, the main pair first."""
    a, b = lineage.profile.refresh, partner(lineage)
    return [(a, b), *((a, other) for other in expert_names(lineage) if other not in (a, b))]


def cycles(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """Proposition 5 at the damaged policy, on training prompts.

    Returns:
        `deviations`: the rows of `alternating.deviations` for every pair `a`, `b`, with `multiple` = α(λ_A + λ_B).
        `orders`: the rows of `alternating.error_orders` for every pair, over the small steps.
        `objectives`: a row a `domain`: its `objective` and `top_eigenvalue` λ.
        `descents`: the rows of `alternating.descents` for the main pair at α = 1/(λ_A + λ_B).
    """
    start = main_case(lineage).after

    def compute() -> measurements.Tables:
        at = point(lineage, start)
        losses = {domain: _loss(lineage, start, at, domain, "train") for domain in expert_names(lineage)}
        tops = {domain: collateral.top_eigenvalue(loss, at.params) for domain, loss in losses.items()}
        a, b = pairs(lineage)[0]
        descents = alternating.descents(
            losses[a],
            losses[b],
            at.params,
            1 / (tops[a] + tops[b]),
            lineage.profile.alternating_cycles,
            (_loss(lineage, start, at, a, "test"), _loss(lineage, start, at, b, "test")),
        )
        deviations, orders = _deviations(lineage, start, tops)
        objectives = [
            {"domain": domain, "objective": loss.describe(), "top_eigenvalue": tops[domain]}
            for domain, loss in losses.items()
        ]
        return {
            "deviations": deviations,
            "orders": orders,
            "objectives": pd.DataFrame(objectives),
            "descents": descents.assign(a=a, b=b),
        }

    return measurements.tables(
        lineage,
        "alternating-cycles",
        compute,
        checkpoints=[start],
        settings={**lineage.profile.subset(*SETTINGS), "seed": lineage.seed, "pairs": pairs(lineage)},
        domains=expert_names(lineage),
        code=CODE,
    )


def _deviations(lineage: Lineage, start: str, tops: Mapping[str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    with precision.Float64():
        narrow = point(lineage, start)
        model = narrow.model.double()
        wide = Point(model, parameters(model), narrow.space)
        losses = {domain: _loss(lineage, start, wide, domain, "train") for domain in tops}
        deviations, orders = [], []
        for a, b in pairs(lineage):
            unit = 1 / (tops[a] + tops[b])
            multiples = {multiple * unit: multiple for multiple in MULTIPLES}
            found = alternating.deviations(losses[a], losses[b], wide.params, list(multiples))
            deviations.append(found.assign(multiple=found["alpha"].map(multiples), a=a, b=b))
            orders.append(alternating.error_orders(found, SMALL * unit).assign(a=a, b=b))
    return pd.concat(deviations, ignore_index=True), pd.concat(orders, ignore_index=True)


def _loss(lineage: Lineage, name: str, at: Point, domain: str, split: str) -> Objective:
    fewer = {"curvature_prompts": max(2, lineage.profile.curvature_prompts // FEWER)}
    return loss_of(lineage if _one_answer(lineage, domain) else lineage.variant(fewer), name, at, domain, split)


def _one_answer(lineage: Lineage, domain: str) -> bool:
    made = lineage.domains[domain]
    return made.answer(made.items("train")[0]) is not None


# --- RL on all domains ---


def refreshes(lineage: Lineage) -> dict[str, str]:
    """What each refresh of the damaged policy is called, and its checkpoint, all of `refresh_steps` RL steps.

    Three are on all domains, the refreshed one first: one domain a step, each in its turn; one domain after another,
    each for its share of the steps; all in every batch. They have one Adam, one warm-up and one learning rate, that of the
    refreshed domain. Then come the refreshes of single domains, the refreshed one (the plain refresh) first.
    """
    plain = refresh_names(lineage)
    domains = tuple(lineage.stage(name).domain for name in plain)
    steps, parent = lineage.profile.refresh_steps, lineage.sequence[-1]
    schedules: dict[str, tuple[str, Rotation | Shares]] = {
        ALTERNATING: ("alternating", Rotation(domains)),
        IN_BLOCKS: ("blocks", Rotation(domains, every=-(-steps // len(domains)))),
        MIXED: ("mixed", Shares.even(domains)),
    }
    made = {
        method: train_mixture(lineage, label, schedule, parent=parent, steps=steps).name
        for method, (label, schedule) in schedules.items()
    }
    return made | {f"refresh {title(lineage, domain)}": name for domain, name in zip(domains, plain, strict=True)}


def changes(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """What every refresh changes in every domain, from the damaged policy.

    Returns:
        The rows of `interference.changes`; `step` is what the refresh is called.
    """
    damaged = [lineage.sequence[-1] for lineage in lineages]
    names = [refreshes(lineage) for lineage in lineages]
    return interference.changes(
        lineages, {method: (damaged, [found[method] for found in names]) for method in names[0]}
    )


def totals(changes: pd.DataFrame, plain: str) -> pd.DataFrame:
    """Average and worst score over the domains, test prompts at temperature 1, paired with the plain refresh.

    Args:
        changes: of `changes`.
        plain: what the plain refresh is called there.

    Returns:
        A row a seed and `method`: `average`, `worst`, in points, and `average_over_plain`, `worst_over_plain`, the
        differences to the plain refresh; `gained` and `lost_most`, the mean and the least change since the damaged policy.
        The damaged policy itself is the method `no refresh`.
    """
    rows = changes[(changes["split"] == "test") & (changes["decoding"] == "T=1")]
    first = rows[rows["step"] == plain]
    none = first.assign(step="no refresh", after=first["before"], change=0.0)
    groups = pd.concat([none, rows]).groupby(["seed", "step"], sort=False)
    found = groups.agg(
        average=("after", "mean"), worst=("after", "min"), gained=("change", "mean"), lost_most=("change", "min")
    ).reset_index(names=["seed", "method"])
    own = found[found["method"] == plain].set_index("seed")
    for column in ("average", "worst"):
        found[f"{column}_over_plain"] = found[column] - found["seed"].map(own[column])
    return found
