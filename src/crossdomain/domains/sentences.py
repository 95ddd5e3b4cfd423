"""Creative writing for a real small language model: one sentence that uses two words and repeats none."""

from __future__ import annotations

import re
from functools import cache
from itertools import permutations

from crossdomain.domains.base import Domain, Item, shuffled

NOUNS = (
    "apple baby ball bear bell bird boat book bottle box boy bread bridge brother butter cake candle castle cat chair "
    "child church city clock cloud coat cook cow dog doctor door dream farmer field fire fish flower forest friend garden "
    "girl gold grass hat hill horse house island king knife lake lamp letter lion milk mirror moon mother mountain mouse "
    "queen rain ring river road rock sailor school sea ship shoe sister snow soldier star stone storm sun teacher tower "
    "train tree village wall water wind window winter wolf"
)
MAY_REPEAT = (
    "a an the and or but of in on at to for from by with as that this it its is was are were be been his her their he she "
    "they had has have not so into up out over"
)
FEWEST, MOST = 8, 14  # words
END = re.compile(r"[.!?]")
WORD = re.compile(r"[a-z]+(?:['’-][a-z]+)*")
DEV, TEST = 250, 500


class Sentences(Domain):
    """`Write one sentence with the words "bread" and "apple". Use 8 to 14 words.`, begun with `The bread`."""

    title = "CW"
    max_new_tokens = 24
    stop = (".", "!", "?")

    def items(self, split: str) -> list[Item]:
        return _splits()[split]

    def score(self, response: str, target: str) -> float:
        """All of the rubric or nothing: a mean would be earned by `The king and the book.` too."""
        return float(all(self.rubric(response, target).values()))

    def rubric(self, response: str, target: str) -> dict[str, bool]:
        """What is asked of the first sentence, its given beginning included."""
        sentence = END.split(f"{_begun(target)}{response}", maxsplit=1)[0]
        words = WORD.findall(sentence.lower())
        content = [word for word in words if word not in MAY_REPEAT.split()]
        return {
            f"{FEWEST} to {MOST} words": FEWEST <= len(words) <= MOST,
            "both words": set(target.split(",")) <= set(words),
            "no content word twice": len(content) == len(set(content)),
        }

    def render(self, item: Item, response: str) -> str:
        marks = ", ".join(f"{'✓' if met else '✗'} {name}" for name, met in self.rubric(response, item.target).items())
        return f"“{' '.join((item.prefill + response).split())}”   ({marks})"


def _begun(target: str) -> str:
    return f"The {target.partition(',')[0]}"


@cache
def _splits() -> dict[str, list[Item]]:
    items = [
        Item(
            f'Write one sentence with the words "{first}" and "{second}". Use {FEWEST} to {MOST} words.',
            f"{first},{second}",
            prefill=_begun(f"{first},{second}"),
        )
        for first, second in shuffled([*permutations(NOUNS.split(), 2)], "sentences")
    ]
    return {"test": items[:TEST], "dev": items[TEST : TEST + DEV], "train": items[TEST + DEV :]}
