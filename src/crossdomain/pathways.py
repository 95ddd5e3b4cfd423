"""Chapter 3: gradients of domains at one checkpoint (C3), the routes they share (C4), and directions on them (C5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from crossdomain import (
    conflict,
    directions,
    gradients,
    measurements,
    objectives,
    overlap,
    rollouts,
    route_sets,
    routes,
    units,
    weights,
)
from crossdomain.directions import Array, Grams
from crossdomain.lineage import BASE, Lineage
from crossdomain.route_sets import Sets, active_routes, active_sets
from crossdomain.staging import expert_names

GRADIENT_CODE = (gradients, objectives, rollouts, directions, units, weights)
GRADIENT_SETTINGS = ("prompt_template", "gradient_prompts", "gradient_splits", "generations", "evaluation_batch")
UPDATE_CODE = (directions, units, weights)
DRAWS = 500  # random routes of the control


# --- Gradients ---


class GradientGrams(NamedTuple):
    """Inner products of gradients: of the parts of all domains', by tensor; of their means, by tensor and unit."""

    parts: Grams
    means: Grams


def gradient_grams(lineage: Lineage, name: str) -> GradientGrams:
    """Inner products of all domains' GRPO gradients at a checkpoint."""

    def make(output: Path, work: Path) -> None:
        checkpoint = lineage.checkpoint(name)
        model = checkpoint.model(attn_implementation="eager")
        domains = {domain: lineage.domains[domain] for domain in expert_names(lineage)}
        files = gradients.save(model, checkpoint.tokenizer(), lineage.profile, domains, work, seed=lineage.seed)
        for kind, shape in (("parts", None), ("means", units.shape(model.config))):
            (output / kind).mkdir()
            vectors = {label: weights.Weights(file) for label, file in files[kind].items()}
            directions.grams(vectors, shape).save(output / kind)

    artifact = measurements.kept(
        lineage, f"gradients-{name}", make=make, **_gradient_inputs(lineage, name), code=GRADIENT_CODE
    )
    path = artifact.whole()
    return GradientGrams(*(Grams.load(path / kind) for kind in GradientGrams._fields))


def _gradient_inputs(lineage: Lineage, name: str) -> dict[str, Any]:
    return {
        "checkpoints": [name],
        "settings": {**lineage.profile.subset(*GRADIENT_SETTINGS), "seed": lineage.seed},
        "domains": expert_names(lineage),
    }


class GradientTables(NamedTuple):
    """Cosines of gradients: of pairs of domains, of every matrix, and the extremes against noise."""

    pairs: pd.DataFrame
    modules: pd.DataFrame
    extremes: pd.DataFrame


def gradient_tables(lineages: Sequence[Lineage], name: str = BASE) -> GradientTables:
    """The tables of `conflict` for a checkpoint of every seed, with `seed`."""

    def compared(lineage: Lineage) -> dict[str, pd.DataFrame]:
        def compute() -> measurements.Tables:
            grams = gradient_grams(lineage, name).parts
            return {
                "pairs": conflict.domain_cosines(grams),
                "modules": conflict.module_cosines(grams),
                "extremes": conflict.extremes(grams),
            }

        code = [*GRADIENT_CODE, conflict, __name__]
        return measurements.tables(
            lineage, f"gradient-cosines-{name}", compute, **_gradient_inputs(lineage, name), code=code
        )

    return GradientTables(**measurements.stacked(lineages, compared))


# --- Routes ---


def route_overlaps(lineages: Sequence[Lineage], checkpoints: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Overlap of all pairs of domains' routes, by score, kind of unit and share.

    Args:
        lineages: one a seed.
        checkpoints: what each is called, and its name in each lineage.

    Returns:
        A row a seed, checkpoint `at`, `score`, `kind`, `share` and pair: as `overlap.pairwise`.
    """
    rows = []
    for at, names in checkpoints.items():
        for lineage, name in zip(lineages, names, strict=True):
            for (score, kind, share), sets in active_sets(lineage, name).items():
                layers = next(iter(sets.values())).index.get_level_values("layer").to_numpy()
                found = overlap.pairwise({d: s.to_numpy() for d, s in sets.items()}, layers)
                rows.append(found.assign(seed=lineage.seed, at=at, score=score, kind=kind, share=share))
    return pd.concat(rows, ignore_index=True)


def route_stability(lineages: Sequence[Lineage], checkpoints: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """How well a domain's own route is known: overlap with itself across prompt halves, and across seeds of one base.

    Returns:
        A row a checkpoint `at`, `score`, `kind`, `share`, `domain` and comparison (`across`: prompt halves, or seeds, which
        share a base): `jaccard`, and `seed` (or the two).
    """
    rows = []
    keys = ["at", "score", "kind", "share", "domain", "across", "seed", "jaccard"]
    for at, names in checkpoints.items():
        whole: dict[int, Sets] = {}
        for lineage, name in zip(lineages, names, strict=True):
            whole[lineage.seed] = active_sets(lineage, name)
            halves = [active_sets(lineage, name, half) for half in ("0", "1")]
            for key, sets in halves[0].items():
                for domain, one in sets.items():
                    value = overlap.jaccard(one.to_numpy(), halves[1][key][domain].to_numpy())
                    rows.append((at, *key, domain, "prompt halves", str(lineage.seed), value))
        bases = {lineage.seed: lineage.checkpoint(BASE).key for lineage in lineages}
        for one_seed, other in combinations(bases, 2):
            if bases[one_seed] == bases[other] and names[0] != BASE:
                for key, sets in whole[one_seed].items():
                    for domain, mask in sets.items():
                        value = overlap.jaccard(mask.to_numpy(), whole[other][key][domain].to_numpy())
                        rows.append((at, *key, domain, "seeds", f"{one_seed} {other}", value))
    return pd.DataFrame(rows, columns=keys)


# --- Directions ---


class UpdateGrams(NamedTuple):
    """Inner products of updates, of their signs, and of where they are not zero."""

    values: Grams
    signs: Grams
    moved: Grams


def update_grams(lineage: Lineage, what: str, steps: Mapping[str, tuple[str, str]]) -> UpdateGrams:
    """Inner products of the updates of some steps (by label: the checkpoints before and after)."""
    transforms = {"values": lambda x: x, "signs": torch.sign, "moved": _moved}

    def make(output: Path, work: Path) -> None:
        shape = units.shape(lineage.checkpoint(BASE).config())
        deltas = {
            label: weights.Delta(*(weights.Weights(lineage.checkpoint(name).path) for name in step))
            for label, step in steps.items()
        }
        for name, transform in transforms.items():
            (output / name).mkdir()
            directions.grams(deltas, shape, transform).save(output / name)

    artifact = measurements.kept(
        lineage,
        f"updates-{what}",
        make=make,
        checkpoints=[name for step in steps.values() for name in step],
        settings={"labels": list(steps)},
        code=UPDATE_CODE,
    )
    path = artifact.whole()
    return UpdateGrams(*(Grams.load(path / name) for name in transforms))


def _moved(values: Tensor) -> Tensor:
    return values.sign().abs()


def expert_updates(lineage: Lineage) -> UpdateGrams:
    """Updates of the experts from the base."""
    return update_grams(lineage, "experts", {name: (BASE, name) for name in expert_names(lineage)})


def stage_updates(lineage: Lineage) -> UpdateGrams:
    """Updates of the stages of the sequence."""
    sequence = lineage.sequence
    stages = zip(lineage.profile.stages, sequence, sequence[1:], strict=False)
    return update_grams(lineage, "stages", {stage: (before, after) for stage, before, after in stages})


def update_directions(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """Cosines and sign agreement of updates of all pairs of domains, everywhere, on the shared route and off it.

    The shared route of two experts is that of the base; of two stages, that of the policy after the earlier one.

    Returns:
        A row a seed, `of` (experts or stages) and pair `a`, `b`: cosines `everywhere`, `on_route`, `off_route`; `random`,
        the mean over random routes with as many units in every layer, `random_low` and `random_high`, their 95 % band;
        `agree`, `agree_on`, `agree_off`, the share of the coordinates where both move that agree in sign.
    """
    return measurements.stacked(lineages, _directions)["directions"]


def module_directions(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """Cosine of the experts' updates in every matrix: as `directions.matrix_cosines`, with `seed`."""
    return measurements.stacked(lineages, _directions)["modules"]


def _directions(lineage: Lineage) -> dict[str, pd.DataFrame]:
    def compute() -> measurements.Tables:
        in_base = active_routes(lineage, BASE)
        after = zip(lineage.profile.stages, lineage.sequence[1:], strict=False)
        known = {
            "experts": dict.fromkeys(expert_names(lineage), in_base),
            "stages": {stage: active_routes(lineage, name) for stage, name in after},
        }
        rows = []
        for of, found in (("experts", expert_updates(lineage)), ("stages", stage_updates(lineage))):
            for a, b in combinations(found.values.labels, 2):
                active = known[of][a]
                row = _on_and_off(found, a, b, routes.shared(active[a], active[b]))
                rows.append({"of": of, "a": a, "b": b, **row})
        modules = directions.matrix_cosines(expert_updates(lineage).values)
        return {"directions": pd.DataFrame(rows), "modules": modules}

    return measurements.tables(
        lineage,
        "update-directions",
        compute,
        checkpoints=[*lineage.sequence, *expert_names(lineage)],
        settings={**lineage.profile.subset(*route_sets.SETTINGS), "seed": lineage.seed},
        domains=expert_names(lineage),
        code=[*UPDATE_CODE, *route_sets.CODE, route_sets, __name__],
    )


def _on_and_off(found: UpdateGrams, a: str, b: str, route: pd.Series[bool]) -> dict[str, float]:
    at = found.values.labels.index(a), found.values.labels.index(b)
    on, off = directions.on_route(found.values, route)
    random = directions.cosines(directions.random_routes(found.values, route, DRAWS))[:, *at]
    signs, moved = (directions.on_route(grams, route) for grams in (found.signs, found.moved))
    return {
        "everywhere": pick(directions.cosines(found.values.total()), at),
        "on_route": pick(directions.cosines(on), at),
        "off_route": pick(directions.cosines(off), at),
        "random": float(random.mean()),
        "random_low": float(np.percentile(random, 2.5)),
        "random_high": float(np.percentile(random, 97.5)),
        "agree": pick(directions.agreement(found.signs.total(), found.moved.total()), at),
        "agree_on": pick(directions.agreement(signs[0], moved[0]), at),
        "agree_off": pick(directions.agreement(signs[1], moved[1]), at),
    }


def pick(matrix: Array, at: tuple[int, int]) -> float:
    """An entry as a plain number."""
    return float(matrix[at])


# --- What figures show ---


def overlap_panels(overlaps: pd.DataFrame, stability: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Overlaps and stability of neurons as `plots.sparsity.overlap_heatmaps` takes them: a panel a checkpoint."""
    pairs = overlaps[overlaps["kind"] == routes.NEURON].rename(columns={"at": "panel"})
    own = stability[(stability["kind"] == routes.NEURON) & (stability["across"] == "prompt halves")]
    own = own.rename(columns={"at": "panel", "domain": "label"})
    return pairs.assign(chance_text=pairs["chance"].map("{:.2f}".format)), own
