"""The checkpoints of chapter 1: the sequence, the experts, the refreshes and their controls, and training them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from crossdomain import evaluation
from crossdomain.lineage import BASE, Lineage

UNDAMAGED = "control: refresh without damage"
PARTS = ("base", "experts", "sequence", "refreshes", "all")
ADAM_RESTART = "control: Adam restart in first learning"
CLOSE = 0.05  # of a score from 0 to 1: nearer than this, a point of first learning is as good as the damaged policy


class Plan(NamedTuple):
    """The checkpoints of the chapter: what each is called, and its name in each lineage."""

    sequence: dict[str, list[str]]
    experts: dict[str, list[str]]
    refreshes: dict[str, list[str]]
    controls: dict[str, list[str]]

    def all(self) -> dict[str, list[str]]:
        """All of them, in that order."""
        return {**self.sequence, **self.experts, **self.refreshes, **self.controls}


def title(lineage: Lineage, domain: str) -> str:
    """What a domain of the run is called in figures."""
    return lineage.domains[domain].title


def expert_names(lineage: Lineage) -> list[str]:
    """The experts: the base after one domain alone."""
    return list(dict.fromkeys(lineage.profile.stages))


def refresh_names(lineage: Lineage) -> list[str]:
    """Refreshes of the whole sequence, the profile's domain first, the others as its controls."""
    profile = lineage.profile
    if not profile.interferes:
        return []
    domains = [profile.refresh, *(d for d in dict.fromkeys(profile.stages) if d != profile.refresh)]
    return [f"{lineage.sequence[-1]}-re{domain}" for domain in domains]


def learned(lineage: Lineage) -> str:
    """The checkpoint after the refreshed domain's own stage, before any damage to it."""
    stages = lineage.profile.stages
    return "-".join(stages[: stages.index(lineage.profile.refresh) + 1])


def control_names(lineage: Lineage) -> list[str]:
    """The two controls of the refresh: undamaged, and an Adam restart at the damaged score during first learning."""
    domain = lineage.profile.refresh
    return (
        [f"{learned(lineage)}-re{domain}", f"{matched_snapshot(lineage)}-re{domain}"]
        if lineage.profile.interferes
        else []
    )


def matched_snapshot(lineage: Lineage) -> str:
    """The point of the domain's first learning whose development score is nearest to the damaged policy's.

    A refresh from there takes as many steps with as fresh an Adam from the same score, but nothing was lost before: what
    it gains less than the refresh cannot be due to the optimizer. Where first learning is so fast that no snapshot comes
    within `CLOSE`, shorter stages, whose steps are the same, are trained to halve the gap around that score.
    """
    domain, stage = lineage.profile.refresh, lineage.stage(learned(lineage))
    damaged = evaluation.dev_score(lineage, lineage.sequence[-1], domain)
    points = {0: stage.parent, **{step: f"{stage.name}@{step}" for step in lineage.checkpoint(stage.name).snapshots()}}
    gaps = {step: evaluation.dev_score(lineage, point, domain) - damaged for step, point in points.items()}
    while min(map(abs, gaps.values())) > CLOSE and (between := _crossed(gaps)):
        points[between] = f"{stage.name}_{between}"
        gaps[between] = evaluation.dev_score(lineage, points[between], domain) - damaged
    return points[min(gaps, key=lambda step: abs(gaps[step]))]


def _crossed(gaps: Mapping[int, float]) -> int | None:
    """The step in the middle of the first two between which the gap changes its sign; None if they are neighbours."""
    for (before, below), (after, above) in pairwise(sorted(gaps.items())):
        if below * above < 0:
            return (before + after) // 2 if after - before > 1 else None
    return None


def train(lineage: Lineage, part: str = "all") -> None:
    """Train and evaluate what the chapter needs of one seed.

    Args:
        lineage: the profile and seed.
        part: `base`; `experts` and `sequence`, which can be made side by side once the base is there; `refreshes` (of
            the whole sequence, and their controls); `all` for everything.
    """
    lineage.checkpoint(BASE)
    if part in ("experts", "all"):
        for name in expert_names(lineage):
            if name not in lineage.sequence:  # the first stage is an expert, too, and belongs to the sequence
                evaluation.scores(lineage, name)
    if part in ("sequence", "all"):
        for name in lineage.sequence:
            evaluation.scores(lineage, name)
        for name in lineage.sequence[1:]:
            evaluation.curve(lineage, name)
    if part in ("refreshes", "all"):
        for name in [*refresh_names(lineage), *control_names(lineage)]:
            evaluation.scores(lineage, name)
        for name in refresh_names(lineage):
            evaluation.curve(lineage, name)


def plan(lineages: Sequence[Lineage]) -> Plan:
    """The chapter's checkpoints; training what decides their names (the matched snapshot)."""
    first = lineages[0]
    stages = first.profile.stages
    after = ["base", *(f"after {title(first, stage)}" for stage in stages)]
    refreshes = [f"refresh {title(first, name.rpartition('-re')[2])}" for name in refresh_names(first)]
    if refreshes:
        refreshes = [refreshes[0], *(f"control: {name}" for name in refreshes[1:])]
    controls = [UNDAMAGED, ADAM_RESTART] if first.profile.interferes else []
    experts = [name for name in expert_names(first) if name not in first.sequence]
    return Plan(
        sequence={role: [lineage.sequence[i] for lineage in lineages] for i, role in enumerate(after)},
        experts={f"{title(first, name)} expert": [name] * len(lineages) for name in experts},
        refreshes={role: [refresh_names(lineage)[i] for lineage in lineages] for i, role in enumerate(refreshes)},
        controls={
            role: list(names)
            for role, names in zip(controls, zip(*map(control_names, lineages), strict=True), strict=True)
        },
    )


def steps_of(chosen: Plan) -> dict[str, tuple[list[str], list[str]]]:
    """The steps whose changes the chapter shows: each stage of the sequence, then each refresh and control."""
    sequence = list(chosen.sequence.items())
    found = {role.removeprefix("after "): (before, after) for (_, before), (role, after) in pairwise(sequence)}
    damaged = sequence[-1][1]
    found |= {role: (damaged, names) for role, names in chosen.refreshes.items()}
    parents = {role: [name.rpartition("-")[0] for name in names] for role, names in chosen.controls.items()}
    return found | {role: (parents[role], names) for role, names in chosen.controls.items()}
