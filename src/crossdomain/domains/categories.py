"""QA for a real small language model: which of three categories a word belongs to. Held out by word."""

from __future__ import annotations

from functools import cache
from itertools import permutations

from crossdomain.domains.base import Domain, Item, shuffled

# No word fits a second category, which is why there is no category of birds beside that of animals.
CATEGORIES = {
    "animal": "goose horse rabbit tiger sheep elephant wolf monkey goat camel",
    "vegetable": "carrot onion cabbage spinach lettuce broccoli celery potato turnip cauliflower",
    "tool": "hammer saw drill wrench screwdriver chisel shovel axe rake pliers",
    "fruit": "apple banana cherry peach grape mango pear plum strawberry pineapple",
    "vehicle": "car truck bus train bicycle tractor motorcycle airplane helicopter tram",
    "color": "red blue green yellow purple brown black white pink gray",
    "country": "France Japan Brazil Egypt Canada Spain Kenya Norway Peru Thailand",
    "sport": "football tennis basketball hockey golf swimming baseball volleyball rugby wrestling",
    "instrument": "piano guitar violin flute trumpet drum cello harp clarinet saxophone",
    "furniture": "chair table sofa bed desk wardrobe bookshelf stool dresser armchair",
}
DEV, TEST = 1, 3  # words of each category, of 10
OPTIONS = 3


class Categories(Domain):
    """`Is goose a kind of vegetable, animal or tool? Answer with one word.`, begun with `Answer:` → ` animal`.

    Nothing else is right, as in `worded_arithmetic`.
    """

    title = "QA"
    max_new_tokens = 8
    stop = ("\n",)

    def items(self, split: str) -> list[Item]:
        return _splits()[split]

    def answer(self, item: Item) -> str:
        return f" {item.target}"

    def score(self, response: str, target: str) -> float:
        return float(response.rstrip() == f" {target}")

    def render(self, item: Item, response: str) -> str:
        verdict = "right" if self.score(response, item.target) else f"wrong, {item.target} expected"
        return f"{item.prompt} {' '.join(response.split())}   ({verdict})"


@cache
def _splits() -> dict[str, list[Item]]:
    splits: dict[str, list[Item]] = {"test": [], "dev": [], "train": []}
    for category, words in CATEGORIES.items():
        order = shuffled(words.split(), f"categories {category}")
        held = {"test": order[:TEST], "dev": order[TEST : TEST + DEV], "train": order[TEST + DEV :]}
        for split, chosen in held.items():
            splits[split] += [item for word in chosen for item in _items(word, category)]
    return {split: shuffled(items, f"categories {split}") for split, items in splits.items()}


def _items(word: str, category: str) -> list[Item]:
    """All choices of distractors in all orders."""
    return [
        Item(
            f"Is {word} a kind of {', '.join(options[:-1])} or {options[-1]}? Answer with one word.",
            category,
            prefill="Answer:",
        )
        for options in permutations(CATEGORIES, OPTIONS)
        if category in options
    ]
