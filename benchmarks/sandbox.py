"""How many programs a second the sandbox judges, against the same interpreter without it.

    python benchmarks/sandbox.py

Both judge the same programs: right answers to tasks of `python_functions`, all different. `sandboxed` is `Sandbox.judge`
as rewards use it; `plain` starts the same interpreter with the same options on the same child, as many at a time, without
bubblewrap. Rounds of both alternate in one run, so that a busy machine slows both.

The ratio is of median rates, sandboxed to plain. On a busy machine it still holds; the absolute rate does not.

Exits with status 1 if the sandbox is slower than `--limit` of plain, or than `--rate` programs a second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crossdomain import paths, provenance, sandbox_child
from crossdomain.progress import Progress
from crossdomain.sandbox import ENVIRONMENT, OPTIONS, Check, Sandbox, Verdict, interpreter

INPUTS = tuple(range(-1, 10))


def programs(number: int, start: int) -> list[Check]:
    """That many different programs, all right."""
    return [
        Check(
            f"def f(x):\n    return x * {k} + {k} if x > 3 else x",
            "f",
            INPUTS,
            tuple(x * k + k if x > 3 else x for x in INPUTS),
        )
        for k in range(start, start + number)
    ]


def sandboxed(sandbox: Sandbox, checks: Sequence[Check]) -> bool:
    """Whether all pass in the sandbox."""
    return set(sandbox.judge(checks)) == {Verdict.PASSED}


def plain(sandbox: Sandbox, checks: Sequence[Check]) -> bool:
    """Whether all report what is expected when their interpreters are started without a sandbox."""
    command = [interpreter(), *OPTIONS, "-c", Path(sandbox_child.__file__).read_text()]

    def report(check: Check) -> bytes:
        done = subprocess.run(
            command,
            input=sandbox.request(check),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            check=True,
        )
        return done.stderr.removeprefix(sandbox_child.READY)

    with ThreadPoolExecutor(sandbox.workers) as pool:
        reports = [*pool.map(report, checks)]
    return reports == [repr([repr(value) for value in check.expected]).encode() for check in checks]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=40, help="programs a round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each")
    parser.add_argument("--workers", type=int, default=2, help="programs at a time")
    parser.add_argument("--limit", type=float, default=0.4, help="least ratio of rates, sandboxed to plain")
    parser.add_argument("--rate", type=float, default=20, help="fewest programs a second in the sandbox")
    parser.add_argument("--output", type=Path, default=paths.runs() / "benchmarks" / "sandbox.json")
    return parser.parse_args()


def main() -> int:
    """Time both, print and write the report; the exit status."""
    options = arguments()
    sandbox = Sandbox(workers=options.workers)
    times: dict[str, list[float]] = {"plain": [], "sandboxed": []}
    with Progress("sandbox benchmark", options.rounds) as progress:
        for i in range(options.rounds):
            checks = programs(options.programs, 2 + i * options.programs)
            for judge in (plain, sandboxed):
                start = time.perf_counter()
                right = judge(sandbox, checks)
                times[judge.__name__].append(time.perf_counter() - start)
                if not right:
                    raise RuntimeError(f"{judge.__name__}: right programs are not judged right")
            progress.to(i + 1)
    rates = {name: options.programs / statistics.median(laps) for name, laps in times.items()}
    ratio = rates["sandboxed"] / rates["plain"]
    passed = ratio >= options.limit and rates["sandboxed"] >= options.rate
    for name, rate in rates.items():
        print(f"{name:12}{rate:8.1f} programs a second")
    print(f"ratio {ratio:.2f} (limit {options.limit:g}), {options.workers} at a time, load {os.getloadavg()[0]:.1f}")
    report = {
        "benchmark": "programs judged in the sandbox against the plain interpreter",
        "ratio": ratio,
        "limit": options.limit,
        "rate_limit": options.rate,
        "passed": passed,
        "workers": options.workers,
        "load": os.getloadavg()[0],
        "programs_a_second": rates,
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
        "commit": provenance.git_commit(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1))
    print(f"{'fast enough' if passed else 'TOO SLOW'}; report in {options.output}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
