"""Code for a real language model: what the items ask, read from their words alone, and how responses are judged."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdomain.domains import Item
from crossdomain.domains.python_functions import CONSTANTS, INPUTS, TEMPLATES, PythonFunctions
from crossdomain.sandbox import Sandbox

DOMAIN = PythonFunctions()
SPLITS = ("train", "dev", "test", "test_unseen")
ASKED = re.compile(r"Write a Python function ([a-z])\(([a-z])\) that returns (.+)\.")

# The oracle: what a person would write for the words of a task, in terms of x, a and b.
SOLUTIONS = {
    "x plus a if x is more than b, otherwise x": "(x + a) if x > b else x",
    "x minus a if x is less than b, otherwise x": "x if x >= b else x - a",
    "a if x is even, otherwise x plus b": "x + b if x & 1 else a",
    "x times a, plus b": "b + a * x",
    "a times the sum of x and b": "a * x + a * b",
    "the larger of x and a, plus b": "b + sorted([x, a])[1]",
    "the smaller of x and a, times b": "b * sorted([x, a])[0]",
    "the remainder of x divided by a, plus b": "x - a * (x // a) + b",
    "x divided by a, plus b": "x / a + b",
    "x times a, minus b": "-b + a * x",
}


def read(item: Item) -> tuple[str, str, str, list[str]]:
    """Function, argument, template in terms of x, a and b, and constants of a task."""
    match = ASKED.fullmatch(item.prompt)
    assert match
    function, argument, words = match.groups()
    constants = re.findall(r"[0-9]", words)
    template = re.sub(rf"\b{argument}\b", "x", words)
    for name, constant in zip("ab", constants, strict=True):
        template = template.replace(constant, name, 1)
    return function, argument, template, constants


def solution(item: Item) -> str:
    """A right response to a task, made from its prompt."""
    _, argument, template, constants = read(item)
    names = {"x": argument, "a": constants[0], "b": constants[1]}
    return re.sub(r"\b[xab]\b", lambda match: names[match.group()], SOLUTIONS[template])


def once_a_task() -> list[Item]:
    """Every template with every pair of constants, under one name each."""
    items = [
        item
        for split in SPLITS
        for item in DOMAIN.items(split)
        if item.prompt.startswith("Write a Python function f(x)")
    ]
    assert len(items) == len(TEMPLATES) * len(CONSTANTS) ** 2
    return items


def test_what_a_person_would_write_is_right_for_every_task(sandbox: Sandbox) -> None:
    items = once_a_task()[::3]
    responses = [f" {solution(item)}\n" for item in items]
    assert DOMAIN.reward([""] * len(items), responses, [item.target for item in items]) == [1.0] * len(items)


def test_targets_are_the_values_of_the_task_under_all_names() -> None:
    for split in SPLITS:
        for item in DOMAIN.items(split)[:150]:
            function, argument, values = json.loads(item.target)
            assert (function, argument) == read(item)[:2]
            assert item.prefill == f"def {function}({argument}):\n    return"
            expected = [eval(solution(item), {argument: x}) for x in INPUTS]
            assert [*map(repr, values)] == [*map(repr, expected)]


def test_functions_of_a_template_differ_on_the_inputs() -> None:
    values: dict[str, list[str]] = {}
    for item in once_a_task():
        values.setdefault(read(item)[2], []).append(item.target)
    assert values.keys() == SOLUTIONS.keys()
    assert {template: len(set(targets)) for template, targets in values.items()} == dict.fromkeys(SOLUTIONS, 36)


def test_constants_are_held_out_of_test_and_templates_of_test_unseen() -> None:
    tasks = {split: [read(item) for item in DOMAIN.items(split)] for split in SPLITS}
    pairs = {split: {tuple(constants) for *_, constants in read} for split, read in tasks.items()}
    templates = {split: {template for _, _, template, _ in read} for split, read in tasks.items()}
    assert sum(len(pairs[split]) for split in SPLITS[:3]) == len(pairs["train"] | pairs["dev"] | pairs["test"]) == 36
    assert templates["train"] == templates["dev"] == templates["test"]
    assert len(templates["train"]) == 8 and len(templates["test_unseen"]) == 2
    assert not templates["train"] & templates["test_unseen"]


TARGET = json.dumps(["f", "x", [2 * x for x in INPUTS]])


@pytest.mark.parametrize(
    ("response", "score"),
    [
        (" 2 * x\n", 1),
        (" x + x", 1),
        ("(x << 1)", 1),
        (" x * 2  # twice\n", 1),
        (" max(x, x) * 2 if x else 0\n\nprint(f(2))\n", 1),  # what follows the first line was not asked for
        (" 2 * x\n    syntax error", 1),
        (" 2.0 * x\n", 0),
        (" str(2 * x)\n", 0),
        (" 2 * y\n", 0),
        (" 2 x\n", 0),
        ("\n    2 * x", 0),
        (" 2 * x if x < 9 else 0\n", 0),
        (" __import__('os')._exit(0)\n", 0),
        (" print(2 * x)\n", 0),
        ("2 * x", 0),  # return2 is a name
        (" [x, x]\n", 0),
        ("", 0),
    ],
)
def test_the_first_line_is_judged_by_value_and_type(sandbox: Sandbox, response: str, score: float) -> None:
    assert DOMAIN.score(response, TARGET) == score


def test_rewards_of_a_batch_are_those_one_by_one(sandbox: Sandbox) -> None:
    responses = [" 2 * x", " 3 * x", " while", " 2 * x", " f(x)"]
    assert DOMAIN.reward([""] * 5, responses, [TARGET] * 5) == [
        DOMAIN.score(response, TARGET) for response in responses
    ]
    assert DOMAIN.reward([], [], []) == []


@settings(max_examples=10)
@given(st.lists(st.text(st.characters(exclude_categories=())), max_size=5))
def test_any_text_gets_a_score(sandbox: Sandbox, responses: list[str]) -> None:
    rewards = DOMAIN.reward([""] * len(responses), responses, [TARGET] * len(responses))
    assert len(rewards) == len(responses) and set(rewards) <= {0.0, 1.0}


def test_render_shows_the_first_line(sandbox: Sandbox) -> None:
    item = DOMAIN.items("dev")[0]
    right = solution(item)
    assert DOMAIN.render(item, f" {right}\nmore") == f"{item.prompt} → return {right}   (right)"
