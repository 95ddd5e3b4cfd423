"""Chapter 8: what else one could do against interference, at equal RL steps: scores of every method, and what each costs.

Every method is given the steps of the whole sequence and, in its longer version, those of a refresh besides. Methods that
change the later stages start from the checkpoint after the refreshed domain's own stage, as the sequence does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pandas as pd

from crossdomain import continual, evaluation, mixture, training_free
from crossdomain.lineage import BASE, Checkpoint, Lineage
from crossdomain.profiles import Profile
from crossdomain.staging import expert_names

SEQUENCE, MIXED, KL, EWC, GEM, MORE = "sequence", "mixed", "kl", "ewc", "gem", "more"


def refreshed(lineage: Lineage, name: str) -> str:
    """The name of a checkpoint's refresh."""
    return f"{name}-re{lineage.profile.refresh}"


@dataclass(frozen=True)
class Method:
    """A way to train a run's domains.

    Attributes:
        title: what figures call it.
        make: trains a policy with as many steps as the sequence has, and names it.
        prompts: what it needs of the other domains' prompts.
        rewards: whose responses it must be able to judge.
        checkpoints: the policies it needs, beside the one it goes on from.
        extend: goes on from there for as many steps as a refresh has, and names the result.
    """

    title: str
    make: Callable[[Lineage], str]
    prompts: str = "–"
    rewards: str = "–"
    checkpoints: str = "–"
    extend: Callable[[Lineage, str], str] = refreshed


def methods(profile: Profile) -> dict[str, Method]:
    """The methods of the chapter by key, in the order they are shown."""
    merges = {
        training_free.ARITHMETIC: "merged: task arithmetic",
        training_free.TIES: "merged: TIES",
        training_free.DARE: "merged: DARE",
    }
    return {
        SEQUENCE: Method("the sequence", lambda lineage: lineage.sequence[-1]),
        MORE: Method(
            "control: more of the last domain",
            lambda lineage: lineage.sequence[-1],
            extend=lambda lineage, name: f"{name}-re{lineage.profile.stages[-1]}",
        ),
        MIXED: Method(
            "mixed from the base",
            lambda lineage: mixed(lineage)[0],
            "all domains, at every step",
            "all domains, at every step",
            extend=lambda lineage, _: mixed(lineage)[1],
        ),
        **{
            f"replay {share:g}": Method(
                f"replay of {100 * share:g} %",
                partial(continual.replay, share=share),
                "earlier domains, at every later step",
                "earlier domains, at every later step",
            )
            for share in profile.replay_shares
        },
        KL: Method("KL to the stage's start", continual.divergence, checkpoints="the stage's start"),
        EWC: Method("EWC", continual.elastic, "earlier domains, once", checkpoints="after each earlier domain"),
        GEM: Method(
            "projected gradients (GEM)",
            continual.projection,
            "a few of earlier domains, at every later step",
            "earlier domains, once",
        ),
        **{
            key: Method(
                title,
                partial(training_free.best, method=key),
                "all domains, to choose the scale",
                "all domains, to choose the scale",
                "the base and all experts",
            )
            for key, title in merges.items()
        },
        training_free.ROLLBACK: Method(
            "rollback",
            partial(training_free.best, method=training_free.ROLLBACK),
            "the refreshed domain, once; all, to choose the size",
            "all domains, to choose the size",
            "before the later stages",
        ),
        training_free.RANDOM: Method(
            "control: random rollback", training_free.random_control, checkpoints="before the later stages"
        ),
    }


def policies(lineage: Lineage) -> dict[tuple[str, bool], str]:
    """Names of all methods' checkpoints, by method and whether it is the longer version; all of them are made.

    The longer version has a refresh's steps besides: a refresh of the profile's domain; for mixed training, more of the
    mixture; for the control, more of the last stage's domain.
    """
    found = {}
    for key, method in methods(lineage.profile).items():
        found[key, False] = method.make(lineage)
        found[key, True] = method.extend(lineage, found[key, False])
    return found


def mixed(lineage: Lineage) -> tuple[str, str]:
    """Names of the policies trained on all domains at once from the base: for the sequence's steps, and a refresh's more.

    Domains have the shares that their stages have of the sequence, so that each sees as many prompts as there.
    """
    profile = lineage.profile
    total = sum(profile.steps[stage] for stage in profile.stages)
    shares = {d: profile.stages.count(d) * profile.steps[d] / total for d in expert_names(lineage)}
    longer = mixture.train_mixture(
        lineage,
        MIXED,
        mixture.Shares(tuple(shares.items())),
        parent=BASE,
        steps=total + profile.refresh_steps,
        snapshot_every=total,
    )
    weights = longer.artifact.path / "snapshots" / f"{total:05d}.safetensors"
    return lineage.adopt(Checkpoint(f"{longer.name}+{total}", longer.artifact, weights)).name, longer.name


def study(lineage: Lineage) -> dict[str, pd.DataFrame]:
    """All methods of one seed.

    Returns:
        `scores`: a row a method, version and domain: `method`, `longer`, `checkpoint`, `domain`, `score` at temperature 1
        on the test prompts, in points.
        `costs`: a row a method and version: RL `steps` and `seconds` from the base on, all that its policy descends from.
        `choices`: what was chosen on development prompts (`training_free.choices`).
    """
    scores, costs = [], []
    for (method, longer), name in policies(lineage).items():
        key = {"method": method, "longer": longer}
        found = evaluation.test_scores(lineage, name, expert_names(lineage)).groupby(level="domain", sort=False).mean()
        scores += [{**key, "checkpoint": name, "domain": d, "score": 100 * value} for d, value in found.items()]
        costs.append({**key, **cost(lineage, name)._asdict()})
    chosen = [training_free.choices(lineage, m) for m in (*training_free.MERGES, training_free.ROLLBACK)]
    return {
        "scores": pd.DataFrame(scores),
        "costs": pd.DataFrame(costs),
        "choices": pd.concat(chosen, ignore_index=True),
    }


class Cost(NamedTuple):
    """RL steps, and the seconds they took on one core."""

    steps: int
    seconds: float


def cost(lineage: Lineage, name: str) -> Cost:
    """What RL a checkpoint took, with all that it descends from, each stage once; the base is not counted.

    Seconds include what a method computes before a stage (Fisher matrices).
    """
    open_, steps, seconds = [lineage.checkpoint(name).key], {}, {}
    while open_:
        key, _, snapshot = open_.pop().partition("@")
        artifact = lineage.store.find(key)
        if artifact is None:
            raise FileNotFoundError(f"{key} is no longer in the store {lineage.store.root}: run the chapter again")
        inputs = artifact.manifest["inputs"]
        open_ += [inputs["parent"]] if "parent" in inputs else inputs.get("parents", [])
        if inputs["kind"] == "stage":
            steps[key] = int(snapshot or inputs["steps"])
            seconds[key] = artifact.manifest["core_seconds"] * steps[key] / inputs["steps"]
    return Cost(sum(steps.values()), sum(seconds.values()))


def summary(scores: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Every method in one row a seed and version.

    Returns:
        `seed`, `method`, `longer`, the `average` and the `worst` score of all domains in points, and the costs.
    """
    keys = ["seed", "method", "longer"]
    by_method = scores.groupby(keys, sort=False)["score"].agg(average="mean", worst="min").reset_index()
    return by_method.merge(costs, on=keys, validate="one_to_one")


def against(table: pd.DataFrame, column: str, *, method: str = SEQUENCE, longer: bool = True) -> pd.DataFrame:
    """What every method has more than one of them, by seed; by default more than the sequence and its refresh.

    Returns:
        A row a seed, method and version: `difference`.
    """
    own = table[(table["method"] == method) & (table["longer"] == longer)].set_index("seed")[column]
    return table[["seed", "method", "longer"]].assign(difference=table[column] - table["seed"].map(own))
