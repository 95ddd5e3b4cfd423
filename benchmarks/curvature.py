"""What curvature costs: time and memory of Hessian-vector products, and of eigenpairs beside curvlinops.

    python benchmarks/curvature.py            # about 7 minutes on one idle core
    python benchmarks/curvature.py --quick    # about 3 minutes: the small model, and fewer eigenpairs

Measured on the `cpu` profile's model (0.8 million parameters) and on a Qwen3 of 93 million, with random weights and
tokens, one thread:

time      a Hessian-vector product against a gradient, taken in turn; medians (and a Gauss–Newton product)
memory    the peak of a process that loads the model and takes one, against one that takes a gradient. Loading alone is
          measured too: the net peak is what is added to it, the vector multiplied included
growth    both with four times the prompts: time should grow like them, memory not at all
eigenpairs  the 20 largest of the KL Hessian of a lightly trained `cpu` model, by SciPy's eigsh: every product that it
          asks for is taken by `spectrum.HessianOperator` and by curvlinops' Hessian operator in turn, with the same data

Every measurement has a process of its own. Times are those of the processor: with one thread they are the wall times of
an idle machine, and a busy one disturbs them less.

Exits with status 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from crossdomain import paths, provenance
from crossdomain.curvature import Hessian, ParameterSpace, ggn_vp, gradient, hvp
from crossdomain.domains import load_domain
from crossdomain.models import tiny_model, tiny_tokenizer
from crossdomain.objectives import (
    Objective,
    Parameters,
    importance_weighted,
    kl,
    negative_log_likelihood,
    parameters,
)
from crossdomain.profiles import load_profile
from crossdomain.rollouts import Rollouts, sample_rollouts
from crossdomain.spectrum import HessianOperator, residuals, top_eigenpairs
from crossdomain.training import quiet

T = TypeVar("T")

HVP_TIME, HVP_MEMORY = 4.0, 1.5  # limits, in gradients
GROWTH_TIME, GROWTH_MEMORY = 1.15, 1.05  # limits with four times the prompts: time over four, and memory
EIGENPAIRS_TIME = 1.0  # limit, in curvlinops' time
PRODUCTS = {"Hessian": hvp, "Gauss–Newton": ggn_vp}
TOLERANCE = 1e-3  # of eigenpairs
AGREEMENT = 1e-4  # limit of the relative difference of products, in float32

SIZES = {  # of microbatches, and shapes of sequences
    "cpu": {"rows": 512, "batch_size": 256, "prompt": 7, "response": 4},
    "large": {"rows": 32, "batch_size": 16, "prompt": 12, "response": 5},
}


def model_of(name: str) -> PreTrainedModel:
    """The `cpu` profile's model or the large one, with random weights."""
    torch.manual_seed(0)
    model: Any  # transformers types its models loosely
    if name == "cpu":
        model = tiny_model(load_profile("cpu"), tiny_tokenizer(), 0)
    else:
        model = Qwen3ForCausalLM(  # type: ignore[no-untyped-call]
            Qwen3Config(
                vocab_size=32_000,
                hidden_size=640,
                num_hidden_layers=14,
                intermediate_size=2_048,
                num_attention_heads=10,
                num_key_value_heads=5,
                head_dim=64,
                max_position_embeddings=256,
                tie_word_embeddings=True,
            )
        )
    model.set_attn_implementation("eager")
    model.eval()
    found: PreTrainedModel = model
    return found


def objective_of(model: PreTrainedModel, name: str, times: int = 1, loss: str = "weighted") -> Objective:
    """A loss on random tokens with random rewards."""
    size = SIZES[name]
    prompts = times * size["rows"] // 2
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int, length: int) -> list[list[int]]:
        found = torch.randint(3, model.config.vocab_size, (count, length), generator=generator)
        return [row.tolist() for row in found]

    rollouts = Rollouts(
        "random tokens",
        "train",
        tokens(prompts, size["prompt"]),
        tokens(2 * prompts, size["response"]),
        torch.rand(prompts, 2, generator=generator),
    )
    make = {"weighted": importance_weighted, "kl": kl}[loss]
    return make(model, rollouts, batch_size=size["batch_size"])


def random_vector(params: Parameters) -> Tensor:
    """A direction of unit length, shape (p,)."""
    vector = torch.randn(ParameterSpace(params).size, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(vector, dim=0)


def processor_seconds(function: Callable[[], object]) -> float:
    """What a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def time_ratio(name: str, loss: str, product: str, repeats: int) -> dict[str, float]:
    """Median seconds of gradient and product, taken in turn."""
    model = model_of(name)
    objective, params = objective_of(model, name, loss=loss), parameters(model)
    vector, multiply = random_vector(params), PRODUCTS[product]
    calls: dict[str, Callable[[], object]] = {
        "gradient": lambda: gradient(objective, params),
        "product": lambda: multiply(objective, params, vector),
    }
    seconds: dict[str, list[float]] = {call: [] for call in calls}
    for _ in range(repeats + 1):
        for call, function in calls.items():
            seconds[call].append(processor_seconds(function))
    medians = {call: statistics.median(values[1:]) for call, values in seconds.items()}  # the first warms up
    return {**medians, "ratio": medians["product"] / medians["gradient"]}


def peak(name: str, work: str, times: int = 1) -> float:
    """Peak memory, in MiB, of a process that loads model and data and does some work on two microbatches or more."""
    model = model_of(name)
    objective, params = objective_of(model, name, times), parameters(model)
    if work == "gradient":
        gradient(objective, params)
    elif work == "product":
        hvp(objective, params, random_vector(params))
    return 1024 * provenance.peak_memory_gib()


def memory(name: str) -> dict[str, float]:
    """Peaks of processes that load, take a gradient, and take a product."""
    loading, of_gradient, of_product = (in_own_process(peak, name, work) for work in ("loading", "gradient", "product"))
    return {
        "loading": loading,
        "gradient": of_gradient,
        "product": of_product,
        "ratio": of_product / of_gradient,
        "net_ratio": (of_product - loading) / (of_gradient - loading),
    }


def growth(work: str, repeats: int) -> dict[str, float]:
    """Time and peak with four times the prompts, over those with the prompts alone."""
    seconds = in_own_process(seconds_by_prompts, work, repeats)
    peaks = [in_own_process(peak, "cpu", work, times) for times in (1, 4)]
    return {"time_ratio": seconds[1] / seconds[0] / 4, "memory_ratio": peaks[1] / peaks[0]}


def seconds_by_prompts(work: str, repeats: int) -> list[float]:
    """Median seconds with the prompts and with four times as many, taken in turn."""
    model = model_of("cpu")
    params = parameters(model)
    vector = random_vector(params)
    compute: Callable[[Objective, Parameters], Tensor] = (
        gradient if work == "gradient" else functools.partial(hvp, vector=vector)
    )
    objectives = [objective_of(model, "cpu", times) for times in (1, 4)]
    compute(objectives[0], params)  # warms up
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        for objective, found in zip(objectives, seconds, strict=True):
            found.append(processor_seconds(functools.partial(compute, objective, params)))
    return [statistics.median(values) for values in seconds]


def lightly_trained(rows: int, steps: int) -> tuple[PreTrainedModel, Rollouts]:
    """The `cpu` model after some steps of imitating Math's answers, and its own rollouts, one a prompt."""
    model, tokenizer, profile, domain = (
        model_of("cpu"),
        tiny_tokenizer(),
        load_profile("cpu"),
        load_domain("arithmetic"),
    )
    items = domain.items("train")[:rows]
    prompts = tokenizer([item.prompt for item in items])["input_ids"]
    answers = tokenizer([item.target + tokenizer.eos_token for item in items], add_special_tokens=False)["input_ids"]
    shown = Rollouts(domain.title, "train", prompts, answers, torch.ones(len(items), 1))
    objective, space = negative_log_likelihood(model, shown), ParameterSpace(parameters(model))
    theta = space.flatten(parameters(model))
    optimizer = torch.optim.Adam([theta], lr=1e-3)
    for _ in range(steps):
        theta.grad = gradient(objective, space.unflatten(theta))
        optimizer.step()
    nn.utils.vector_to_parameters(theta, model.parameters())
    return model, sample_rollouts(model, tokenizer, profile, domain, items, split="train", samples=1, seed=0)


class ElementarySiLU(nn.Module):
    """x σ(x) written out: curvlinops' way of differentiating knows no second derivative of torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        """The same values."""
        return x * torch.sigmoid(x)


class RowLosses(nn.Module):
    """An objective's losses by row as outputs of a module, as curvlinops wants it."""

    def __init__(self, model: PreTrainedModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Losses, shape (rows,)."""
        return self.objective.losses(self.objective.outputs(dict(self.model.named_parameters()), batch), batch)


class Mean(nn.Module):
    """What a microbatch adds to the mean over all rows."""

    reduction = "sum"  # microbatches add up

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, losses: Tensor, _: Tensor) -> Tensor:
        """A scalar."""
        return losses.sum() / self.rows


def curvlinops_operator(model: PreTrainedModel, rollouts: Rollouts) -> LinearOperator:
    """The Hessian of the same KL as curvlinops takes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from curvlinops import HessianLinearOperator  # type: ignore[import-untyped]

    model = copy.deepcopy(model)
    for layer in model.model.layers:
        layer.mlp.act_fn = ElementarySiLU()
    objective = kl(model, rollouts)
    operator: LinearOperator = HessianLinearOperator(
        RowLosses(model, objective),
        Mean(objective.rows),
        list(model.parameters()),
        [(dict(batch), torch.zeros(1)) for batch in objective.microbatches],
        batch_size_fn=lambda batch: len(batch["ids"]),
        check_deterministic=False,
    ).to_scipy(np.float32)
    return operator


class Race(LinearOperator):
    """An operator whose products are taken by several in turn, each timed; the first one's are used."""

    def __init__(self, operators: dict[str, LinearOperator]) -> None:
        self.operators = operators
        self.seconds = dict.fromkeys(operators, 0.0)
        self.products, self.difference = 0, 0.0
        first = next(iter(operators.values()))
        super().__init__(dtype=first.dtype, shape=first.shape)  # type: ignore[call-arg]  # SciPy's types lack it

    def _matvec(self, x: Any) -> Any:
        found = []
        for name, operator in self.operators.items():
            start = time.process_time()
            found.append(operator.matvec(x))
            self.seconds[name] += time.process_time() - start
        self.products += 1
        apart = max(np.linalg.norm(other - found[0]) / np.linalg.norm(found[0]) for other in found[1:])
        self.difference = max(self.difference, float(apart))
        return found[0]


def eigenpairs(rows: int, k: int, steps: int) -> dict[str, Any]:
    """The k largest eigenvalues of a KL Hessian, every product taken by this project and by curvlinops."""
    model, rollouts = lightly_trained(rows, steps)
    params = parameters(model)
    race = Race(
        {
            "ours": HessianOperator(Hessian(kl(model, rollouts), params), params),
            "curvlinops": curvlinops_operator(model, rollouts),
        }
    )
    race.matvec(random_vector(params).numpy())  # warms up
    race.seconds = dict.fromkeys(race.operators, 0.0)
    found = top_eigenpairs(race, k, tol=TOLERANCE)
    return {
        "rows": rows,
        "k": k,
        "seconds": race.seconds,
        "products": race.products,
        "largest_relative_residual": float((residuals(race, found) / found.values).max()),
        "largest_relative_difference": race.difference,
        "eigenvalues": found.values.tolist(),
        "ratio": race.seconds["ours"] / race.seconds["curvlinops"],
    }


def in_own_process(function: Callable[..., T], *arguments: object) -> T:
    """The function's result from a fresh process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def checks(quick: bool) -> Iterator[dict[str, Any]]:
    """Measure one thing after the other: what it is, its value, its limit and details."""

    def check(what: str, value: float, limit: float, details: dict[str, Any]) -> dict[str, Any]:
        return {"what": what, "value": value, "limit": limit, "passed": value <= limit, "details": details}

    names = ["cpu"] if quick else ["cpu", "large"]
    cases = [("cpu", "weighted", "Hessian", 4), ("cpu", "kl", "Hessian", 4), ("cpu", "kl", "Gauss–Newton", 4)]
    for case in cases if quick else [*cases, ("large", "weighted", "Hessian", 2)]:
        found = in_own_process(time_ratio, *case)
        name, loss, product, _ = case
        yield check(f"time of a {product} product in gradients, {name} model, {loss}", found["ratio"], HVP_TIME, found)
    for name in names:
        found = memory(name)
        yield check(f"peak memory of a product in gradients, {name} model", found["ratio"], HVP_MEMORY, found)
    for work in ("gradient", "product"):
        found = growth(work, 2 if quick else 3)
        yield check(f"time of a {work} with 4 times the prompts, over 4", found["time_ratio"], GROWTH_TIME, found)
        yield check(f"peak memory of a {work} with 4 times the prompts", found["memory_ratio"], GROWTH_MEMORY, {})
    rows, k = 256, 5 if quick else 20
    pairs = in_own_process(eigenpairs, rows, k, 20)
    yield check(f"time of {k} eigenpairs on {rows} prompts, in curvlinops'", pairs["ratio"], EIGENPAIRS_TIME, pairs)
    yield check(
        "relative difference of a product from curvlinops'", pairs["largest_relative_difference"], AGREEMENT, {}
    )


def show(found: dict[str, Any]) -> None:
    """Print a check."""
    verdict = "" if found["passed"] else "   BROKEN"
    print(f"{found['what']:68}{found['value']:9.3g}   limit {found['limit']:g}{verdict}")
    for key, value in found["details"].items():
        if isinstance(value, dict):
            print(f"    {key}: " + "; ".join(f"{name} {number:.3g}" for name, number in value.items()))
        elif isinstance(value, float):
            print(f"    {key} {value:.4g}")
    sys.stdout.flush()


def main() -> int:
    """Measure, print and write the report; the exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the small model alone, and fewer eigenpairs")
    parser.add_argument("--output", type=Path, default=paths.runs() / "benchmarks" / "curvature.json", help="report")
    options = parser.parse_args()
    quiet()
    found = []
    for result in checks(options.quick):
        show(result)
        found.append(result)
    passed = all(result["passed"] for result in found)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps(
            {
                "benchmark": "curvature: Hessian-vector products and eigenpairs",
                "passed": passed,
                "quick": options.quick,
                "load_average": os.getloadavg()[0],
                "hardware": provenance.hardware(),
                "versions": provenance.versions((*provenance.PACKAGES, "curvlinops-for-pytorch")),
                "commit": provenance.git_commit(),
                "checks": found,
            },
            indent=1,
        )
    )
    broken = [result["what"] for result in found if not result["passed"]]
    print(
        f"\n{'all within limits' if passed else 'NOT within limits: ' + '; '.join(broken)}; report in {options.output}"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
