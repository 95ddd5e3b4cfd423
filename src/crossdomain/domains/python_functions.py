"""Code for a real small language model: a one-line Python function described in words, judged by running it.

Held out by constants (`test`: pairs that training never sees, in templates it does) and by template (`test_unseen`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import Any

from crossdomain.domains.base import Domain, Item, shuffled
from crossdomain.sandbox import Check, Sandbox, Verdict

# What the function returns: in words, and the reference. a and b are the constants.
TEMPLATES: dict[str, Callable[[int, int, int], object]] = {
    "{x} plus {a} if {x} is more than {b}, otherwise {x}": lambda x, a, b: x + a if x > b else x,
    "{x} minus {a} if {x} is less than {b}, otherwise {x}": lambda x, a, b: x - a if x < b else x,
    "{a} if {x} is even, otherwise {x} plus {b}": lambda x, a, b: a if x % 2 == 0 else x + b,
    "{x} times {a}, plus {b}": lambda x, a, b: x * a + b,
    "{a} times the sum of {x} and {b}": lambda x, a, b: a * (x + b),
    "the larger of {x} and {a}, plus {b}": lambda x, a, b: max(x, a) + b,
    "the remainder of {x} divided by {a}, plus {b}": lambda x, a, b: x % a + b,
    "{x} divided by {a}, plus {b}": lambda x, a, b: x / a + b,
    "the smaller of {x} and {a}, times {b}": lambda x, a, b: min(x, a) * b,
    "{x} times {a}, minus {b}": lambda x, a, b: x * a - b,
}
UNSEEN = 2  # of the templates, the last ones
CONSTANTS = range(2, 8)
DEV, TEST = 4, 12  # pairs of constants, of 36
NAMES = [*product("fgh", "xn")]  # of the function and its argument
INPUTS = tuple(range(-1, 10))


class PythonFunctions(Domain):
    """`Write a Python function f(x) that returns x times 3, plus 5.`, begun with `def f(x): return` → `x * 3 + 5`.

    Right if it returns what the reference does, in value and type, on 11 inputs. Rewards need `sandbox.Sandbox`, and
    raise `sandbox.SandboxError` on a machine that has none.
    """

    title = "Code"
    max_new_tokens = 24
    stop = ("\n",)

    def items(self, split: str) -> list[Item]:
        return _splits()[split]

    @property
    def extra_tests(self) -> tuple[str, ...]:
        return ("test_unseen",)

    def score(self, response: str, target: str) -> float:
        return self.reward([""], [response], [target])[0]

    def reward(
        self, prompts: Sequence[str], completions: Sequence[str], target: Sequence[str], **_: Any
    ) -> list[float]:
        """`score` of all responses at once, so that their programs run side by side."""
        verdicts = _sandbox().judge([_check(*pair) for pair in zip(completions, target, strict=True)])
        return [float(verdict is Verdict.PASSED) for verdict in verdicts]

    def render(self, item: Item, response: str) -> str:
        verdict = "right" if self.score(response, item.target) else "wrong"
        return f"{item.prompt} → return {_first_line(response).strip()}   ({verdict})"


def _check(response: str, target: str) -> Check:
    function, argument, values = json.loads(target)
    return Check(f"{_begun(function, argument)}{_first_line(response)}", function, INPUTS, tuple(values))


def _begun(function: str, argument: str) -> str:
    return f"def {function}({argument}):\n    return"


def _first_line(response: str) -> str:
    return response.partition("\n")[0]


@cache
def _sandbox() -> Sandbox:
    return Sandbox()


@cache
def _splits() -> dict[str, list[Item]]:
    constants = shuffled([*product(CONSTANTS, CONSTANTS)], "python functions")
    seen, unseen = [*TEMPLATES][:-UNSEEN], [*TEMPLATES][-UNSEEN:]
    held = {"test": constants[:TEST], "dev": constants[TEST : TEST + DEV], "train": constants[TEST + DEV :]}
    tasks = {split: [*product(seen, pairs, NAMES)] for split, pairs in held.items()}
    tasks["test_unseen"] = [*product(unseen, constants, NAMES)]
    return {
        split: shuffled([_item(*task) for task in chosen], f"python functions {split}")
        for split, chosen in tasks.items()
    }


def _item(template: str, constants: tuple[int, int], names: tuple[str, str]) -> Item:
    (a, b), (function, argument) = constants, names
    described = template.format(x=argument, a=a, b=b)
    values = [TEMPLATES[template](x, a, b) for x in INPUTS]
    return Item(
        f"Write a Python function {function}({argument}) that returns {described}.",
        json.dumps([function, argument, values]),
        prefill=_begun(function, argument),
    )
