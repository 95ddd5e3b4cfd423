"""Stages of reinforcement learning on several domains of a run: in turn, or mixed within every step.

A prompt and its `generations` responses stay together, so a group is always of one domain. A stage has one Adam and one
learning rate, whichever domain a step is on. GRPO's loss is divided by the tokens of the whole batch: in a batch of several
domains each weighs as many tokens as it has.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from datasets import Dataset

from crossdomain import launch, models, training
from crossdomain.domains import Domain, Item
from crossdomain.lineage import RL_SETTINGS, Checkpoint, Lineage, domain_inputs, training_environment
from crossdomain.profiles import Profile

TAG = ":"  # ends the domain's name in a target; the names of a profile's domains have none


class Mixture(Domain):
    """Several domains as one: every target says whose it is, and the reward is that domain's.

    A response may be as long as the longest of them allows, and ends with a string that ends those of any: a domain with
    shorter ones may be answered at greater length than on its own, and one with other strings may be cut short.

    Args:
        parts: the domains by their name in the run.

    Raises:
        ValueError: there is none, or another domain's string would cut the right answer of one.
    """

    title = "Mixture"

    def __init__(self, parts: Mapping[str, Domain]) -> None:
        if not parts:
            raise ValueError("a mixture needs at least one domain, got none")
        self.parts = dict(parts)
        for name, part in parts.items():
            others = [string for string in self.stop if string not in part.stop]
            for answer in (part.answer(item) for item in part.items("train")):
                if answer is not None and any(string in answer for string in others):
                    raise ValueError(
                        f"the answer {answer!r} of domain {name!r} would be cut in a mixture, whose responses end with any "
                        f"of {self.stop}: mix others, or give their classes the same `stop`"
                    )

    @property
    def max_new_tokens(self) -> int:  # type: ignore[override]  # of these parts, not of the class
        """The longest response of any of the domains."""
        return max(part.max_new_tokens for part in self.parts.values())

    @property
    def stop(self) -> tuple[str, ...]:  # type: ignore[override]
        """What ends the responses of any of them."""
        return tuple(dict.fromkeys(string for part in self.parts.values() for string in part.stop))

    def items(self, split: str) -> list[Item]:
        """The items of all domains, one domain after another, their targets tagged."""
        return [
            replace(item, target=tagged(name, item.target))
            for name, part in self.parts.items()
            for item in part.items(split)
        ]

    def score(self, response: str, target: str) -> float:
        """The reward of the domain that the target is of."""
        name, own = untagged(target)
        return self.parts[name].score(response, own)

    def answer(self, item: Item) -> str | None:
        """The one answer to the item, if its domain has one."""
        name, own = untagged(item.target)
        return self.parts[name].answer(replace(item, target=own))


def tagged(name: str, target: str) -> str:
    """A domain's target in a mixture."""
    return f"{name}{TAG}{target}"


def untagged(target: str) -> tuple[str, str]:
    """Whose a mixture's target is, and what it is there."""
    name, _, own = target.partition(TAG)
    return name, own


# --- The prompts of a stage ---


def prompt_rotation(profile: Profile, domains: Mapping[str, Domain], steps: int, seed: int, every: int = 1) -> Dataset:
    """Prompts of a stage whose steps are on one domain after another, beginning anew after the last.

    Args:
        profile: the run's settings.
        domains: the domains in their order.
        steps: of the stage.
        seed: of the order in which each domain's prompts are used, which is that of its own stage (`prompt_order`).
        every: steps on a domain before the next one's turn.

    Returns:
        Columns as in `training.prompt_order`, `target` tagged.

    Raises:
        ValueError: there is no domain, or `every` is not positive.
    """
    if not domains or every < 1:
        raise ValueError(f"expected at least one domain and step of each, got {list(domains)}, every = {every}")
    names, groups = list(domains), profile.batch_size // profile.generations
    turns = [names[step // every % len(names)] for step in range(steps)]
    return _laid_out(profile, domains, [name for name in turns for _ in range(groups)], seed)


def prompt_shares(
    profile: Profile, domains: Mapping[str, Domain], shares: Mapping[str, float], steps: int, seed: int
) -> Dataset:
    """Prompts of a stage whose every step has several domains, by their shares of the prompts.

    Prompts are whole: where a share of a step's is not a whole number, the rest is carried over to the next step, so that a
    domain is never ahead of its share by a prompt.

    Args:
        profile: the run's settings.
        domains: domains by name.
        shares: of those that are mixed; they sum to 1.
        steps: of the stage.
        seed: of the order in which each domain's prompts are used, which is that of its own stage (`prompt_order`).

    Returns:
        Columns as in `training.prompt_order`, `target` tagged.

    Raises:
        ValueError: a share is of no domain or negative, or they do not sum to 1.
    """
    if unknown := [name for name in shares if name not in domains]:
        raise ValueError(f"shares: no domain {', '.join(unknown)}, expected some of {', '.join(domains)}")
    if min(shares.values(), default=-1) < 0 or not math.isclose(sum(shares.values()), 1):
        raise ValueError(f"shares: expected numbers of 0 or more that sum to 1, got {dict(shares)}")
    owed, chosen = dict.fromkeys(shares, 0.0), []
    for _ in range(steps * (profile.batch_size // profile.generations)):
        for name, share in shares.items():
            owed[name] += share
        chosen.append(max(owed, key=owed.__getitem__))
        owed[chosen[-1]] -= 1
    return _laid_out(profile, domains, chosen, seed)


def _laid_out(profile: Profile, domains: Mapping[str, Domain], chosen: Sequence[str], seed: int) -> Dataset:
    """The next prompt of the chosen domain, one after another."""
    groups = profile.batch_size // profile.generations
    orders = {
        name: iter(
            training.prompt_order(profile, domains[name], math.ceil(chosen.count(name) / groups), seed).to_list()
        )
        for name in dict.fromkeys(chosen)
    }
    rows = [(name, next(orders[name])) for name in chosen]
    return Dataset.from_dict(
        {
            "prompt": [row["prompt"] for _, row in rows],
            "target": [tagged(name, row["target"]) for name, row in rows],
        }
    )


# --- The stage ---


class Rotation(NamedTuple):
    """Steps on one domain after another, as `prompt_rotation` lays them out."""

    domains: tuple[str, ...]
    every: int = 1

    def prompts(self, profile: Profile, domains: Mapping[str, Domain], steps: int, seed: int) -> Dataset:
        """The stage's prompts."""
        return prompt_rotation(profile, {name: domains[name] for name in self.domains}, steps, seed, self.every)


class Shares(NamedTuple):
    """All domains in every step, as `prompt_shares` lays them out: pairs of a domain and its share."""

    shares: tuple[tuple[str, float], ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that are mixed."""
        return tuple(name for name, _ in self.shares)

    @classmethod
    def even(cls, domains: Sequence[str]) -> Shares:
        """The same share for each."""
        return cls(tuple((name, 1 / len(domains)) for name in domains))

    def prompts(self, profile: Profile, domains: Mapping[str, Domain], steps: int, seed: int) -> Dataset:
        """The stage's prompts."""
        return prompt_shares(profile, domains, dict(self.shares), steps, seed)


def train_mixture(
    lineage: Lineage,
    label: str,
    schedule: Rotation | Shares,
    *,
    parent: str,
    steps: int,
    learning_rate: float | None = None,
    snapshot_every: int | None = None,
) -> Checkpoint:
    """A checkpoint trained on several domains, which the lineage then knows by its name: trained if it is not in the store.

    Args:
        lineage: the run.
        label: what is done, as in `mixed`; after `code-math` the checkpoint is then called `code-math+mixed`.
        schedule: which domains, and how.
        parent: name of the checkpoint that it starts from.
        steps: optimizer steps.
        learning_rate: of all domains alike; by default that of a refresh of the profile's domain.
        snapshot_every: steps between kept weights; by default as in a refresh.

    Raises:
        ValueError: a domain or a share cannot be used.
    """
    profile, seed, start, name = lineage.profile, lineage.seed, lineage.checkpoint(parent), f"{parent}+{label}"
    rate = learning_rate or profile.refresh_learning_rate or profile.learning_rate[profile.refresh]
    every = snapshot_every or profile.refresh_snapshot_every
    if len({*schedule.domains} & {*lineage.domains}) < len(schedule.domains):
        known = ", ".join(lineage.domains)
        raise ValueError(f"{name}: expected different domains of {known}, got {', '.join(schedule.domains)}")
    mixture = Mixture({domain: lineage.domains[domain] for domain in schedule.domains})
    for domain, part in mixture.parts.items():
        models.check_vocabulary(domain, part, start.tokenizer())
    inputs: dict[str, Any] = {
        "kind": "stage",
        "settings": profile.subset(*RL_SETTINGS),
        "parent": start.key,
        "schedule": [type(schedule).__name__, *schedule],
        "domains": {domain: domain_inputs(part) for domain, part in mixture.parts.items()},
        "steps": steps,
        "learning_rate": rate,
        "snapshot_every": every,
        "seed": seed,
        **training_environment(profile, sys.modules[__name__]),
    }
    artifact = lineage.store.get(
        f"{name}-seed{seed}",
        inputs,
        lambda output, work: launch.train_stage(
            profile,
            mixture,
            parent=start.artifact.whole(),
            weights=start.weights,
            steps=steps,
            learning_rate=rate,
            seed=seed,
            snapshot_every=every,
            output=output,
            work=work,
            label=f"{name}, seed {seed}",
            prompts=schedule.prompts(profile, lineage.domains, steps, seed),
        ),
    )
    return lineage.adopt(Checkpoint(name, artifact))
