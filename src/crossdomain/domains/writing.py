"""Creative writing: four invented words that use a keyword, end on a rhyme and alliterate nowhere.

No single answer is right; a rubric of four items is averaged, as a judge would score a poem against a brief.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import product

import numpy as np

from crossdomain.domains.base import Domain, Item, shuffled

CONSONANTS, VOWELS = "bdfgklmnpstvz", "aeiou"
WORDS = 4
DEV, TEST, TRAIN = 250, 500, 11_500
WORD = re.compile(f"(?:[{CONSONANTS}][{VOWELS}]){{1,2}}[{CONSONANTS}]?")


class Writing(Domain):
    """`gud,ag:` → `pem gud sol tag`: four pronounceable words, `gud` among them, the last one ending on `ag`."""

    title = "CW"
    max_new_tokens = 24

    def items(self, split: str) -> list[Item]:
        return _splits()[split]

    def score(self, response: str, target: str) -> float:
        return float(np.mean(list(self.rubric(response, target).values())))

    def rubric(self, response: str, target: str) -> dict[str, bool]:
        """The four items of the rubric; all False if a word is malformed."""
        keyword, rhyme = target.split(",")
        words = response.split(" ")
        formed = all(WORD.fullmatch(word) for word in words)
        return {
            "uses the keyword": formed and keyword in words,
            "four words": formed and len(words) == WORDS,
            "ends on the rhyme": formed and words[-1].endswith(rhyme) and words[-1] != keyword,
            "distinct initials": formed and len(words) > 1 and len({word[0] for word in words}) == len(words),
        }

    def demonstration(self, item: Item, rng: np.random.Generator) -> str:
        """A response in which each of the four constraints was dropped with probability one half."""
        keyword, rhyme = item.target.split(",")
        use_keyword, count_four, end_on_rhyme, distinct = rng.random(4) < 0.5
        count = WORDS if count_four else int(rng.integers(3, 6))
        initials = list(rng.choice(list(CONSONANTS), count, replace=not distinct))
        if distinct and use_keyword and keyword[0] in initials:
            initials.remove(keyword[0])
        elif use_keyword:
            initials.pop()
        words = [initial + rng.choice(list(VOWELS)) + rng.choice(list(CONSONANTS)) for initial in initials]
        if end_on_rhyme:
            words[-1] = words[-1][0] + rhyme
        if use_keyword:
            words.insert(int(rng.integers(len(words))), keyword)
        return " ".join(words)

    def render(self, item: Item, response: str) -> str:
        keyword, rhyme = item.target.split(",")
        marks = ", ".join(f"{'✓' if met else '✗'} {name}" for name, met in self.rubric(response, item.target).items())
        return f"a line with “{keyword}” that ends on -{rhyme}: “{response}”   ({marks})"


@cache
def _splits() -> dict[str, list[Item]]:
    keywords = ["".join(letters) for letters in product(CONSONANTS, VOWELS, CONSONANTS)]
    rhymes = ["".join(letters) for letters in product(VOWELS, CONSONANTS)]
    briefs = [f"{keyword},{rhyme}" for keyword in keywords for rhyme in rhymes if keyword[1:] != rhyme]
    items = [Item(f"{brief}:", brief) for brief in shuffled(briefs, "writing")]
    ends = np.cumsum([0, TEST, DEV, TRAIN])
    return {split: items[ends[i] : ends[i + 1]] for i, split in enumerate(("test", "dev", "train"))}
