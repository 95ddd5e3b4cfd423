"""Chapter 2: how sparse and small the edits of reinforcement learning are (C1), and how little they overlap (C2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from crossdomain import edits, evaluation, measurements, overlap, weights
from crossdomain.lineage import BASE, Lineage
from crossdomain.staging import expert_names, refresh_names, title

TOP_SHARE = 0.1  # of the neurons count as top-changed (C2)


def steps(lineage: Lineage) -> dict[str, tuple[str, str]]:
    """The steps whose edits are measured: what each is called, and the checkpoints before and after it."""
    experts = {f"{title(lineage, name)} expert": (BASE, name) for name in expert_names(lineage)}
    sequence = lineage.sequence
    stages = {
        f"{title(lineage, stage)} stage": (before, after)
        for stage, before, after in zip(lineage.profile.stages[1:], sequence[1:], sequence[2:], strict=False)
    }
    refreshes = refresh_names(lineage)[:1]
    return experts | stages | ({"refresh": (sequence[-1], refreshes[0])} if refreshes else {})


def step_edits(lineage: Lineage, before: str, after: str) -> dict[str, pd.DataFrame]:
    """The tables of `edits.analyse` for two checkpoints of a lineage, computed once."""

    def compute() -> dict[str, pd.DataFrame]:
        found = edits.analyse(*(weights.Weights(lineage.checkpoint(name).path) for name in (before, after)))
        return {"tensors": found.tensors, "shares": found.shares, "neurons": found.neurons}

    return measurements.tables(
        lineage, f"edits-{before}-to-{after}", compute, checkpoints=[before, after], code=[edits, weights]
    )


def all_edits(lineages: Sequence[Lineage]) -> dict[str, pd.DataFrame]:
    """The tables of all steps of all seeds, with `seed`, `role` and the trained `domain`."""
    return measurements.stacked(lineages, _lineage_edits)


def _lineage_edits(lineage: Lineage) -> dict[str, pd.DataFrame]:
    parts: dict[str, list[pd.DataFrame]] = {}
    for role, (before, after) in steps(lineage).items():
        for name, table in step_edits(lineage, before, after).items():
            parts.setdefault(name, []).append(table.assign(role=role, domain=lineage.stage(after).domain))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def unchanged(shares: pd.DataFrame) -> pd.DataFrame:
    """Share of all weights unchanged, a row a role, domain, seed, subtraction, kind and threshold: `share` in percent."""
    keys = ["role", "domain", "seed"]
    parts = {values: edits.summarise(part) for values, part in shares.groupby(keys, sort=False)}
    table = pd.concat(parts, names=keys).reset_index(level=keys).reset_index(drop=True)
    return table.assign(share=100 * table["share"]).drop(columns=["unchanged"])


def relative_norms(tensors: pd.DataFrame) -> pd.DataFrame:
    """Norm of the whole edit over that of the weights, a row a role, domain and seed: `relative_norm` in percent."""
    keys = ["role", "domain", "seed"]
    groups = tensors.groupby(keys, sort=False)
    return pd.DataFrame([(*values, relative_norm(part)) for values, part in groups], columns=[*keys, "relative_norm"])


def relative_norm(tensors: pd.DataFrame) -> float:
    """Norm of one edit over that of the weights, in percent."""
    return float(100 * np.sqrt((tensors["norm_delta"] ** 2).sum() / (tensors["norm_before"] ** 2).sum()))


def neuron_overlaps(neurons: pd.DataFrame, roles: Sequence[str]) -> pd.DataFrame:
    """Jaccard of the top-changed neurons of all pairs of steps of a seed, globally and within layers.

    Returns:
        A row a seed, scope (global or within layers) and pair: as `overlap.pairwise`, `a` and `b` the roles.
    """
    rows = []
    for seed, part in neurons.groupby("seed"):
        wide = part.pivot(index=["layer", "index"], columns="role", values="magnitude")[list(roles)]
        layers = wide.index.get_level_values("layer").to_numpy()
        for scope, within in (("global", None), ("within layers", layers)):
            tops = {role: overlap.top(wide[role].to_numpy(), TOP_SHARE, within=within) for role in roles}
            rows.append(overlap.pairwise(tops, layers).assign(seed=seed, scope=scope))
    return pd.concat(rows, ignore_index=True)


def neuron_stability(lineages: Sequence[Lineage], neurons: pd.DataFrame, roles: Sequence[str]) -> pd.DataFrame:
    """Jaccard of the same step's top-changed neurons under two RL seeds that share a base: the ceiling of C2.

    Returns:
        A row a role, scope and pair of such seeds: `jaccard`; empty where no two seeds share a base.
    """
    base_of = {lineage.seed: lineage.checkpoint(BASE).key for lineage in lineages}
    rows = []
    for (one, other), role in ((pair, role) for pair in combinations(base_of, 2) for role in roles):
        if base_of[one] != base_of[other]:
            continue
        part = neurons[neurons["role"] == role]
        wide = part.pivot(index=["layer", "index"], columns="seed", values="magnitude")
        layers = wide.index.get_level_values("layer").to_numpy()
        for scope, within in (("global", None), ("within layers", layers)):
            first, second = (overlap.top(wide[s].to_numpy(), TOP_SHARE, within=within) for s in (one, other))
            rows.append(
                {"role": role, "scope": scope, "seeds": f"{one} {other}", "jaccard": overlap.jaccard(first, second)}
            )
    return pd.DataFrame(rows, columns=["role", "scope", "seeds", "jaccard"])


def precision(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """The same stage at several learning rates: float32 weights, the same stored as bfloat16, bfloat16 weights.

    Returns:
        A row a seed, `learning_rate` and `variant` (float32; float32, stored as bfloat16; bfloat16): `unchanged`, the share
        of weights that C1's pair of conditions calls unchanged, `equal`, the share exactly equal, `relative_norm` (all in
        percent) and the `gain` of the trained domain at temperature 1 on its test prompts, in points.
    """
    return pd.concat([_precision(lineage).assign(seed=lineage.seed) for lineage in lineages], ignore_index=True)


def _precision(lineage: Lineage) -> pd.DataFrame:
    profile = lineage.profile
    domain = profile.refresh
    name = f"{domain}_{profile.precision_steps}"
    start = 100 * evaluation.test_scores(lineage, BASE, [domain]).mean()
    rows = []
    for rate in profile.precision_rates:
        exact, rounded = (
            lineage.variant({f"learning_rate.{domain}": rate, "weights": dtype}) for dtype in ("float32", "bfloat16")
        )
        for variant, trained, dtype in (
            ("float32", exact, torch.float32),
            ("float32, stored as bfloat16", exact, torch.bfloat16),
            ("bfloat16", rounded, torch.bfloat16),
        ):
            gain = 100 * evaluation.test_scores(trained, name, [domain]).mean() - start
            found = stored_edits(trained, BASE, name, dtype)
            shares = edits.summarise(found["shares"]).query("subtraction == 'float32'")
            rows.append(
                {
                    "learning_rate": rate,
                    "variant": variant,
                    "unchanged": 100 * float(shares.query("kind == 'paper'")["share"].iloc[0]),
                    "equal": 100 * float(shares.query("kind == 'absolute' and threshold == 0")["share"].iloc[0]),
                    "relative_norm": relative_norm(found["tensors"]),
                    "gain": float(gain),
                }
            )
    return pd.DataFrame(rows)


def stored_edits(lineage: Lineage, before: str, after: str, dtype: torch.dtype) -> dict[str, pd.DataFrame]:
    """The tables of `edits.analyse` for two checkpoints as they would be if both were stored in a precision."""
    stored = str(dtype).removeprefix("torch.")

    def make(output: Path, work: Path) -> None:
        files = []
        for role, name in (("before", before), ("after", after)):
            model = lineage.checkpoint(name).model()
            files.append(work / f"{role}.safetensors")
            save_file({n: p.detach().to(dtype).contiguous() for n, p in model.named_parameters()}, files[-1])
        found = edits.analyse(*map(weights.Weights, files))
        found.tensors.to_csv(output / "tensors.csv", index=False)
        found.shares.to_csv(output / "shares.csv", index=False)

    artifact = measurements.kept(
        lineage,
        f"edits-{before}-to-{after}-as-{stored}",
        make=make,
        checkpoints=[before, after],
        settings={"stored": stored},
        code=[edits, weights],
    )
    return measurements.read(artifact)


# --- What figures show ---


def overlap_panels(overlaps: pd.DataFrame, stability: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Overlaps and stability as `plots.sparsity.overlap_heatmaps` takes them: a panel a scope."""
    pairs = overlaps.rename(columns={"scope": "panel"})
    own = stability.rename(columns={"scope": "panel", "role": "label"})
    return pairs.assign(chance_text=pairs["chance"].map("{:.2f}".format)), own


def layer_profile(neurons: pd.DataFrame) -> pd.DataFrame:
    """Share of each layer's neurons that are among a domain's top-changed: `domain`, `seed`, `layer`, `share` (%)."""
    rows = []
    for _, part in neurons.groupby(["domain", "seed"], sort=False):
        chosen = part.assign(share=100.0 * overlap.top(part["magnitude"].to_numpy(), TOP_SHARE))
        rows.append(chosen.groupby(["domain", "seed", "layer"], sort=False)["share"].mean().reset_index())
    return pd.concat(rows, ignore_index=True)
