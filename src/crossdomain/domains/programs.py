"""Code: write an expression in x for the linear function that two points show.

Expressions are evaluated by walking a restricted syntax tree; nothing is ever passed to `eval` or `exec`. Any string
gets a reward in bounded time: length, characters, numbers and operations are limited before anything is computed.
"""

from __future__ import annotations

import ast
import re
from functools import cache

import numpy as np

from crossdomain.domains.base import Domain, Item, shuffled

SLOPES, INTERCEPTS, POINTS = range(1, 10), range(0, 81), range(0, 2)  # f(x) = a*x + b, shown at x and x + 1
DEV, TEST = 50, 110  # functions held out, with all their prompts
CHECKED = range(12)  # a right expression agrees with the function here
MAX_LENGTH = 32  # characters; it also bounds the depth of the tree and the size of every number
ALLOWED = re.compile(r"[0-9x+\-*() ]+", re.ASCII)


class Programs(Domain):
    """`1>13,2>19:` → `6*x+7`; right on all x from 0 to 11. Held out by function."""

    title = "Code"
    max_new_tokens = 10

    def items(self, split: str) -> list[Item]:
        return _splits()[split]

    def score(self, response: str, target: str) -> float:
        slope, intercept = map(int, target.split(","))
        return float(evaluate(response, CHECKED) == [slope * x + intercept for x in CHECKED])

    def demonstration(self, item: Item, rng: np.random.Generator) -> str:
        slope, intercept = item.target.split(",")
        return f"{slope}*x+{intercept}"

    def render(self, item: Item, response: str) -> str:
        first, second = (point.split(">") for point in item.prompt.rstrip(":").split(","))
        verdict = "right" if self.score(response, item.target) else "wrong"
        return f"f({first[0]}) = {first[1]}, f({second[0]}) = {second[1]}: f(x) = {response}   ({verdict})"


def evaluate(expression: str, points: range) -> list[int] | None:
    """Values of an expression in x made of integers, `+`, `-`, `*` and parentheses; None if it is anything else."""
    if len(expression) > MAX_LENGTH or not ALLOWED.fullmatch(expression) or re.search(r"\dx|x\d", expression):
        return None
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        return [_value(tree, x) for x in points]
    except (SyntaxError, ValueError):
        return None


def _value(node: ast.expr, x: int) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id="x"):
            return x
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, x)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _value(left, x) + _value(right, x)
        case ast.BinOp(op=ast.Sub(), left=left, right=right):
            return _value(left, x) - _value(right, x)
        case ast.BinOp(op=ast.Mult(), left=left, right=right):
            return _value(left, x) * _value(right, x)
    raise ValueError(f"not an allowed expression: {ast.dump(node)}")


@cache
def _splits() -> dict[str, list[Item]]:
    functions = shuffled([(a, b) for a in SLOPES for b in INTERCEPTS], "programs")
    held = {"test": functions[:TEST], "dev": functions[TEST : TEST + DEV], "train": functions[TEST + DEV :]}
    return {
        split: shuffled([Item(_prompt(a, b, x), f"{a},{b}") for a, b in chosen for x in POINTS], f"programs {split}")
        for split, chosen in held.items()
    }


def _prompt(a: int, b: int, x: int) -> str:
    return f"{x}>{a * x + b},{x + 1}>{a * (x + 1) + b}:"
