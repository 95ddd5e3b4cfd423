"""What a run says of the claims: its result tables, checked as they are read, and intervals over its seeds and bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crossdomain import evaluation, staging, stats
from crossdomain.evaluation import TEMPERATURE_1
from crossdomain.lineage import Lineage
from crossdomain.profiles import Profile

UNKNOWN = stats.Interval(np.nan, np.nan, np.nan)


class ClaimError(ValueError):
    """The results do not have what a claim reads; the message says which table or column."""


class NotTestableError(LookupError):
    """The run lacks what a claim is about; the message says what."""


@dataclass(frozen=True)
class Evidence:
    """The result tables of a run, the profile behind them, and the chapters (`01`, `02`, …) that were run."""

    tables: Mapping[str, pd.DataFrame]
    profile: Profile
    chapters: frozenset[str]

    @classmethod
    def read(cls, directory: Path, profile: Profile) -> Evidence:
        """The evidence in the directory of a run."""
        executed = (directory / "notebooks").glob("[0-9][0-9]_*.ipynb")
        return cls(
            {
                path.stem: pd.read_csv(path)
                for path in sorted((directory / "results").glob("*.csv"))
                if path.read_text().strip()  # a table without rows has no columns: the run had nothing to put there
            },
            profile,
            frozenset(path.stem[:2] for path in executed if not path.stem.endswith(".partial")),
        )

    def table(self, chapter: str, name: str, *columns: str) -> pd.DataFrame:
        """A result table of a chapter that must have those columns.

        Raises:
            NotTestableError: the chapter was not run.
            ClaimError: it was, but the table or a column of it is missing.
        """
        if name not in self.tables:
            if chapter not in self.chapters:
                raise NotTestableError(f"chapter {int(chapter)} was not run")
            raise ClaimError(f"results/{name}.csv is missing though chapter {int(chapter)} was run: run it again")
        table = self.tables[name]
        if absent := [column for column in columns if column not in table]:
            raise ClaimError(f"results/{name}.csv: no column {', '.join(absent)}; it has {', '.join(map(str, table))}")
        return table

    def titles(self) -> dict[str, str]:
        """What roles and steps call the domains, by their name in the profile."""
        return {name: domain.title for name, domain in self.profile.load_domains().items()}

    def later(self) -> list[str]:
        """The domains of the stages after the refreshed domain's own.

        Raises:
            NotTestableError: there is none, or no refresh.
        """
        if not self.profile.interferes:
            raise NotTestableError(f"no stage follows that of {self.profile.refresh}, or there is no refresh")
        stages = self.profile.stages
        return stages[stages.index(self.profile.refresh) + 1 :]

    def over_seeds(self, values: pd.Series | pd.DataFrame) -> stats.Interval:
        """The mean with an interval over base seeds, seeds and, where there are columns, prompts.

        Args:
            values: indexed by seed; one value each, or a column a prompt. Seeds without a value are left out.
        """
        known = values.dropna()
        if len(known) == 0:
            return UNKNOWN
        return stats.hierarchical_bootstrap(known, [self.profile.base_seed(int(seed)) for seed in known.index])

    def mean(self, table: pd.DataFrame, column: str) -> stats.Interval:
        """Mean of a column over the rows of each seed, then over seeds."""
        return self.over_seeds(table.groupby("seed")[column].mean())


def refresh_by_prompt(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """What the refresh and its controls change on every test prompt of the refreshed domain, at T = 1.

    Returns:
        A row a `step` (as in chapter 1's changes), `seed` and `item`: `change`, in points; no row without a refresh.
    """
    plan = staging.plan(lineages)
    rows = []
    for step, (before, after) in staging.steps_of(plan).items():
        if step not in {*plan.refreshes, *plan.controls}:
            continue
        for lineage, *names in zip(lineages, before, after, strict=True):
            scores = (evaluation.by_prompt(evaluation.scores(lineage, name)) for name in names)
            first, second = (found.loc[lineage.profile.refresh, "test", TEMPERATURE_1] for found in scores)
            change = (100 * (second - first)).rename("change").rename_axis("item").reset_index()
            rows.append(change.assign(step=step, seed=lineage.seed))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["item", "change", "step", "seed"])
