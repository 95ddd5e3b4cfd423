"""Products taken a piece at a time against those of the whole model, and against dense autograd."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, hessian

from crossdomain import curvature, objectives
from crossdomain.curvature import ParameterSpace
from crossdomain.layerwise import Batch, Decoder
from crossdomain.layerwise_curvature import LayerwiseCurvature
from crossdomain.objectives import Parameters
from crossdomain.precision import Float64
from crossdomain.response_losses import negative_log_likelihood, own_divergence
from crossdomain.rollouts import Rollouts, microbatches
from families import CONFIGS, VOCABULARY, Held, model

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # a dependency's

# Qwen3 (within `Float64`) and GPT-2 compute in float64 throughout; Llama and Gemma 3 round to float32 inside.
TOLERANCE = {"qwen3": 1e-12, "gpt2": 1e-12, "llama": 1e-6, "gemma3": 1e-6}
ONE_PASS, ONE_BATCH = 2**30, 1  # bytes of hidden states: all rows in a pass, or a pass a microbatch
Losses = Callable[[Tensor, Batch], Tensor]


class Case:
    """A tiny model, sequences of different lengths, and a direction."""

    def __init__(self, family: str) -> None:
        self.model, self.decoder = model(family), Decoder(CONFIGS[family], torch.float64)
        self.params: Parameters = objectives.parameters(self.model)
        generator = torch.Generator().manual_seed(1)

        def tokens(length: int) -> list[int]:
            return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()

        self.prompts, self.responses = [tokens(n) for n in (3, 5, 2)], [tokens(n) for n in (4, 2, 6)]
        self.space = ParameterSpace(self.params)
        self.vector = torch.randn(self.space.size, generator=generator, dtype=torch.float64)
        self.direction = Held(self.space.unflatten(self.vector))
        rollouts = Rollouts("", "train", self.prompts, self.responses, torch.zeros(3, 1))
        self.likelihood = objectives.negative_log_likelihood(self.model, rollouts)
        self.divergence = objectives.kl(self.model, rollouts)

    def layerwise(self, losses: Losses, size: int = 2, states: int = ONE_PASS) -> LayerwiseCurvature:
        batches = microbatches(self.prompts, self.responses, size, torch.device("cpu"))
        return LayerwiseCurvature(self.decoder, Held(self.params), batches, losses, states=states)

    def moved(self, step: float) -> Parameters:
        return {name: value + step * self.direction.tensors[name] for name, value in self.params.items()}

    def total(self, parts: Iterator[tuple[str, Tensor]]) -> Tensor:
        found = {name: torch.zeros_like(value) for name, value in self.params.items()}
        for name, part in parts:
            found[name] += part
        return self.space.flatten(found)


@pytest.fixture(scope="module")
def case() -> Case:
    """GPT-2, which needs no context for float64."""
    return Case("gpt2")


def precise(family: str) -> contextlib.AbstractContextManager[object]:
    return Float64() if family == "qwen3" else contextlib.nullcontext()


def assert_equal(found: Tensor, expected: Tensor, relative: float = 1e-12) -> None:
    assert float((found - expected).norm() / expected.norm()) < relative


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(("size", "states"), [(3, ONE_PASS), (2, ONE_PASS), (1, ONE_BATCH)])
def test_products_equal_those_of_the_whole_model_whatever_the_microbatches(family: str, size: int, states: int) -> None:
    """With activations kept between pieces alone (here) and all of them (there)."""
    with precise(family):
        case, tolerance = Case(family), TOLERANCE[family]
        likelihood = case.layerwise(negative_log_likelihood, size, states)
        divergence = case.layerwise(own_divergence, size, states)
        hessian_product = curvature.hvp(case.likelihood, case.params, case.vector)
        gauss_newton = curvature.ggn_vp(case.likelihood, case.params, case.vector)
        fisher = curvature.ggn_vp(case.divergence, case.params, case.vector)
        assert_equal(case.total(likelihood.hvp(case.direction)), hessian_product, tolerance)
        assert_equal(case.total(likelihood.ggn_vp(case.direction)), gauss_newton, tolerance)
        assert_equal(case.total(divergence.ggn_vp(case.direction)), fisher, tolerance)
        assert_equal(case.total(divergence.hvp(case.direction)), fisher, tolerance)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("states", [ONE_PASS, ONE_BATCH])
def test_the_fisher_diagonal_equals_that_of_the_whole_model(family: str, states: int) -> None:
    with precise(family):
        case = Case(family)
        found = case.total(case.layerwise(negative_log_likelihood, 1, states).fisher_diagonal())
        assert_equal(found, curvature.fisher_diagonal(case.likelihood, case.params), TOLERANCE[family])


def test_the_block_of_a_layer_equals_its_rows_of_the_whole_product(case: Case) -> None:
    """H v on one layer's parameters, for a direction in all of them and for one in this layer alone."""
    for only in (None, "transformer.h.1."):
        vector = {
            name: value if only is None or name.startswith(only) else torch.zeros_like(value)
            for name, value in case.direction.tensors.items()
        }
        whole = case.space.unflatten(curvature.hvp(case.likelihood, case.params, case.space.flatten(vector)))
        parts = case.layerwise(negative_log_likelihood, 3).hvp(Held(vector))
        block = {name: part for name, part in parts if name.startswith("transformer.h.1.")}
        assert len(block) == 12
        for name, part in block.items():
            torch.testing.assert_close(part, whole[name], rtol=1e-10, atol=1e-12)


def test_a_product_equals_that_of_the_dense_hessian_of_one_matrix(case: Case) -> None:
    """By nested autograd of the plain mean loss, which knows nothing of objectives or pieces."""
    name = "transformer.h.2.mlp.c_proj.weight"

    def loss(weight: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for prompt, response in zip(case.prompts, case.responses, strict=True):
            ids = torch.tensor([prompt + response])
            logits = functional_call(case.model, {**case.params, name: weight}, kwargs={"input_ids": ids}).logits[0]
            logp = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            total = total - logp[range(len(response)), response].sum() / 3
        return total

    size = case.params[name].numel()
    dense = hessian(loss)(case.params[name]).reshape(size, size)
    alone = {n: v if n == name else torch.zeros_like(v) for n, v in case.direction.tensors.items()}
    found = dict(case.layerwise(negative_log_likelihood, 3).hvp(Held(alone)))[name].flatten()
    assert_equal(found, dense @ alone[name].flatten(), 1e-10)


def test_the_quadratic_form_of_each_row_needs_no_product_and_sums_to_it(case: Case) -> None:
    found = case.layerwise(own_divergence).quadratic_form(case.direction)
    product = curvature.ggn_vp(case.divergence, case.params, case.vector)
    assert found.shape == (3,)
    torch.testing.assert_close(found.mean(), 0.5 * product @ case.vector, rtol=1e-12, atol=0)
    step = 1e-4  # the divergence along the direction is the form, up to the third order
    along = case.divergence.per_prompt(case.moved(step)) / step**2
    torch.testing.assert_close(found, along, rtol=5e-3, atol=0)


def test_divergences_are_those_of_the_whole_model(case: Case) -> None:
    others = [case.moved(step) for step in (0.0, 0.01, -0.02)]
    found = case.layerwise(own_divergence).divergences([Held(other) for other in others])
    expected = torch.stack([case.divergence.per_prompt(other) for other in others])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    assert found.shape == (3, 3) and not found[0].any()


def test_progress_counts_the_pieces_of_products_diagonal_and_passes(case: Case) -> None:
    seen: list[int] = []
    for states in (ONE_PASS, ONE_BATCH):
        layerwise = case.layerwise(own_divergence, 1, states)
        layerwise.piece_done = lambda: seen.append(1)
        for copies, parts in ((2, layerwise.ggn_vp(case.direction)), (1, layerwise.fisher_diagonal())):
            seen.clear()
            for _ in parts:
                pass
            assert len(seen) == layerwise.steps(copies) == (1 if states == ONE_PASS else 3) * 9
        seen.clear()
        layerwise.quadratic_form(case.direction)
        assert len(seen) == 5


def test_microbatches_of_several_rows_are_refused_for_the_diagonal_and_no_rows_at_all(case: Case) -> None:
    with pytest.raises(ValueError, match="a microbatch has 2 rows: expected one"):
        next(case.layerwise(negative_log_likelihood, 2).fisher_diagonal())
    with pytest.raises(ValueError, match="at least one row"):
        LayerwiseCurvature(case.decoder, Held(case.params), [], own_divergence)
