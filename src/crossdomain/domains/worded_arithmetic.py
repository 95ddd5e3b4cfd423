"""Math for a real small language model: short sums and differences asked in words."""

from __future__ import annotations

from functools import cache

from crossdomain.domains.base import Domain, Item, shuffled

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
    problems = [(f"{a} {sign} {b} =", a + b if sign == "+" else a - b)
                for a in range(10, 90) for b in range(1, 10) for sign in "+-"]  # fmt: skip
    question = "State the final answer to the following arithmetic problem:"
    items = [
        Item(f"{question} {problem}", str(result), prefill=problem)
        for problem, result in shuffled(problems, "worded arithmetic")
    ]
    return {"test": items[:TEST], "dev": items[TEST : TEST + DEV], "train": items[TEST + DEV :]}
