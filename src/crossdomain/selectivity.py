"""Chapter 5: whether a refresh brings back its own domain and no other (C9): one of each domain, from the same policy."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from crossdomain import interference, stats
from crossdomain.evaluation import TEMPERATURE_1
from crossdomain.lineage import Lineage
from crossdomain.staging import expert_names, refresh_names


def recovery_matrix(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """What a refresh of each domain changes in every domain, from the same damaged policy, and what each had lost.

    Returns:
        A row a seed, `refreshed` domain and `domain`: `change` with its interval `low`, `high` over prompts, `before`,
        `after`, and `lost`, what the stages after the domain's own took from it, in points on its test prompts at
        temperature 1.
    """
    first = lineages[0]
    damaged = first.sequence[-1]
    domains = expert_names(first)
    by_domain = {name.rpartition("-re")[2]: name for name in refresh_names(first)}
    learned = dict(zip(reversed(first.profile.stages), reversed(first.sequence[1:]), strict=True))
    seeds = len(lineages)
    steps: dict[str, tuple[Sequence[str], Sequence[str]]] = {
        f"refresh {d}": ([damaged] * seeds, [by_domain[d]] * seeds) for d in domains
    }
    steps |= {f"later {d}": ([learned[d]] * seeds, [damaged] * seeds) for d in domains}
    changes = interference.changes(lineages, steps)
    changes = changes[(changes["split"] == "test") & (changes["decoding"] == TEMPERATURE_1)]
    kind, of = changes["step"].str.split(" ").str[0], changes["step"].str.split(" ").str[1]
    later = changes[(kind == "later") & (of == changes["domain"])]
    lost = later.set_index(["seed", "domain"])["change"].rename("lost")
    found = (
        changes[(kind == "refresh") & changes["domain"].isin(domains)]
        .assign(refreshed=of)
        .join(-lost, on=["seed", "domain"])
    )
    columns = ["seed", "refreshed", "domain", "before", "after", "change", "low", "high", "lost"]
    return found[columns].reset_index(drop=True)


def matrix_over_seeds(matrix: pd.DataFrame) -> pd.DataFrame:
    """The recovery matrix with intervals over seeds; over prompts where there is one seed.

    Returns:
        A row a `refreshed` domain and `domain`: `change`, `low`, `high` and `lost`, in points.
    """
    rows = []
    for (refreshed, domain), part in matrix.groupby(["refreshed", "domain"], sort=False):
        interval = stats.seed_mean(part["change"])
        if len(part) == 1:
            interval = stats.Interval(*part.iloc[0][["change", "low", "high"]])
        found = {"change": interval.value, "low": interval.low, "high": interval.high, "lost": part["lost"].mean()}
        rows.append({"refreshed": refreshed, "domain": domain, **found})
    return pd.DataFrame(rows)


def selectivity(matrix: pd.DataFrame) -> pd.DataFrame:
    """What a domain's own refresh gains it beyond the refresh of another domain that helps it most.

    Returns:
        A row a seed and `domain`: `own`, its gain under its own refresh, `other`, the largest under another, `beyond`, the
        difference, in points, and `best`, whose refresh that other is.
    """
    rows = []
    for (seed, domain), part in matrix.groupby(["seed", "domain"], sort=False):
        own = float(part.loc[part["refreshed"] == domain, "change"].iloc[0])
        best = part[part["refreshed"] != domain].sort_values("change").iloc[-1]
        found = {"own": own, "other": best["change"], "beyond": own - best["change"], "best": best["refreshed"]}
        rows.append({"seed": seed, "domain": domain, **found})
    return pd.DataFrame(rows)
