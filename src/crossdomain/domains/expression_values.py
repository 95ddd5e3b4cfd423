"""Code with the surface of Math: the value of a Python expression, asked and answered as `worded_arithmetic` is.

A stage on it harms Math far more than one on `python_functions`, and needs no sandbox.
"""

from __future__ import annotations

from functools import cache

from crossdomain.domains.base import Item, shuffled
from crossdomain.domains.worded_arithmetic import WordedArithmetic

FUNCTIONS = {"max": max, "min": min}
DEV, TEST = 100, 200


class ExpressionValues(WordedArithmetic):
    """`State the value of the following Python expression: max(47, 6)` → ` 47`."""

    title = "Code"

    def items(self, split: str) -> list[Item]:
        return _splits()[split]


@cache
def _splits() -> dict[str, list[Item]]:
    """Operands are those of Math, in either order, so that the place of the right one does not give it away."""
    pairs = [pair for a in range(10, 90) for b in range(1, 10) for pair in ((a, b), (b, a))]
    expressions = [(f"{name}({x}, {y})", function(x, y)) for x, y in pairs for name, function in FUNCTIONS.items()]
    items = [
        Item(f"State the value of the following Python expression: {expression}", str(value), prefill=f"{expression} =")
        for expression, value in shuffled(expressions, "expression values")
    ]
    return {"test": items[:TEST], "dev": items[TEST : TEST + DEV], "train": items[TEST + DEV :]}
