"""The later stages of a sequence, trained by methods of continual learning: replay, a KL penalty, EWC, projected gradients.

The stages after the refreshed domain's own start from the same checkpoint as in the sequence, with the same prompts, steps
and learning rates; only what a method changes is changed. A method sees the domains before a stage, each at the checkpoint
where its own stage ended *on the method's path*.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback

from crossdomain import (
    curvature,
    generation,
    launch,
    mixture,
    objectives,
    provenance,
    regularised,
    rollouts,
    second_order,
)
from crossdomain.lineage import RL_SETTINGS, Checkpoint, Lineage, domain_inputs, training_environment
from crossdomain.regularised import Anchor, GradientCallback
from crossdomain.second_order import fisher_of, loss_of, point
from crossdomain.staging import learned

Earlier = Mapping[str, str]  # domains before a stage, and the checkpoint each was last trained at
MEMORY_SETTINGS = ("generations", "evaluation_batch", "curvature_prompts")


def along(lineage: Lineage, train: Callable[[str, str, Earlier], Checkpoint]) -> str:
    """Train the stages after the refreshed domain's own one after another, and name the last checkpoint.

    Args:
        lineage: the run.
        train: called with the checkpoint to start from, the domain and the earlier ones.
    """
    stages, name = lineage.profile.stages, learned(lineage)
    own = stages.index(lineage.profile.refresh) + 1
    ended = dict(zip(stages[:own], lineage.sequence[1:], strict=False))
    for domain in stages[own:]:
        name = train(name, domain, {d: at for d, at in ended.items() if d != domain}).name
        ended[domain] = name
    return name


def replay(lineage: Lineage, share: float) -> str:
    """Later stages in which a share of every step's prompts is of earlier domains, in equal parts.

    GRPO's loss is divided by the tokens of a whole step, so that a domain weighs as much as it has tokens; rate and steps
    are those of the stage.
    """
    profile = lineage.profile

    def train(parent: str, domain: str, earlier: Earlier) -> Checkpoint:
        shares = {domain: 1 - share, **dict.fromkeys(earlier, share / len(earlier))}
        return mixture.train_mixture(
            lineage,
            f"{domain}_replay{100 * share:g}",
            mixture.Shares(tuple(shares.items())),
            parent=parent,
            steps=profile.steps[domain],
            learning_rate=profile.learning_rate[domain],
            snapshot_every=profile.steps[domain],
        )

    return along(lineage, train)


def divergence(lineage: Lineage) -> str:
    """Later stages with GRPO's own penalty, `stage_kl_beta` times the KL divergence from the policy at its start.

    TRL's reference is the policy saved in the directory that the trained one was loaded from: the stage's parent.
    """
    beta = lineage.profile.stage_kl_beta
    return along(lineage, lambda parent, domain, _: _trained(lineage, parent, domain, "kl", kl_beta=beta))


def elastic(lineage: Lineage) -> str:
    """Later stages with EWC's penalty for every earlier domain (`regularised.elastic_penalty`).

    Fisher matrices are those of the policy after each earlier domain, on its own answers to that domain's training
    prompts: no reward is used. The strength λ is `elastic_strength`.
    """
    strength = lineage.profile.elastic_strength

    def train(parent: str, domain: str, earlier: Earlier) -> Checkpoint:
        def change() -> regularised.Change:
            return regularised.elastic_penalty([_anchor(lineage, d, at) for d, at in earlier.items()], strength)

        return _trained(lineage, parent, domain, "ewc", Regulariser(earlier, change, strength))

    return along(lineage, train)


def projection(lineage: Lineage) -> str:
    """Later stages whose gradient may not raise an earlier domain's loss, to first order (`regularised.projection`).

    What is kept of an earlier domain are `curvature_prompts` of its training prompts: with the right answer where there is
    one, else with rollouts of the policy after it and their rewards, reweighted (theory, objective 2).
    """

    def train(parent: str, domain: str, earlier: Earlier) -> Checkpoint:
        def change() -> regularised.Change:
            return regularised.projection(
                [loss_of(lineage, at, point(lineage, at), d, "train") for d, at in earlier.items()]
            )

        return _trained(lineage, parent, domain, "projection", Regulariser(earlier, change))

    return along(lineage, train)


def _anchor(lineage: Lineage, domain: str, name: str) -> Anchor:
    at = point(lineage, name)
    return Anchor(fisher_of(lineage, name, at, domain), at.space.flatten(at.params))


class Regulariser(NamedTuple):
    """A change of a stage's gradients: which earlier domains it is made from, how, and how strong it is."""

    earlier: Earlier
    change: Callable[[], regularised.Change]
    strength: float = 1.0

    def inputs(self, lineage: Lineage) -> dict[str, Any]:
        """What of it determines the trained weights, beside the method's name."""
        modules = (sys.modules[__name__], regularised, curvature, objectives, rollouts, generation)
        return {
            "earlier": {
                d: [lineage.checkpoint(at).key, domain_inputs(lineage.domains[d])] for d, at in self.earlier.items()
            },
            "strength": self.strength,
            "memory": lineage.profile.subset(*MEMORY_SETTINGS),
            "regulariser": provenance.code_fingerprint(*modules, second_order),
            "libraries": provenance.versions(("scipy", "torchjd")),
        }


def _trained(
    lineage: Lineage, parent: str, domain: str, label: str, regulariser: Regulariser | None = None, **settings: Any
) -> Checkpoint:
    """One stage as the sequence has it, but with a regulariser or other settings of the profile; made once.

    Args:
        lineage: the run, which then knows the checkpoint by its name, as in `code-math+qa_ewc`.
        parent: the checkpoint it starts from.
        domain: what is trained.
        label: the method.
        regulariser: changes the gradients.
        settings: of RL that differ from the profile's.
    """
    profile, seed, start = lineage.profile.override(settings), lineage.seed, lineage.checkpoint(parent)
    name, steps, made = f"{parent}+{domain}_{label}", profile.steps[domain], lineage.domains[domain]
    inputs: dict[str, Any] = {
        "kind": "stage",
        "method": label,
        "settings": profile.subset(*RL_SETTINGS),
        "parent": start.key,
        "domain": domain_inputs(made),
        "steps": steps,
        "learning_rate": profile.learning_rate[domain],
        "seed": seed,
        **(regulariser.inputs(lineage) if regulariser else {}),
        **training_environment(profile),
    }

    def make(output: Path, work: Path) -> None:
        callbacks: list[TrainerCallback] = [GradientCallback(regulariser.change())] if regulariser else []
        launch.train_stage(
            profile,
            made,
            parent=start.artifact.whole(),
            weights=start.weights,
            steps=steps,
            learning_rate=profile.learning_rate[domain],
            seed=seed,
            snapshot_every=steps,
            output=output,
            work=work,
            label=f"{name}, seed {seed}",
            callbacks=callbacks,
        )

    return lineage.adopt(Checkpoint(name, lineage.store.get(f"{name}-seed{seed}", inputs, make)))
