"""Math: two-digit sums and differences, answered in three digits, the least significant first."""

from __future__ import annotations

from functools import cache

from crossdomain.domains.base import Domain, Item, shuffled

DEV, TEST = 500, 1000  # prompts held out for choosing and for reporting


class Arithmetic(Domain):
    """`71+95=` → `661`, since 71 + 95 = 166. All sums and non-negative differences of two two-digit numbers."""

    title = "Math"
    max_new_tokens = 4

    def items(self, split: str) -> list[Item]:
        return _splits()[split]

    def score(self, response: str, target: str) -> float:
        return float(response == target)

    def answer(self, item: Item) -> str:
        return item.target

    def render(self, item: Item, response: str) -> str:
        verdict = "right" if response == item.target else f"wrong, {item.target[::-1]} expected"
        return f"{item.prompt} {response[::-1]}   ({verdict})"


@cache
def _splits() -> dict[str, list[Item]]:
    numbers = range(10, 100)
    problems = [(f"{a}+{b}=", a + b) for a in numbers for b in numbers]
    problems += [(f"{a}-{b}=", a - b) for a in numbers for b in numbers if a >= b]
    items = [Item(prompt, f"{result:03d}"[::-1]) for prompt, result in shuffled(problems, "arithmetic")]
    return {"test": items[:TEST], "dev": items[TEST : TEST + DEV], "train": items[TEST + DEV :]}
