"""Measurements of checkpoints: computed once, kept in the store as tidy tables under all that determines them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from crossdomain import provenance
from crossdomain.lineage import Lineage, domain_inputs
from crossdomain.store import Artifact
from crossdomain.training import quiet

Tables = Mapping[str, pd.DataFrame]


def kept(
    lineage: Lineage,
    what: str,
    *,
    checkpoints: Sequence[str],
    make: Callable[[Path, Path], None],
    code: Sequence[ModuleType | str],
    settings: Mapping[str, Any] | None = None,
    domains: Sequence[str] = (),
) -> Artifact:
    """A measurement of some checkpoints of a lineage: read from the store, else made and kept there.

    Args:
        lineage: whose checkpoints.
        what: names the measurement.
        checkpoints: their names; they are trained first if need be.
        make: writes the result, as `Store.get` has it.
        code: modules that compute it.
        settings: values it depends on.
        domains: names of the domains whose prompts it uses.
    """
    inputs = {
        "kind": "measurement",
        "what": what,
        "checkpoints": [lineage.checkpoint(name).key for name in checkpoints],
        "settings": dict(settings or {}),
        "domains": {name: domain_inputs(lineage.domains[name]) for name in domains},
        "versions": provenance.versions(("torch", "transformers", "tokenizers", "numpy", "scipy")),
        "code": provenance.code_fingerprint(*code),
    }

    def quietly(output: Path, work: Path) -> None:
        quiet()
        make(output, work)

    artifact = lineage.store.get(f"{what}-seed{lineage.seed}", inputs, quietly)
    lineage.refer(what, artifact)
    return artifact


def tables(lineage: Lineage, what: str, compute: Callable[[], Tables], **options: Any) -> dict[str, pd.DataFrame]:
    """A measurement whose result is tidy tables; `options` are those of `kept`."""

    def make(output: Path, work: Path) -> None:
        for name, table in compute().items():
            table.to_csv(output / f"{name}.csv", index=False)

    return read(kept(lineage, what, make=make, **options))


def read(artifact: Artifact) -> dict[str, pd.DataFrame]:
    """The tables of a measurement by name."""
    return {path.stem: pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in artifact.path.glob("*.csv")}


def stacked(
    lineages: Sequence[Lineage], study: Callable[[Lineage], Mapping[str, pd.DataFrame]]
) -> dict[str, pd.DataFrame]:
    """The tables of a study of every seed, with `seed`."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for lineage in lineages:
        for name, table in study(lineage).items():
            parts.setdefault(name, []).append(table.assign(seed=lineage.seed))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
