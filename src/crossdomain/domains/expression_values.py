"""Code with the surface of Math: the value of a Python expression, asked and answered as `worded_arithmetic` is.

A stage on it harms Math far more than one on `python_functions`, and needs no sandbox.
"""

from __future__ import annotations

from functools import cache

from crossdomain.domains.base import Item, shuffled
from crossdomain.domains.worded_arithmetic import WordedArithmetic, held_out, in_either_order

FUNCTIONS = {"max": max, "min": min}


class ExpressionValues(WordedArithmetic):
    """`State the value of the following Python expression: max(47, 6)` → ` 47`."""

    title = "Code"

    def items(self, split: str) -> list[Item]:
        return _splits()[split]


@cache
def _splits() -> dict[str, list[Item]]:
    expressions = [
        (f"{name}({x}, {y})", function(x, y)) for x, y in in_either_order() for name, function in FUNCTIONS.items()
    ]
    items = [
        Item(f"State the value of the following Python expression: {expression}", str(value), prefill=f"{expression} =")
        for expression, value in shuffled(expressions, "expression values")
    ]
    return held_out(items)
