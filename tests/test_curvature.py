"""Derivatives against closed forms, dense matrices, finite differences and curvlinops."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from crossdomain import curvature
from crossdomain.curvature import Hessian, ParameterSpace, fisher_diagonal, fisher_vp, ggn_vp, gradient, hvp
from crossdomain.domains import load_domain
from crossdomain.models import tiny_model, tiny_tokenizer
from crossdomain.objectives import (
    Microbatch,
    Objective,
    Parameters,
    exact_reward,
    importance_weighted,
    kl,
    negative_log_likelihood,
    parameters,
)
from crossdomain.precision import Float64
from crossdomain.profiles import load_profile
from crossdomain.rollouts import Rollouts

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)  # a dependency's
    import curvlinops

# Forward differentiation loads a part of torch that torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

Product = Callable[[Objective, Parameters, Tensor], Tensor]


def hvp_again(objective: Objective, params: Parameters, vector: Tensor) -> Tensor:
    """The second product of a `Hessian`, which may keep what the first one computed."""
    hessian = Hessian(objective, params)
    hessian(torch.ones_like(vector))
    return hessian(vector)


PRODUCTS = [hvp, hvp_again, ggn_vp, fisher_vp]


@pytest.fixture
def double() -> Iterator[None]:
    """Finite differences need the digits."""
    with Float64():
        yield


# --- A quadratic ---

ROWS = 7


def linear_regression(size: int = 3) -> tuple[Objective, dict[str, Tensor], Tensor, Tensor]:
    """½‖A_i θ − b_i‖² on rows i, with θ in two tensors; A of shape (rows, 2, 10)."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(ROWS, 2, 10, generator=generator, dtype=torch.float64)
    b = torch.randn(ROWS, 2, generator=generator, dtype=torch.float64)

    def outputs(params: Parameters, batch: Microbatch) -> Tensor:
        return batch["A"] @ torch.cat([params["first"].reshape(-1), params["second"]]) - batch["b"]

    def losses(outputs: Tensor, batch: Microbatch) -> Tensor:
        return outputs.square().sum(1) / 2

    batches = [{"A": A[i : i + size], "b": b[i : i + size]} for i in range(0, ROWS, size)]
    theta = torch.randn(10, generator=generator, dtype=torch.float64)
    params = {"first": theta[:6].reshape(2, 3), "second": theta[6:]}
    return Objective("squared error", "rows", batches, outputs, losses), params, A, b


def test_a_quadratic_has_its_closed_form() -> None:
    objective, params, A, b = linear_regression()
    theta = torch.cat([params["first"].flatten(), params["second"]])
    errors = torch.einsum("nij,j->ni", A, theta) - b
    by_row = torch.einsum("nij,ni->nj", A, errors)
    H = torch.einsum("nij,nik->jk", A, A) / ROWS
    fisher = by_row.T @ by_row / ROWS
    v = torch.linspace(-1, 1, 10, dtype=torch.float64)
    torch.testing.assert_close(gradient(objective, params), by_row.mean(0), rtol=1e-12, atol=1e-12)
    for product, matrix in ((hvp, H), (ggn_vp, H), (fisher_vp, fisher)):
        torch.testing.assert_close(product(objective, params, v), matrix @ v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fisher_diagonal(objective, params), fisher.diagonal(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("batch_size", "most"), [(0, 2), (3, 1), (6, 2), (100, 5)])
def test_second_derivatives_take_a_third_of_the_rows_that_memory_allows(batch_size: int, most: int) -> None:
    objective, params, A, _ = linear_regression(size=5)
    seen = []

    def outputs(params: Parameters, batch: Microbatch) -> Tensor:
        seen.append(len(batch["A"]))
        return objective.outputs(params, batch)

    v = torch.ones(10, dtype=torch.float64)
    product = hvp(replace(objective, outputs=outputs, batch_size=batch_size), params, v)
    assert max(seen) == most
    assert sum(seen) == ROWS
    torch.testing.assert_close(product, torch.einsum("nij,nik,k->j", A, A, v) / ROWS)


@pytest.mark.parametrize(("batch_size", "forwards"), [(21, 1), (3, 3 * ROWS)])
def test_the_gradients_graph_is_kept_where_memory_allows_all_rows(batch_size: int, forwards: int) -> None:
    objective, params, A, _ = linear_regression(size=ROWS)
    seen = []

    def outputs(params: Parameters, batch: Microbatch) -> Tensor:
        seen.append(len(batch["A"]))
        return objective.outputs(params, batch)

    hessian = Hessian(replace(objective, outputs=outputs, batch_size=batch_size), params)
    for v in torch.eye(10, dtype=torch.float64)[:3]:
        torch.testing.assert_close(hessian(v), torch.einsum("nij,nik,k->j", A, A, v) / ROWS)
    assert len(seen) == forwards


def test_a_linear_loss_has_no_curvature() -> None:
    objective, params, A, _ = linear_regression()
    linear = replace(objective, losses=lambda outputs, batch: outputs.sum(1))
    v = torch.ones(10, dtype=torch.float64)
    torch.testing.assert_close(gradient(linear, params), A.sum(1).mean(0))
    assert not hvp(linear, params, v).any()
    assert not ggn_vp(linear, params, v).any()


def test_parameters_the_loss_does_not_depend_on_have_zero_derivatives() -> None:
    objective, params, *_ = linear_regression()
    more = {"unused": torch.ones(4, dtype=torch.float64), **params}
    v = torch.ones(14, dtype=torch.float64)
    results = [gradient(objective, more), fisher_diagonal(objective, more)]
    for found in (*results, *(product(objective, more, v) for product in PRODUCTS)):
        assert found.shape == (14,)
        assert not found[:4].any()
        assert found[4:].all()


# --- A network small enough for dense matrices ---


def network(size: int = 4) -> tuple[Objective, dict[str, Tensor]]:
    """Two layers, three classes, eleven rows."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    params = {"W": normal(5, 4), "c": normal(5), "V": normal(3, 5)}
    x, y = normal(11, 4), torch.arange(11) % 3

    def outputs(params: Parameters, batch: Microbatch) -> Tensor:
        return torch.tanh(batch["x"] @ params["W"].T + params["c"]) @ params["V"].T

    def losses(outputs: Tensor, batch: Microbatch) -> Tensor:
        return F.cross_entropy(outputs, batch["y"], reduction="none")

    batches = [{"x": x[i : i + size], "y": y[i : i + size]} for i in range(0, 11, size)]
    return Objective("cross-entropy", "rows", batches, outputs, losses), params


def dense(objective: Objective, params: Parameters) -> dict[str, Tensor]:
    """Gradients by row, Hessian and Gauss–Newton matrix, each in the obvious way."""
    space = ParameterSpace(params)
    whole = {name: torch.cat([batch[name] for batch in objective.microbatches]) for name in ("x", "y")}
    theta = space.flatten(params)

    def outputs(vector: Tensor) -> Tensor:
        return objective.outputs(space.unflatten(vector), whole)

    def rows(vector: Tensor) -> Tensor:
        return objective.losses(outputs(vector), whole)

    J = torch.autograd.functional.jacobian(outputs, theta)  # (rows, classes, p)
    p = outputs(theta).softmax(1)
    return {
        "rows": torch.autograd.functional.jacobian(rows, theta),
        "hessian": torch.autograd.functional.hessian(lambda vector: rows(vector).mean(), theta),
        "ggn": torch.einsum("nip,nij,njq->pq", J, torch.diag_embed(p) - p[:, :, None] * p[:, None], J) / len(p),
    }


@pytest.mark.parametrize("size", [1, 4, 11])
def test_products_on_a_network_are_those_of_dense_matrices(size: int) -> None:
    objective, params = network(size)
    expected = dense(objective, params)
    by_row = expected["rows"]
    fisher = by_row.T @ by_row / len(by_row)
    v = torch.randn(len(fisher), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(gradient(objective, params), by_row.mean(0), rtol=1e-10, atol=1e-12)
    for product, matrix in (
        (hvp, expected["hessian"]),
        (hvp_again, expected["hessian"]),
        (ggn_vp, expected["ggn"]),
        (fisher_vp, fisher),
    ):
        torch.testing.assert_close(product(objective, params, v), matrix @ v, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fisher_diagonal(objective, params), fisher.diagonal(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("elements", [1, 80, 10**6])
def test_rows_held_at_a_time_do_not_change_the_fisher_diagonal(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, params = network(11)
    expected = fisher_diagonal(objective, params)
    monkeypatch.setattr(curvature, "PER_ROW_ELEMENTS", elements)
    torch.testing.assert_close(fisher_diagonal(objective, params), expected, rtol=1e-12, atol=1e-14)


VECTORS = st.lists(st.floats(-10, 10), min_size=40, max_size=40).map(lambda v: torch.tensor(v, dtype=torch.float64))


@given(VECTORS, VECTORS, st.floats(-3, 3))
@pytest.mark.parametrize("product", PRODUCTS)
def test_products_are_linear_and_symmetric(product: Product, u: Tensor, v: Tensor, scale: float) -> None:
    objective, params = network(11)
    Mu, Mv = (product(objective, params, w) for w in (u, v))
    tolerance = 1e-12 * float(1 + u.norm() * v.norm())
    assert float(u @ Mv) == pytest.approx(float(v @ Mu), abs=tolerance)
    combined = product(objective, params, u + scale * v)
    torch.testing.assert_close(combined, Mu + scale * Mv, rtol=1e-10, atol=1e-10)


@given(VECTORS)
@pytest.mark.parametrize("product", [ggn_vp, fisher_vp])
def test_gauss_newton_and_fisher_have_no_negative_curvature(product: Product, v: Tensor) -> None:
    objective, params = network(11)
    assert v @ product(objective, params, v) >= -1e-12 * (1 + v @ v)


class Network(nn.Module):
    """The same network as a module, as curvlinops wants it."""

    def __init__(self, objective: Objective, params: Parameters) -> None:
        super().__init__()
        self.outputs = objective.outputs
        self.weights = nn.ParameterDict({name: nn.Parameter(p.clone()) for name, p in params.items()})

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(dict(self.weights.items()), {"x": x})


@pytest.mark.parametrize(
    ("product", "peer"),
    [
        (hvp, curvlinops.HessianLinearOperator),
        (ggn_vp, curvlinops.GGNLinearOperator),
        (fisher_vp, curvlinops.EFLinearOperator),
    ],
)
def test_products_agree_with_curvlinops(product: Product, peer: Any) -> None:
    objective, params = network()
    module = Network(objective, params)
    data = [(batch["x"], batch["y"]) for batch in objective.microbatches]
    operator = peer(module, nn.CrossEntropyLoss(reduction="sum"), [module.weights[name] for name in params], data)
    v = torch.linspace(-1, 1, 40, dtype=torch.float64)
    torch.testing.assert_close(product(objective, params, v), (operator @ v) / 11, rtol=1e-10, atol=1e-12)


# --- A language model ---


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """A tiny Qwen3 in float64, its weights large enough for predictions that depend on the prompt."""
    tiny = {"hidden_size": 16, "layers": 2, "intermediate_size": 24, "head_dim": 8}
    model = tiny_model(load_profile("smoke", tiny), tiny_tokenizer(), 0).eval().double()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    """Of different lengths, two a prompt; one holds the padding token."""
    prompts = [[1, 5, 6], [1, 7, 8, 9, 10, 11], [1]]
    responses = [[20, 21, 2], [22, 2], [30], [31, 0, 33, 34], [40, 2], [2]]
    return Rollouts("Math", "train", prompts, responses, torch.tensor([[1.0, 0.0], [0.25, 0.75], [1.0, 0.5]]))


def make(kind: str, model: PreTrainedModel, rollouts: Rollouts, size: int = 4) -> Objective:
    if kind == "exact":
        domain, profile = load_domain("arithmetic"), load_profile("smoke")
        items = domain.items("train")[:6]
        return exact_reward(model, tiny_tokenizer(), profile, domain, items, split="train", batch_size=size)
    constructors = {"weighted": importance_weighted, "kl": kl, "nll": negative_log_likelihood}
    return constructors[kind](model, rollouts, batch_size=size)


KINDS = ["exact", "weighted", "kl", "nll"]


def unit(size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    vector = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (vector / vector.norm()).to(dtype)


def moved(params: Parameters, direction: Tensor, step: float) -> dict[str, Tensor]:
    return {name: params[name] + step * d for name, d in ParameterSpace(params).unflatten(direction).items()}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_a_language_model_are_those_of_finite_differences(
    kind: str, model: PreTrainedModel, rollouts: Rollouts
) -> None:
    objective = make(kind, model, rollouts)
    size = ParameterSpace(parameters(model)).size
    params = moved(parameters(model), unit(size, 5), 0.3)  # away from where KL and its gradient vanish
    v, h = unit(size), 1e-4
    ahead, behind = (moved(params, v, sign * h) for sign in (1, -1))
    slope = (objective.value(ahead).value - objective.value(behind).value) / (2 * h)
    product = (gradient(objective, ahead) - gradient(objective, behind)) / (2 * h)
    assert float(gradient(objective, params) @ v) == pytest.approx(slope, rel=1e-5)
    found = hvp(objective, params, v)
    assert (found - product).norm() < 1e-5 * product.norm()


@pytest.mark.usefixtures("double")
def test_kl_has_no_gradient_and_the_fisher_matrix_for_hessian_where_the_rollouts_come_from(
    model: PreTrainedModel, rollouts: Rollouts
) -> None:
    objective, params = make("kl", model, rollouts), parameters(model)
    v = unit(ParameterSpace(params).size)
    assert gradient(objective, params).norm() < 1e-12
    product = hvp(objective, params, v)
    torch.testing.assert_close(product, ggn_vp(objective, params, v), rtol=1e-8, atol=1e-10)
    assert v @ product > 1e-6
    elsewhere = moved(params, unit(len(v), 5), 0.3)
    assert (hvp(objective, elsewhere, v) - ggn_vp(objective, elsewhere, v)).norm() > 1e-3 * product.norm()


@pytest.mark.usefixtures("double")
def test_scores_and_next_token_distributions_give_the_same_fisher_matrix(model: PreTrainedModel) -> None:
    """Summed over all responses of one token, each as likely as the policy samples it."""
    params, prompt = parameters(model), [1, 5, 6]
    v = unit(ParameterSpace(params).size)
    with torch.no_grad():
        probabilities = model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(0)
    tokens = range(len(probabilities))
    every = Rollouts("Math", "train", [prompt] * len(tokens), [[t] for t in tokens], torch.zeros(len(tokens), 1))
    scores = negative_log_likelihood(model, every)
    weights = (probabilities * len(tokens)).sqrt()  # the matrix weighs every row alike
    scores.microbatches[0]["weight"] = weights  # type: ignore[index]
    weighted = replace(scores, losses=lambda logits, batch: scores.losses(logits, batch) * batch["weight"])
    exact = kl(model, Rollouts("Math", "train", [prompt], [[0]], torch.zeros(1, 1)))
    torch.testing.assert_close(fisher_vp(weighted, params, v), ggn_vp(exact, params, v), rtol=1e-8, atol=1e-10)


def test_the_fisher_diagonal_of_a_language_model_is_that_of_its_products(
    model: PreTrainedModel, rollouts: Rollouts
) -> None:
    objective, params = make("nll", model, rollouts), parameters(model)
    diagonal = fisher_diagonal(objective, params)
    largest = diagonal.topk(3).indices.tolist()
    for coordinate in [*largest, 7, len(diagonal) // 2, len(diagonal) - 1]:
        basis = torch.zeros_like(diagonal)
        basis[coordinate] = 1
        assert float(diagonal[coordinate]) == pytest.approx(
            float(fisher_vp(objective, params, basis)[coordinate]), rel=1e-6, abs=1e-12
        )


class ElementarySiLU(nn.Module):
    """x σ(x) in operations that curvlinops can differentiate, as torch's own SiLU is not in its way of doing it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class RowLosses(nn.Module):
    """Losses of rows as a module's outputs, as curvlinops wants it."""

    def __init__(self, model: PreTrainedModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.objective.losses(self.objective.outputs(dict(self.model.named_parameters()), batch), batch)


class Total(nn.Module):
    """The sum of what it is given."""

    reduction = "sum"

    def forward(self, losses: Tensor, _: Tensor) -> Tensor:
        return losses.sum()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", KINDS)
def test_the_hessian_of_a_language_model_agrees_with_curvlinops(
    kind: str, model: PreTrainedModel, rollouts: Rollouts
) -> None:
    found = hvp(make(kind, model, rollouts), parameters(model), unit(ParameterSpace(parameters(model)).size))
    model = copy.deepcopy(model)
    for layer in model.model.layers:
        layer.mlp.act_fn = ElementarySiLU()
    objective = make(kind, model, rollouts)
    data = [(dict(batch), torch.zeros(len(batch["ids"]))) for batch in objective.microbatches]
    operator = curvlinops.HessianLinearOperator(
        RowLosses(model, objective),
        Total(),
        list(model.parameters()),
        data,
        batch_size_fn=lambda batch: len(batch["ids"]),
        check_deterministic=False,
    )
    expected = (operator @ unit(operator.shape[1])) / objective.rows
    assert expected.norm() > 0
    assert (found - expected).norm() < 1e-9 * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 5])
def test_the_size_of_microbatches_does_not_change_derivatives(
    kind: str, size: int, model: PreTrainedModel, rollouts: Rollouts
) -> None:
    one, other = make(kind, model, rollouts, size), make(kind, model, rollouts, 256)
    space = ParameterSpace(parameters(model))
    v, params = unit(space.size), moved(parameters(model), unit(space.size, 5), 0.1)
    for found, expected in (
        (gradient(one, params), gradient(other, params)),
        *((product(one, params, v), product(other, params, v)) for product in PRODUCTS),
    ):
        assert (found - expected).norm() < 1e-4 * expected.norm()  # the model's own norms are in float32


@pytest.mark.parametrize("kind", KINDS)
def test_float32_agrees_with_float64(kind: str, model: PreTrainedModel, rollouts: Rollouts) -> None:
    objective, params = make(kind, model, rollouts), parameters(model)
    params = moved(params, unit(ParameterSpace(params).size, 5), 0.1)
    single = {name: parameter.float() for name, parameter in params.items()}
    v = unit(ParameterSpace(params).size)
    for product in PRODUCTS:
        expected, found = product(objective, params, v), product(objective, single, v.float())
        assert found.dtype == torch.float32
        assert (found.double() - expected).norm() < 1e-3 * expected.norm()
    assert gradient(objective, single).dtype == torch.float32


# --- Vectors ---


def test_a_vector_and_its_tensors_are_the_same_numbers() -> None:
    params = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([6.0, 7.0])}
    space = ParameterSpace(params)
    vector = space.flatten({"a": params["a"], "b": params["b"]})  # the order is the space's
    assert vector.tolist() == list(range(8))
    tensors = space.unflatten(vector)
    assert list(tensors) == ["b", "a"]
    assert all(torch.equal(tensors[name], params[name]) for name in params)
    vector[0] = 9
    assert tensors["b"][0, 0] == 9


def test_the_order_of_a_model_is_that_of_its_named_parameters(model: PreTrainedModel) -> None:
    vector = ParameterSpace(parameters(model)).flatten(parameters(model))
    assert torch.equal(vector, nn.utils.parameters_to_vector(model.parameters()))


@given(st.lists(st.booleans(), min_size=8, max_size=8).filter(any))
def test_coordinates_of_a_mask_and_of_its_indices_are_the_same(mask: list[bool]) -> None:
    space = ParameterSpace({"b": torch.zeros(2, 3), "a": torch.zeros(2)})
    found = space.coordinates(torch.tensor(mask))
    assert found.tolist() == np.flatnonzero(mask).tolist()
    assert torch.equal(space.coordinates(found.flip(0)), found)


def test_what_does_not_fit_the_parameters_is_refused() -> None:
    space = ParameterSpace({"b": torch.zeros(2, 3), "a": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'a': expected shape \(2,\), got none"):
        space.flatten({"b": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=r"'b': expected shape \(2, 3\), got shape \(3, 2\)"):
        space.flatten({"b": torch.zeros(3, 2), "a": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'c': expected none of that name, got shape \(1,\)"):
        space.flatten({"b": torch.zeros(2, 3), "a": torch.zeros(2), "c": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"vector of shape \(8,\), got \(7,\)"):
        space.unflatten(torch.zeros(7))
    with pytest.raises(ValueError, match=r"mask of shape \(8,\), got \(7,\)"):
        space.coordinates(torch.ones(7, dtype=torch.bool))
    with pytest.raises(ValueError, match="empty"):
        space.coordinates(torch.zeros(8, dtype=torch.bool))
    with pytest.raises(ValueError, match="indices of 0 to 7, got 3 to 8"):
        space.coordinates(torch.tensor([8, 3]))


@pytest.mark.parametrize("product", PRODUCTS)
def test_vectors_that_do_not_fit_are_refused(product: Product) -> None:
    objective, params = network()
    with pytest.raises(ValueError, match=r"shape \(40,\), got \(39,\)"):
        product(objective, params, torch.zeros(39, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"torch.float64 .* got torch.float32"):
        product(objective, params, torch.zeros(40))
    with pytest.raises(ValueError, match="1 of its 40 are not"):
        product(objective, params, torch.tensor([torch.nan] + [0.0] * 39, dtype=torch.float64))


def test_results_that_are_not_finite_are_refused() -> None:
    objective, params = network()
    broken = {name: torch.full_like(parameter, torch.inf) for name, parameter in params.items()}
    v = torch.ones(40, dtype=torch.float64)
    for compute in (gradient, fisher_diagonal, *(lambda o, p, m=m: m(o, p, v) for m in PRODUCTS)):
        with pytest.raises(FloatingPointError, match=r"cross-entropy of rows: .* of 40 numbers are not finite"):
            compute(objective, broken)
