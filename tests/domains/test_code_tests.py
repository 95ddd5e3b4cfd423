"""Rewards of programming problems: the tests that a program passes, run in the sandbox."""

from __future__ import annotations

import json

import pytest

import hub_standins
from crossdomain.domains.code_tests import TESTS, CodeTests
from crossdomain.domains.hub import HubSettings
from crossdomain.sandbox import Sandbox

CODE = CodeTests(
    HubSettings(
        folder=None,
        train_prompts=1,
        held_out_prompts=1,
        prompt_tokens=1,
        completion_tokens=1,
        writing_reward="similarity",
        judge_url="",
        judge_model="",
    ),
    "",
)
TARGET = json.dumps([["1\n", "2\n"], ["7", "14"], ["-3\n", "-6\n"], ["0\n", "0"]])


def response(program: str) -> str:
    return f"I think.\n</think>\nHere it is:\n```python\n{program}\n```\nDone."


def test_the_prompt_is_the_rows_own_and_its_tests_are_kept_in_a_fixed_draw() -> None:
    truth = {"inputs": [str(i) for i in range(40)], "outputs": [str(2 * i) for i in range(40)]}
    row = hub_standins.code_row(3, reward_model={"ground_truth": json.dumps(truth), "style": "rule"})
    first, second = CODE.read(row, CODE.sources[0]), CODE.read(row, CODE.sources[0])
    assert first is not None and first == second
    assert first.item.prompt == "Problem 3: print twice the number that you read."
    cases = json.loads(first.item.target)
    assert len(cases) == TESTS and all(2 * int(given) == int(wanted) for given, wanted in cases)


RIGHT = [
    "print(2 * int(input()))",
    "import sys\nprint(2 * int(sys.stdin.readline()), end='')",
    "import sys\nprint(str(2 * int(sys.stdin.read())) + '  \\n\\n')",
    "import sys\nsys.stdout.buffer.write(b'%d' % (2 * int(sys.stdin.buffer.read())))",
    "if __name__ == '__main__':\n    print(2 * int(input()))\n    exit()",
    "def main():\n    n = int(input())\n    print(n + n)\nmain()\nraise SystemExit(0)",
]
WRONG = [
    "print(3)",
    "print(2 * int(input()),",  # no Python
    "print(2 * int(input()))\nraise SystemExit(1)",
    "print(2 * int(input()))\n1 / 0",
    "import os\nprint(2 * int(input()))\nos._exit(0)",
    "run = lambda text: '2'",
    "open('/etc/passwd')",
    "while True: pass",
]


@pytest.fixture(scope="module")
def scores(sandbox: Sandbox) -> dict[str, float]:
    programs = [*RIGHT, *WRONG]
    found = CODE.reward([""] * len(programs), [*map(response, programs)], [TARGET] * len(programs))
    return dict(zip(programs, found, strict=True))


@pytest.mark.parametrize("program", RIGHT)
def test_a_program_that_prints_what_is_expected_passes(program: str, scores: dict[str, float]) -> None:
    assert scores[program] == 1


@pytest.mark.parametrize("program", WRONG)
def test_any_other_program_fails(program: str, scores: dict[str, float]) -> None:
    assert scores[program] == 0


def test_the_reward_is_the_share_of_tests_passed(scores: dict[str, float]) -> None:
    program = "n = int(input())\nprint(abs(2 * n))"
    assert CODE.score(response(program), TARGET) == 3 / 4


def test_the_last_block_after_the_thoughts_counts(scores: dict[str, float]) -> None:
    good, bad = response("print(2 * int(input()))"), response("print(3)")
    assert CODE.reward([""] * 2, [bad + good, good + bad], [TARGET] * 2) == [1, 0]


@pytest.mark.parametrize(
    "said", ["", "</think>", "```python\nprint(2 * int(input()))\n```", "</think>print(2 * int(input()))"]
)
def test_without_a_program_after_the_thoughts_nothing_is_run(said: str, scores: dict[str, float]) -> None:
    assert CODE.score(said, TARGET) == 0
