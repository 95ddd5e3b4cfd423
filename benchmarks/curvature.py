"""What curvature costs: time and memory of Hessian-vector products, and of eigenpairs beside curvlinops.

    python benchmarks/curvature.py            # about 8 minutes on one core
    python benchmarks/curvature.py --quick    # about 2 minutes, on fewer prompts

Measured on the `cpu` profile's model (0.8 million parameters) and on a Qwen3 of 93 million, with random weights and
tokens, one thread:

time      a Hessian-vector product against a gradient, taken in turn; medians
memory    the peak of a process that loads the model and takes one, against one that takes a gradient. Loading alone is
          measured too: the net peak is what is added to it, the vector multiplied included
growth    both with four times the prompts: time should grow like them, memory not at all
eigenpairs  the 20 largest of the KL Hessian of a lightly trained `cpu` model: `spectrum.top_eigenpairs` against SciPy's
          eigsh on curvlinops' Hessian operator, with the same data, starting vector and tolerance

Every measurement has a process of its own. Times are those of the processor: with one thread they are the wall times of
an idle machine, and a busy one disturbs them less.

Exits with status 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from crossdomain import paths, provenance
from crossdomain.curvature import ParameterSpace, gradient, hvp
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
from crossdomain.spectrum import HessianOperator, top_eigenpairs
from crossdomain.training import quiet

HVP_TIME, HVP_MEMORY = 4.0, 1.5  # limits, in gradients
GROWTH_TIME, GROWTH_MEMORY = 1.15, 1.05  # limits with four times the prompts: time over four, and memory
EIGENPAIRS_TIME = 1.0  # limit, in curvlinops' time
TOLERANCE = 1e-3

SIZES = {  # of microbatches, and shapes of sequences
    "cpu": {"rows": 512, "batch_size": 256, "prompt": 7, "response": 4},
    "large": {"rows": 16, "batch_size": 8, "prompt": 12, "response": 5},
}


def model_of(name: str) -> PreTrainedModel:
    """The `cpu` profile's model or the large one, with random weights."""
    torch.manual_seed(0)
    model: PreTrainedModel
    if name == "cpu":
        model = tiny_model(load_profile("cpu"), tiny_tokenizer(), 0)
    else:
        model = Qwen3ForCausalLM(
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
    return model.eval()


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
    return vector / vector.norm()


def processor_seconds(function: Callable[[], object]) -> float:
    """What a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def time_ratio(name: str, loss: str, repeats: int) -> dict[str, Any]:
    """Medians of gradient and product, taken in turn."""
    model = model_of(name)
    objective, params = objective_of(model, name, loss=loss), parameters(model)
    vector = random_vector(params)
    calls = {"gradient": lambda: gradient(objective, params), "product": lambda: hvp(objective, params, vector)}
    seconds: dict[str, list[float]] = {call: [] for call in calls}
    for _ in range(repeats + 1):
        for call, function in calls.items():
            seconds[call].append(processor_seconds(function))
    medians = {call: statistics.median(values[1:]) for call, values in seconds.items()}  # the first warms up
    return {**medians, "ratio": medians["product"] / medians["gradient"], "parameters": len(vector)}


def cost(name: str, work: str, times: int = 1) -> dict[str, float]:
    """Peak memory of this process, in MiB, once it has done some work; and the seconds a second go takes."""
    model = model_of(name)
    objective, params = objective_of(model, name, times), parameters(model)
    seconds = math.nan
    if work == "gradient":
        gradient(objective, params)
        seconds = processor_seconds(lambda: gradient(objective, params))
    elif work == "product":
        vector = random_vector(params)
        hvp(objective, params, vector)
        seconds = min(processor_seconds(lambda: hvp(objective, params, vector)) for _ in range(2))
    return {"peak": 1024 * provenance.peak_memory_gib(), "seconds": seconds}


def lightly_trained(rows: int, steps: int) -> tuple[PreTrainedModel, Rollouts]:
    """The `cpu` model after some steps of imitating Math's answers, and its own rollouts, two a prompt."""
    model, tokenizer, profile, domain = model_of("cpu"), tiny_tokenizer(), load_profile("cpu"), load_domain("arithmetic")
    items = domain.items("train")[: rows // 2]
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
    return model, sample_rollouts(model, tokenizer, profile, domain, items, split="train", samples=2, seed=0)


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
        from curvlinops import HessianLinearOperator

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


def eigenpairs(rows: int, k: int, steps: int) -> dict[str, Any]:
    """The k largest eigenvalues of the KL Hessian, by the project's operator and by curvlinops'."""
    model, rollouts = lightly_trained(rows, steps)
    operators = {"ours": HessianOperator(kl(model, rollouts), parameters(model)), "curvlinops": curvlinops_operator(model, rollouts)}
    report: dict[str, Any] = {"rows": rows, "k": k}
    values = {}
    for name, operator in operators.items():
        start = time.process_time()
        found = top_eigenpairs(operator, k, tol=TOLERANCE)
        report[name] = {
            "seconds": time.process_time() - start,
            "largest_residual": float((found.residuals / found.values).max()),
        }
        values[name] = found.values
    ours = operators["ours"]
    report["products"] = ours.products
    report["difference"] = float(np.abs(values["ours"] / values["curvlinops"] - 1).max())
    report["eigenvalues"] = values["ours"].tolist()
    report["ratio"] = report["ours"]["seconds"] / report["curvlinops"]["seconds"]
    return report
