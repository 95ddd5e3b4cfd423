"""QA with the surface of Math: which of two numbers is larger or smaller, asked and answered as `worded_arithmetic` is.

A stage on it is learned fast and harms Math far more than one on `categories`: both answer `a … b =` with a number.
"""

from __future__ import annotations

from functools import cache

from crossdomain.domains.base import Item, shuffled
from crossdomain.domains.worded_arithmetic import WordedArithmetic, held_out, in_either_order

CHOICES = {"larger": max, "smaller": min}


class Comparisons(WordedArithmetic):
    """`State the final answer to the following question: the larger of 47 and 6 =` → ` 47`."""

    title = "QA"

    def items(self, split: str) -> list[Item]:
        return _splits()[split]


@cache
def _splits() -> dict[str, list[Item]]:
    questions = [
        (f"the {word} of {x} and {y} =", choice(x, y)) for x, y in in_either_order() for word, choice in CHOICES.items()
    ]
    items = [
        Item(f"State the final answer to the following question: {question}", str(value), prefill=question)
        for question, value in shuffled(questions, "comparisons")
    ]
    return held_out(items)
