"""Code at the paper's scale: programming problems of KlearReasoner-CodeSub-15K, rewarded by their unit tests in a sandbox.

Known of the paper [D]: 5,120 prompts of this data set; 50 for validation. Ours: the test split; the reward, the share of
tests passed, as the data set's authors reward it; at most 16 tests a problem, as theirs; the limits of a program. Only
problems whose tests are texts for standard input and output are used: an assertion that runs inside the program's own
process, as the others have it, can be answered by leaving it early.

Schema: `data_source`, `prompt` (chat messages), `ability` and `reward_model` with `ground_truth` and `style`, confirmed on
its card; that the ground truth is JSON with `inputs` and `outputs`, or `functional` or `pytest` instead, confirmed by
public code that reads it. One JSON file of 4 GB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from crossdomain import chat, provenance
from crossdomain.domains.base import Item, shuffled
from crossdomain.domains.hub import DataSet, HubDomain, Row, RowError, Task
from crossdomain.sandbox import Check, Limits, Sandbox, Verdict

TESTS = 16  # of a problem, at most
TEST_CHARACTERS = 2**13  # of a test's input and output together; longer tests are left out
LIMITS = Limits(cpu_seconds=4, memory_bytes=2**29, output_bytes=2**16, program_characters=2**17)
FENCED = re.compile(r"```(?:python|py)3?[ \t]*\n(.*?)\n?```", re.DOTALL | re.IGNORECASE)

# Runs a program as if it were started with `text` on standard input; what it prints is what it returns.
RUN = """
import io, sys
def run(text):
    output = io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")
    sys.stdout = io.TextIOWrapper(output, "utf-8", write_through=True)
    try:
        exec(compile(SOURCE, "<program>", "exec"), {"__name__": "__main__", "exit": sys.exit, "quit": sys.exit})
    except SystemExit as exit:
        if exit.code:
            raise
    sys.stdout.flush()
    lines = output.getvalue().decode().strip().splitlines()
    return "\\n".join(line.rstrip() for line in lines)
"""


class CodeTests(HubDomain):
    """A problem → a Python program in a fenced block, the last one counts; the share of its tests that it passes."""

    title = "Code"
    sources = (DataSet("Kwai-Klear/KlearReasoner-CodeSub-15K", ("prompt", "reward_model")),)
    sizes = {"test": 200, "dev": 50}  # noqa: RUF012  # a ClassVar of HubDomain

    def read(self, row: Row, source: DataSet) -> Task | None:
        prompt = _prompt(row)
        cases = _cases(row)
        if cases is None:
            return None
        short = [case for case in cases if sum(map(len, case)) <= TEST_CHARACTERS]
        chosen = shuffled(short, prompt)[:TESTS]
        return Task(Item(prompt, json.dumps(chosen))) if chosen else None

    def determinants(self) -> dict[str, Any]:
        sandboxed = provenance.code_fingerprint("crossdomain.sandbox", "crossdomain.sandbox_child")
        return super().determinants() | {"sandbox": sandboxed}

    def score(self, response: str, target: str) -> float:
        return self.reward([""], [response], [target])[0]

    def reward(
        self, prompts: Sequence[str], completions: Sequence[str], target: Sequence[str], **_: Any
    ) -> list[float]:
        """The share of its tests that each completion's program passes; all programs are run in one go."""
        tests = [_tests(completion, wanted) for completion, wanted in zip(completions, target, strict=True)]
        verdicts = iter(self._sandbox.judge([check for checks in tests for check in checks]))
        passed = [sum(next(verdicts) is Verdict.PASSED for _ in checks) for checks in tests]
        return [count / len(checks) if checks else 0.0 for count, checks in zip(passed, tests, strict=True)]

    @cached_property
    def _sandbox(self) -> Sandbox:
        return Sandbox(LIMITS)


def _prompt(row: Row) -> str:
    messages = row.get("prompt")
    if isinstance(messages, list) and len(messages) == 1 and isinstance(messages[0], dict):
        content = messages[0].get("content")
        if messages[0].get("role") == "user" and isinstance(content, str) and content.strip():
            return content.strip()
    raise RowError("prompt is not one message of a user")


def _cases(row: Row) -> list[tuple[str, str]] | None:
    """Inputs and outputs of a row's tests; None where its tests are of another kind."""
    reward = row.get("reward_model")
    truth = reward.get("ground_truth") if isinstance(reward, dict) else None
    try:
        tests = json.loads(truth) if isinstance(truth, str) else None
    except ValueError:
        tests = None
    if not isinstance(tests, dict):
        raise RowError("reward_model.ground_truth is no JSON object")
    if "inputs" not in tests or "outputs" not in tests:
        return None
    inputs, outputs = tests["inputs"], tests["outputs"]
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
        raise RowError("inputs and outputs of its tests are no lists of the same length")
    if not all(isinstance(value, str) for value in (*inputs, *outputs)):
        return None  # arguments of a function, not texts
    return list(zip(inputs, outputs, strict=True))


def _tests(completion: str, target: str) -> list[Check]:
    """A check for each test of the program that a completion gives; none where it gives none."""
    programs = FENCED.findall(chat.answer(completion))
    if not programs:
        return []
    program = f"SOURCE = {programs[-1]!r}\n{RUN}"
    return [Check(program, "run", (given,), (_printed(wanted),)) for given, wanted in json.loads(target)]


def _printed(output: str) -> str:
    """An output as it is compared: without blanks at the ends of lines and around it."""
    return "\n".join(line.rstrip() for line in output.strip().splitlines())
