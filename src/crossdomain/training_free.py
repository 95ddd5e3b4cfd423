"""Policies made without training: experts merged into one (`merging`), and the sequence with later updates taken back.

Each has one number to choose: the scale λ of a merge, the size of a rollback. It is chosen on development prompts of all
domains, by the mean score at temperature 1; test prompts only report.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from crossdomain import (
    curvature,
    evaluation,
    merging,
    objectives,
    provenance,
    rollback,
    rollback_sets,
    rollouts,
    second_order,
)
from crossdomain.damage import moved
from crossdomain.lineage import BASE, Checkpoint, Lineage
from crossdomain.objectives import Parameters
from crossdomain.second_order import fisher_of, main_case, point, update
from crossdomain.staging import expert_names
from crossdomain.training import quiet

ARITHMETIC, TIES, DARE = "arithmetic", "ties", "dare"
MERGES = (ARITHMETIC, TIES, DARE)
ROLLBACK, RANDOM = "rollback", "random"


def merged(lineage: Lineage, method: str, scale: float) -> Checkpoint:
    """The base plus the merged updates of all experts, times a scale; made once.

    Args:
        lineage: the run, which then knows the checkpoint by its name, as in `merged+ties_0.5`.
        method: one of `MERGES`.
        scale: λ.
    """
    experts, density = expert_names(lineage), lineage.profile.merge_density

    def params() -> Parameters:
        updates = [update(lineage, BASE, name) for name in experts]
        combined = {
            ARITHMETIC: lambda: merging.task_arithmetic(updates),
            TIES: lambda: merging.ties(updates, density),
            DARE: lambda: merging.dare(updates, density, lineage.seed),
        }[method]()
        return moved(objectives.parameters(lineage.checkpoint(BASE).model()), scale * combined)

    settings = {"method": method, "scale": scale, "density": density, "seed": lineage.seed}
    return _kept(lineage, f"merged+{method}_{scale:g}", [BASE, *experts], params, settings, [merging])


def rolled_back(lineage: Lineage, percent: float, *, random: bool = False) -> Checkpoint:
    """The sequence with the later updates taken back on the coordinates that chapter 6's Fisher score puts first.

    Args:
        lineage: the run, which then knows the checkpoint by its name, as in `code-math-qa-cw+rollback_10`.
        percent: of the parameters that are taken back.
        random: take as many random coordinates instead (control).
    """
    case = main_case(lineage)

    def params() -> Parameters:
        delta = update(lineage, case.before, case.after)
        order = rollback.random_ranking(len(delta), lineage.seed) if random else _by_fisher(lineage)
        chosen = rollback_sets.first(order, percent, len(delta))
        before = objectives.parameters(lineage.checkpoint(case.before).model())
        return moved(before, rollback.rolled_back(delta, chosen, 1.0))

    settings = {
        "percent": percent,
        "random": random,
        "seed": lineage.seed,
        **lineage.profile.subset("generations", "evaluation_batch", "curvature_prompts"),
    }
    code = [rollback, rollback_sets, second_order, curvature, rollouts]
    label = f"{RANDOM if random else ROLLBACK}_{percent:g}"
    return _kept(lineage, f"{case.after}+{label}", [case.after, case.before], params, settings, code)


@lru_cache(maxsize=1)  # the same for every size
def _by_fisher(lineage: Lineage) -> Tensor:
    """Coordinates by ½F_ii δ_i² of the refreshed domain, the highest first."""
    case = main_case(lineage)
    fisher = fisher_of(lineage, case.before, point(lineage, case.before), case.domain)
    return rollback.ranking(rollback.fisher_scores(fisher, update(lineage, case.before, case.after)))


def candidates(lineage: Lineage, method: str) -> dict[float, str]:
    """Names of the policies that a method can make, by the number that is to be chosen; all of them are made."""
    if method == ROLLBACK:
        return {percent: rolled_back(lineage, percent).name for percent in lineage.profile.rollback_points}
    return {scale: merged(lineage, method, scale).name for scale in lineage.profile.merge_scales}


def choices(lineage: Lineage, method: str) -> pd.DataFrame:
    """What a method's number is worth on development prompts.

    Returns:
        A row a `value`: `method`, `checkpoint`, mean `score` of all domains in points, and whether it was `chosen`.
    """
    rows = []
    for value, name in candidates(lineage, method).items():
        scores = [evaluation.dev_score(lineage, name, domain) for domain in expert_names(lineage)]
        rows.append({"method": method, "value": value, "checkpoint": name, "score": 100 * sum(scores) / len(scores)})
    table = pd.DataFrame(rows)
    return table.assign(chosen=table.index == table["score"].idxmax())


def best(lineage: Lineage, method: str) -> str:
    """The name of a method's chosen policy."""
    return str(choices(lineage, method).set_index("chosen").loc[True, "checkpoint"])


def random_control(lineage: Lineage) -> str:
    """The name of the policy with as many random coordinates taken back as the chosen rollback has."""
    percent = float(choices(lineage, ROLLBACK).set_index("chosen")["value"][True])
    return rolled_back(lineage, percent, random=True).name


def _kept(
    lineage: Lineage,
    name: str,
    parents: Sequence[str],
    params: Callable[[], Parameters],
    settings: Mapping[str, Any],
    code: Sequence[ModuleType],
) -> Checkpoint:
    """A policy made of other checkpoints, in the store: read, or made by `params`."""
    first = lineage.checkpoint(parents[0])
    inputs = {
        "kind": "policy",
        "parents": [lineage.checkpoint(parent).key for parent in parents],
        "settings": dict(settings),
        "versions": provenance.versions(("torch", "transformers", "tokenizers", "numpy")),
        "code": provenance.code_fingerprint(sys.modules[__name__], objectives, *code),
    }

    def make(output: Path, work: Path) -> None:
        quiet()
        model, values = first.model(), params()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                parameter.copy_(values[parameter_name])
        model.save_pretrained(output)
        first.tokenizer().save_pretrained(output)

    return lineage.adopt(Checkpoint(name, lineage.store.get(f"{name}-seed{lineage.seed}", inputs, make)))
