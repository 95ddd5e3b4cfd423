"""Chapter 8: the sequence in every order of its domains, and whether chapter 4's predictions rank the orders.

Orders that begin alike share their stages: four domains have 24 orders and 64 stages. They are trained only for the seeds
of `orders_seeds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

import numpy as np
import pandas as pd

from crossdomain import evaluation, pairs, predictions
from crossdomain.lineage import Lineage
from crossdomain.staging import expert_names

Order = tuple[str, ...]

# What an order's loss is predicted from, summed over its ordered pairs.
PREDICTORS = {
    "predicted": "second-order expansion, gᵀδ + ½ δᵀHδ",
    "second": "½ δᵀHδ alone",
    "divergence": "½ δᵀFδ (no reward needed)",
    "measured": "measured damage of pairs (chapter 3)",
    "update_norm": "size of the later update alone (control)",
}


def asked(lineages: Sequence[Lineage]) -> list[Lineage]:
    """Those of the lineages whose orders are to be trained."""
    return [lineage for lineage in lineages if lineage.seed in lineage.profile.orders_seeds]


def orders(lineage: Lineage) -> list[Order]:
    """All orders of the run's domains, that of the run first."""
    return list(permutations(expert_names(lineage)))


def prefixes(lineage: Lineage) -> list[str]:
    """Names of the checkpoints of all orders, a stage each, shorter ones first."""
    found = dict.fromkeys(order[:n] for n in range(1, len(expert_names(lineage)) + 1) for order in orders(lineage))
    return ["-".join(order) for order in found]


def study(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """Scores after every order, with and without a refresh of the profile's domain at its end; trains what is missing.

    Returns:
        `scores`: a row an order, version and domain: `order` (as checkpoints are named), `refreshed`, `domain`, how many
        stages came `later` than its own, its `score` at temperature 1 on the test prompts, and what it `lost` since its own
        stage, both in points.
    """
    domains = expert_names(lineage)
    for name in prefixes(lineage):
        lineage.checkpoint(name)
    rows = []
    for order in orders(lineage):
        learned = {
            domain: float(evaluation.test_scores(lineage, "-".join(order[: i + 1]), [domain]).mean())
            for i, domain in enumerate(order)
        }
        for refreshed in (False, True):
            name = "-".join(order) + (f"-re{lineage.profile.refresh}" if refreshed else "")
            found = evaluation.test_scores(lineage, name, domains).groupby(level="domain", sort=False).mean()
            rows += [
                {
                    "order": "-".join(order),
                    "refreshed": refreshed,
                    "domain": domain,
                    "later": len(order) - 1 - order.index(domain),
                    "score": 100 * found[domain],
                    "lost": 100 * (learned[domain] - found[domain]),
                }
                for domain in domains
            ]
    return {"scores": pd.DataFrame(rows)}


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a seed, order and version: `average` and `worst` score of the domains, and what they `lost` on average."""
    grouped = scores.groupby(["seed", "order", "refreshed"], sort=False)
    return grouped.agg(average=("score", "mean"), worst=("score", "min"), lost=("lost", "mean")).reset_index()


def pair_damages(lineage: Lineage) -> pd.DataFrame:
    """What is known or measured of every ordered pair: a row a pair `a`, `b`, a column each of `PREDICTORS`."""
    found = predictions.predictions(lineage)["pairs"]
    measured = pairs.damages([lineage])[["a", "b", "damage"]].rename(columns={"damage": "measured"})
    sizes = pairs.predictors([lineage])[["a", "b", "update_norm"]]
    table = found.merge(measured, on=["a", "b"]).merge(sizes, on=["a", "b"], validate="one_to_one")
    return table[["a", "b", *PREDICTORS]]


def prediction(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """`foreseen` for the orders of a lineage."""
    found = summary(study(lineage)["scores"].assign(seed=lineage.seed))
    return foreseen(found[~found["refreshed"]], pair_damages(lineage))


def summed(order: Order, damages: Mapping[tuple[str, str], float]) -> float:
    """The sum of pair damages over the pairs (a, b) of an order with a before b."""
    return sum(damages[pair] for pair in combinations(order, 2))


def foreseen(found: pd.DataFrame, damages: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """How well sums of pair damages rank the orders of one seed by what they lose.

    The orders share stages, so that they are no independent sample. The control permutes the names of the domains in the
    table of pairs: `p` is the share of all permutations, the right one among them, that rank as well or better.

    Args:
        found: the rows of `summary` of one seed, without the refresh.
        damages: the rows of `pair_damages`.

    Returns:
        `sums`: a row an order: `order`, `lost`, `average` and its sum by each predictor.
        `ranking`: a row a predictor: `predictor`; Spearman's `correlation` of its sums with `lost`; `p`; and
        `with_average`, its correlation with minus the average score.
    """
    names = list(dict.fromkeys(damages["a"]))
    renamings = [dict(zip(names, renamed, strict=True)) for renamed in permutations(names)]  # the first changes nothing
    taken = [tuple(name.split("-")) for name in found["order"]]
    sums, rows = found[["order", "lost", "average"]].reset_index(drop=True), []
    for predictor in PREDICTORS:
        values = dict(zip(zip(damages["a"], damages["b"], strict=True), damages[predictor], strict=True))
        renamed = np.array([[summed(tuple(new[d] for d in order), values) for order in taken] for new in renamings])
        correlations = np.array([pairs.spearman(row, found["lost"]) for row in renamed])
        sums[predictor] = renamed[0]
        rows.append(
            {
                "predictor": predictor,
                "correlation": correlations[0],
                "p": float(np.mean(correlations >= correlations[0] - 1e-12))
                if np.isfinite(correlations[0])
                else np.nan,
                "with_average": pairs.spearman(renamed[0], -found["average"]),
            }
        )
    return {"sums": sums, "ranking": pd.DataFrame(rows)}
