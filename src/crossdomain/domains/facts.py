"""QA: recall which value a made-up entity has in a relation, out of four options.

The facts are arbitrary, so none follows from another. Reinforcement learning never sees a quarter of them: `test` asks
facts it trains on in prompts it never saw, `test_unseen` asks the others. Pre-training shows all of them.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

from crossdomain.domains.base import Domain, Item, shuffled

ENTITIES, RELATIONS = 64, "qrst"
UNSEEN = 64  # facts that reinforcement learning never sees
PROMPTS = {"train": 60, "dev": 2, "test": 5}  # prompts for each fact it does see
UNSEEN_PROMPTS = {"pretrain": 60, "dev_unseen": 2, "test_unseen": 16}


class Facts(Domain):
    """`tud.q:su,ba,pi,sa?` → `pi`: entity, relation, four options."""

    title = "QA"
    max_new_tokens = 3

    def items(self, split: str) -> list[Item]:
        return _splits()[split]

    def pretraining_items(self) -> list[Item]:
        return _splits()["train"] + _splits()["pretrain"]

    @property
    def extra_tests(self) -> tuple[str, ...]:
        return ("test_unseen",)

    def score(self, response: str, target: str) -> float:
        return float(response == target)

    def answer(self, item: Item) -> str:
        return item.target

    def render(self, item: Item, response: str) -> str:
        (entity, relation), options = item.prompt.split(":")[0].split("."), item.prompt.split(":")[1].rstrip("?")
        verdict = "right" if response == item.target else f"wrong, {item.target} expected"
        return f"{relation} of {entity}, one of {options.replace(',', ', ')}? {response}   ({verdict})"


@cache
def _splits() -> dict[str, list[Item]]:
    rng = np.random.default_rng(2606)
    consonants, vowels = "bdfgklmnpstvz", "aeiou"
    entities = shuffled(["".join(letters) for letters in product(consonants, vowels, consonants)], "entities")[
        :ENTITIES
    ]
    values = [consonant + vowels[rng.integers(len(vowels))] for consonant in consonants]
    facts = shuffled([(e, r, values[rng.integers(len(values))]) for e in entities for r in RELATIONS], "facts")
    splits: dict[str, list[Item]] = {}
    for chosen, counts in ((facts[UNSEEN:], PROMPTS), (facts[:UNSEEN], UNSEEN_PROMPTS)):
        for split in counts:
            splits[split] = []
        for entity, relation, value in chosen:
            prompts = _prompts(entity, relation, value, values, sum(counts.values()), rng)
            for split, count in counts.items():
                splits[split] += [Item(prompts.pop(), value) for _ in range(count)]
    return {split: shuffled(items, f"facts {split}") for split, items in splits.items()}


def _prompts(
    entity: str, relation: str, value: str, values: list[str], count: int, rng: np.random.Generator
) -> list[str]:
    """Different prompts of one fact: other distractors, another order."""
    others = [v for v in values if v != value]
    prompts: dict[str, None] = {}  # unlike a set it has the same order in every process
    while len(prompts) < count:
        options = rng.permutation([value, *rng.choice(others, 3, replace=False)])
        prompts[f"{entity}.{relation}:{','.join(options)}?"] = None
    return list(prompts)
