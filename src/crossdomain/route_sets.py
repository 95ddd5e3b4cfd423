"""Chapter 3: which units every domain uses at a run's checkpoints (C4), by each score of `routes` and several shares.

Scores of all units are tens of megabytes a checkpoint. What chapters ask is which units are among the top share, so that is
what is kept.
"""

from __future__ import annotations

import pandas as pd

from crossdomain import measurements, overlap, rollouts, routes
from crossdomain.lineage import Lineage
from crossdomain.routes import UNIT
from crossdomain.staging import expert_names

ROUTE_SHARE = 0.1  # of the units are active, where a route is one set
SHARES = (0.05, 0.1, 0.2)
CODE = (routes, rollouts, overlap)
SETTINGS = ("prompt_template", "route_prompts", "evaluation_batch")
WHOLE = "whole"  # all prompts; "0" and "1" are halves of them

Sets = dict[tuple[str, str, float], dict[str, "pd.Series[bool]"]]


def memberships(lineage: Lineage, name: str) -> pd.DataFrame:
    """Which units are active on every domain's test prompts, answered by the checkpoint itself.

    Args:
        lineage: the run.
        name: of the checkpoint.

    Returns:
        A row a `domain` and unit (`kind`, `layer`, `index`), and a column a score and part of the prompts, such as
        `contribution whole` or `activation 0`: the least of `SHARES` at which the unit is active, in percent; 100 where it
        is at none.
    """
    profile = lineage.profile

    def compute() -> measurements.Tables:
        checkpoint = lineage.checkpoint(name)
        model, tokenizer = checkpoint.model(), checkpoint.tokenizer()
        frames = []
        for domain in expert_names(lineage):
            items = lineage.domains[domain].items("test")[: profile.route_prompts]
            answers = rollouts.sample_rollouts(
                model, tokenizer, profile, lineage.domains[domain], items, split="test", samples=1, seed=lineage.seed
            )
            scores = routes.route_scores(
                model,
                tokenizer.pad_token_id,
                answers.prompts,
                answers.responses,
                batch_size=profile.evaluation_batch // 4,
                attribution=True,
            )
            frames.append(_memberships(scores).assign(domain=domain))
        return {"routes": pd.concat(frames, ignore_index=True)}

    return measurements.tables(
        lineage,
        f"routes-{name}",
        compute,
        checkpoints=[name],
        settings={**profile.subset(*SETTINGS), "seed": lineage.seed},
        domains=expert_names(lineage),
        code=[*CODE, __name__],
    )["routes"]


def active_routes(lineage: Lineage, name: str, share: float = ROUTE_SHARE) -> dict[str, pd.Series[bool]]:
    """Every domain's active route at a checkpoint, by contribution; over the units of `routes.active`.

    Raises:
        ValueError: the share is not one of `SHARES`.
    """
    if share not in SHARES:
        raise ValueError(f"share = {share}: expected one of {', '.join(map(str, SHARES))}, which are kept")
    column = f"{routes.SCORES[0]} {WHOLE}"
    by_domain = memberships(lineage, name).groupby("domain", sort=False)
    return {str(domain): _within(part.set_index(UNIT)[column], share) for domain, part in by_domain}


def active_sets(lineage: Lineage, name: str, part: str = WHOLE) -> Sets:
    """Active sets of every domain, by score, kind of unit and share, from all prompts or a half of them (`0`, `1`)."""
    found: Sets = {}
    for domain, rows in memberships(lineage, name).groupby("domain", sort=False):
        units = rows.set_index(UNIT)
        for score in routes.SCORES:
            for share in SHARES:
                for kind in (routes.NEURON, routes.HEAD):
                    of_kind = units.loc[units.index.get_level_values("kind") == kind, f"{score} {part}"]
                    found.setdefault((score, kind, share), {})[str(domain)] = _within(of_kind, share)
    return found


def _memberships(scores: pd.DataFrame) -> pd.DataFrame:
    parts = {WHOLE: routes.mean_over_halves(scores)}
    parts |= {str(half): rows for half, rows in scores.groupby("half")}
    columns = {
        f"{score} {part}": _least_percent(rows, score) for part, rows in parts.items() for score in routes.SCORES
    }
    return pd.DataFrame(columns).reset_index()


def _least_percent(scores: pd.DataFrame, score: str) -> pd.Series[int]:
    """The least of `SHARES`, in percent, at which each unit is active; 100 where it is at none."""
    sets = {_percent(share): routes.active(scores, share, score=score) for share in SHARES}
    least: pd.Series[int] = pd.DataFrame({p: found.map({True: p, False: 100}) for p, found in sets.items()}).min(axis=1)
    return least


def _within(least: pd.Series[int], share: float) -> pd.Series[bool]:
    return (least <= _percent(share)).rename("active")


def _percent(share: float) -> int:
    return round(100 * share)
