"""How much faster products of bfloat16 are when they are taken in float32, on a processor that is slow at them.

    python benchmarks/bfloat16_products.py    # about half a minute

Products of the shapes of SmolLM2-135M: a token of 64 responses, and 2,048 tokens, by its attention's, MLP's and a part of
its vocabulary's weights. In rounds, PyTorch's own kernel and that of `crossdomain.bfloat16_products` in turn, one thread.
The ratio is of median times, PyTorch's own to ours; float32's own time stands beside it. Nothing is widened, and so nothing
measured, where the processor has products of bfloat16. It is a measurement, not a test: no ratio fails.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from torch import Tensor
from torch.library import get_kernel

from crossdomain import bfloat16_products, paths, provenance

ROWS = (64, 2048)
WEIGHTS = {"attention": (576, 576), "MLP": (1536, 576), "vocabulary": (4096, 576)}  # outputs and inputs
ROUNDS = 9
OUTPUT = paths.runs() / "benchmarks" / "bfloat16_products.json"


def seconds(take: Callable[[], Tensor], repeats: int) -> float:
    """Of one product."""
    start = time.perf_counter()
    for _ in range(repeats):
        take()
    return (time.perf_counter() - start) / repeats


def main() -> int:
    """Measure, print and write the report; the exit status."""
    if not bfloat16_products.slow():
        print("not measured: this processor has products of bfloat16, which stay as they are")
        return 0
    plain = get_kernel("aten::mm", "CPU")  # before it is replaced
    bfloat16_products.take_in_float32()
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    print(f"{'weights':12}{'rows':>6}{'own':>10}{'widened':>10}{'ratio':>8}{'float32':>10}   (GFLOP a second)")
    rows = []
    for name, (outputs, inputs) in WEIGHTS.items():
        for count in ROWS:
            a, b = torch.randn(count, inputs), torch.randn(outputs, inputs).t()
            narrow = a.bfloat16(), b.bfloat16()
            ways: dict[str, Callable[[], Tensor]] = {
                "own": partial(plain.call_boxed, keys, *narrow),
                "widened": partial(torch.mm, *narrow),
                "float32": partial(torch.mm, a, b),
            }
            repeats = max(1, 4096 // count)
            times: dict[str, list[float]] = {way: [] for way in ways}
            with torch.inference_mode():
                for _ in range(ROUNDS):
                    for way, take in ways.items():
                        times[way].append(seconds(take, repeats))
            median = {way: statistics.median(found) for way, found in times.items()}
            rate = {way: 2e-9 * count * outputs * inputs / spent for way, spent in median.items()}
            ratio = median["own"] / median["widened"]
            print(
                f"{name:12}{count:>6}{rate['own']:>10.1f}{rate['widened']:>10.1f}{ratio:>8.1f}{rate['float32']:>10.1f}"
            )
            rows.append({"weights": name, "rows": count, "ratio": ratio, "gflop_a_second": rate})
    report = {
        "benchmark": "products of bfloat16: PyTorch's own to those taken in float32",
        "rows": rows,
        "load": os.getloadavg()[0],
        "hardware": provenance.hardware(),
        "versions": provenance.versions(provenance.PACKAGES),
        "commit": provenance.git_commit(),
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(report, indent=1))
    print(f"report in {OUTPUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
