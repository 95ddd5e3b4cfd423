"""Math for a real small language model: short sums and differences asked in words."""

from __future__ import annotations

from functools import cache

from crossdomain.domains.base import Domain, Item, shuffled

OPERANDS = [(a, b) for a in range(10, 90) for b in range(1, 10)]
DEV, TEST = 100, 200


class WordedArithmetic(Domain):
    """`State the final answer to the following arithmetic problem: 82 - 5 =` → ` 77` and the end of the line.

    Nothing else is right, so that the expected reward is one probability (up to other spellings of it by tokens).
    """

    title = "Math"
    max_new_tokens = 12
    stop = ("\n",)

    def items(self, split: str) -> list[Item]:
        return _splits()[split]

    def answer(self, item: Item) -> str:
        return f" {item.target}"

    def score(self, response: str, target: str) -> float:
        return float(response.rstrip() == f" {target}")

    def render(self, item: Item, response: str) -> str:
        verdict = "right" if self.score(response, item.target) else f"wrong, {item.target} expected"
        return f"{item.prefill} {response.strip()}   ({verdict})"


@cache
def _splits() -> dict[str, list[Item]]:
    problems = [(f"{a} {sign} {b} =", a + b if sign == "+" else a - b) for a, b in OPERANDS for sign in "+-"]
    question = "State the final answer to the following arithmetic problem:"
    items = [
        Item(f"{question} {problem}", str(result), prefill=problem)
        for problem, result in shuffled(problems, "worded arithmetic")
    ]
    return held_out(items)


def held_out(items: list[Item]) -> dict[str, list[Item]]:
    """Shuffled items in splits: the first for `test`, then `dev`, and `train` has the rest."""
    return {"test": items[:TEST], "dev": items[TEST : TEST + DEV], "train": items[TEST + DEV :]}


def in_either_order() -> list[tuple[int, int]]:
    """The operands of Math, the larger or the smaller first, so that the place of a right one does not give it away."""
    return [pair for a, b in OPERANDS for pair in ((a, b), (b, a))]
