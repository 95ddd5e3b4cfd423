"""Code: the domain, and the evaluator of untrusted expressions against an independent oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crossdomain.domains import Item
from crossdomain.domains.programs import CHECKED, MAX_LENGTH, Programs, evaluate

DOMAIN = Programs()

# --- The oracle: trees as nested tuples, spelled with as few parentheses as possible, computed in plain integers ---

LEAVES = st.just(("x",)) | st.integers(0, 120).map(lambda number: ("number", number))
TREES = st.recursive(
    LEAVES,
    lambda trees: st.tuples(st.sampled_from("+-*"), trees, trees) | st.tuples(st.just("negative"), trees),
    max_leaves=9,
)
BINDING = {"+": 1, "-": 1, "*": 2, "negative": 3, "x": 4, "number": 4}


def spell(tree: tuple[Any, ...], blank: str) -> str:
    kind = tree[0]
    if kind == "x":
        return "x"
    if kind == "number":
        return str(tree[1])
    if kind == "negative":
        return "-" + bracketed(tree[1], BINDING[kind], blank)
    left, right = bracketed(tree[1], BINDING[kind], blank), bracketed(tree[2], BINDING[kind] + 1, blank)
    return f"{left}{blank}{kind}{blank}{right}"


def bracketed(tree: tuple[Any, ...], least: int, blank: str) -> str:
    return spell(tree, blank) if BINDING[tree[0]] >= least else f"({spell(tree, blank)})"


def compute(tree: tuple[Any, ...], x: int) -> int:
    match tree:
        case ("x",):
            return x
        case ("number", number):
            return int(number)
        case ("negative", operand):
            return -compute(operand, x)
        case ("+", left, right):
            return compute(left, x) + compute(right, x)
        case ("-", left, right):
            return compute(left, x) - compute(right, x)
        case ("*", left, right):
            return compute(left, x) * compute(right, x)
    raise AssertionError(tree)


@given(tree=TREES, blank=st.sampled_from(["", " ", "  "]))
def test_evaluation_agrees_with_plain_arithmetic(tree: tuple[Any, ...], blank: str) -> None:
    expression = spell(tree, blank)
    assume(len(expression) <= MAX_LENGTH)
    assert evaluate(expression, CHECKED) == [compute(tree, x) for x in CHECKED]


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("7", [7, 7, 7]),
        ("x", [0, 1, 2]),
        (" x ", [0, 1, 2]),
        ("2-x-x", [2, 0, -2]),
        ("2-(x-x)", [2, 2, 2]),
        ("1+2*x", [1, 3, 5]),
        ("(1+2)*x", [0, 3, 6]),
        ("-x*-x", [0, 1, 4]),
        ("(" * 15 + "x" + ")" * 15, [0, 1, 2]),
        ("9" * MAX_LENGTH, [int("9" * MAX_LENGTH)] * 3),
        ("*".join(["9"] * 16), [9**16] * 3),
    ],
)
def test_values_of_expressions(expression: str, values: list[int]) -> None:
    assert evaluate(expression, range(3)) == values


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "x**2",
        "2**x",
        "(" * 5_000 + "x" + ")" * 5_000,
        "-" * 5_000 + "x",
        "9" * 1_000_000,
        "9" * (MAX_LENGTH + 1),
        "٣",
        "²",
        "x*٣",
        "ⅹ",
        "０",
        "0x7",
        "0b1",
        "1_000",
        "1e9",
        "1.5",
        "1j",
        "007",
        "7x",
        "x7",
        "7 x",
        "xx",
        "x x",
        "x(x)",
        "(x)(x)",
        "3(x)",
        "()",
        "(x",
        "x)",
        "x+",
        "*x",
        "x//1",
        "x/1",
        "x%2",
        "x,x",
        "[x]",
        "x.real",
        "x=1",
        "x:=1",
        "x==x",
        "x if x else x",
        "lambda:x",
        "True",
        "print(x)",
        "__import__('os')",
        "__import__('os').system('true')",
        "x\0",
        "\0",
        "x\n",
        "\nx",
        "x+\n1",
        "x\r",
        "x\t",
        "x#",
        "x;x",
        "x\\",
        "'x'",
        "",
        " ",
        "\ud800",
    ],
)
def test_anything_else_has_no_value(expression: str) -> None:
    assert evaluate(expression, CHECKED) is None


@given(st.text("0123456789x+-*() ", max_size=2 * MAX_LENGTH))
def test_evaluation_is_total_on_its_own_characters(expression: str) -> None:
    values = evaluate(expression, CHECKED)
    assert values is None or all(type(value) is int for value in values)


@given(st.text("_0x9*()'. \n\0eimport", max_size=2 * MAX_LENGTH))
def test_evaluation_is_total_on_hostile_characters(expression: str) -> None:
    values = evaluate(expression, CHECKED)
    assert values is None or all(type(value) is int for value in values)


def test_prompts_show_two_points_of_the_function() -> None:
    for split in ("train", "dev", "test"):
        for item in DOMAIN.items(split):
            slope, intercept = map(int, item.target.split(","))
            for point in item.prompt.rstrip(":").split(","):
                x, value = map(int, point.split(">"))
                assert value == slope * x + intercept


def test_functions_are_held_out_with_all_their_prompts() -> None:
    functions = [{item.target for item in DOMAIN.items(split)} for split in ("train", "dev", "test")]
    assert sum(map(len, functions)) == len(set.union(*functions))


@pytest.mark.parametrize("response", ["6*x+7", "7+x*6", "6*(x+1)+1", "x+x+x+x+x+x+7", " 6*x + 7 "])
def test_every_way_to_write_the_function_is_right(response: str) -> None:
    assert DOMAIN.score(response, "6,7") == 1


@pytest.mark.parametrize("response", ["6*x", "6*x+8", "13", "6*x+7+x*(x-1)*0*(", "13+x*(x-1)*6"])
def test_other_functions_are_wrong(response: str) -> None:
    assert DOMAIN.score(response, "6,7") == 0


def test_a_curve_through_the_shown_points_alone_is_wrong() -> None:
    assert evaluate("6*x+7+(x-1)*(x-2)", range(1, 3)) == evaluate("6*x+7", range(1, 3))
    assert DOMAIN.score("6*x+7+(x-1)*(x-2)", "6,7") == 0


def test_render_shows_points_expression_and_verdict() -> None:
    item = Item("1>13,2>19:", "6,7")
    assert DOMAIN.render(item, "6*x+7") == "f(1) = 13, f(2) = 19: f(x) = 6*x+7   (right)"
    assert DOMAIN.render(item, "6*x") == "f(1) = 13, f(2) = 19: f(x) = 6*x   (wrong)"
