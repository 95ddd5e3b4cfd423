"""What scoring routes costs beside the plain forward pass over the same sequences, and whether its memory stays bounded.

    python benchmarks/routes.py

`route_scores` (contribution and activation; setting up, padding and the table included) is timed against padding the same
batches and running the same base model without hooks. The vocabulary's head is run by neither: with it the ratio would
be smaller. Passes of both alternate in one process, so that a busy machine slows both; the ratio is of median wall times.
Processor times are beside it: with one thread they are the wall times of an idle machine.

Peak memory is that of fresh processes that score a number of sequences and four times as many (`ru_maxrss`, everything
counted).

Exits with status 1 if a ratio is above `--limit`, or if memory grows by more than `MEMORY_LIMIT` with four times the
sequences.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from crossdomain import paths, provenance
from crossdomain.models import tiny_model, tiny_tokenizer
from crossdomain.profiles import load_profile
from crossdomain.routes import route_scores
from crossdomain.training import quiet

PAD = 0
LARGE = {
    "hidden_size": 768,
    "layers": 12,
    "intermediate_size": 3072,
    "attention_heads": 12,
    "key_value_heads": 4,
    "head_dim": 64,
}
MEMORY_LIMIT = 32.0  # MiB
MEMORY_SEQUENCES = 1000


def qwen3(overrides: dict[str, Any]) -> PreTrainedModel:
    """The model of the cpu profile, with some of its sizes changed and random weights."""
    return tiny_model(load_profile("cpu", overrides), tiny_tokenizer(), seed=0)


def sequences(number: int, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of 6 to 18 and responses of 2 to 12 random tokens: about the lengths of the toy domains."""
    generator = np.random.default_rng(seed)

    def draw(low: int, high: int) -> list[list[int]]:
        return [generator.integers(3, 77, size).tolist() for size in generator.integers(low, high + 1, number)]

    return draw(6, 18), draw(2, 12)


@torch.no_grad()
def forward(
    model: PreTrainedModel, prompts: Sequence[list[int]], responses: Sequence[list[int]], batch_size: int
) -> None:
    """The plain pass."""
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        rows = [prompt + response for prompt, response in zip(prompts[part], responses[part], strict=True)]
        width = max(map(len, rows))
        ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)


def measure(model: PreTrainedModel, number: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """Seconds of both passes, in turn; the first round is not counted."""
    model.train(False)
    prompts, responses = sequences(number)
    passes: dict[str, Callable[[], object]] = {
        "plain": lambda: forward(model, prompts, responses, batch_size),
        "routes": lambda: route_scores(model, PAD, prompts, responses, batch_size=batch_size),
    }
    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in passes}
    for turn in range(rounds + 1):
        for name in sorted(passes, reverse=bool(turn % 2)):  # each goes first as often as the other
            wall, cpu = time.perf_counter(), time.process_time()
            passes[name]()
            laps[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    seconds = {
        clock: {name: statistics.median(lap[i] for lap in laps[name][1:]) for name in passes}
        for i, clock in enumerate(("wall", "cpu"))
    }
    return {
        "parameters": model.num_parameters(),
        "sequences": number,
        "batch_size": batch_size,
        "rounds": rounds,
        "seconds": seconds,
        "ratio": seconds["wall"]["routes"] / seconds["wall"]["plain"],
        "cpu_ratio": seconds["cpu"]["routes"] / seconds["cpu"]["plain"],
        "load_average": os.getloadavg()[0],
    }


def peak_memory(number: int) -> float:
    """Peak resident MiB of a fresh process that scores so many sequences."""
    command = [sys.executable, __file__, "--peak-of", str(number)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_peak(number: int) -> None:
    """What that process does."""
    route_scores(qwen3({}), PAD, *sequences(number))
    print(1024 * provenance.peak_memory_gib())


def memory() -> dict[str, Any]:
    """Peaks of a number of sequences and four times as many, and what keeping all activations would add."""
    few, many = MEMORY_SEQUENCES, 4 * MEMORY_SEQUENCES
    peaks = {number: peak_memory(number) for number in (few, many)}
    profile = load_profile("cpu")
    tokens = sum(len(row) for rows in sequences(many) for row in rows[few:])
    units = profile.layers * (profile.intermediate_size + profile.attention_heads * profile.head_dim)
    return {"peak_mib": peaks, "growth_mib": peaks[many] - peaks[few], "activations_mib": 4 * tokens * units / 2**20}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="timed passes of each over the tiny model")
    parser.add_argument("--large-rounds", type=int, default=5, help="timed passes of each over the large one")
    parser.add_argument("--limit", type=float, default=1.2, help="the largest ratio that is not a failure")
    parser.add_argument("--output", type=Path, default=paths.runs() / "benchmarks" / "routes.json", help="report")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1 or options.large_rounds < 1:
        parser.error("--rounds and --large-rounds must be at least 1")
    return options


def main() -> int:
    """Time both models, measure memory, print and write the report; the exit status."""
    options = arguments()
    quiet()
    if options.peak_of is not None:
        print_peak(options.peak_of)
        return 0
    used = memory()  # first: a process begins with the peak of the one that started it
    timed = {
        "cpu profile": measure(qwen3({}), number=256, batch_size=64, rounds=options.rounds),
        "100M": measure(qwen3(LARGE), number=16, batch_size=8, rounds=options.large_rounds),
    }
    passed = used["growth_mib"] <= MEMORY_LIMIT and all(found["ratio"] <= options.limit for found in timed.values())
    print(f"{'median seconds a pass':34}{'plain':>9}{'routes':>9}{'ratio':>8}")
    for name, found in timed.items():
        for clock, ratio in (("wall", found["ratio"]), ("cpu", found["cpu_ratio"])):
            label, seconds = f"{name}, {found['sequences']} sequences, {clock}", found["seconds"][clock]
            print(f"{label:34}{seconds['plain']:9.3f}{seconds['routes']:9.3f}{ratio:8.3f}")
    print("peak memory: " + ", ".join(f"{peak:.0f} MiB for {n} sequences" for n, peak in used["peak_mib"].items()))
    print(
        f"  growth {used['growth_mib']:.1f} MiB (limit {MEMORY_LIMIT:g}); keeping the added activations would take "
        f"{used['activations_mib']:.0f} MiB"
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps(
            {
                "benchmark": "route scores against the plain forward pass",
                "limit": options.limit,
                "memory_limit_mib": MEMORY_LIMIT,
                "passed": passed,
                "hardware": provenance.hardware(),
                "versions": provenance.versions(),
                "commit": provenance.git_commit(),
                "models": timed,
                "memory": used,
            },
            indent=1,
        )
    )
    print(f"{'within' if passed else 'NOT within'} the limits; report in {options.output}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
