"""Float64 stays float64 where a model asks for float32."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from crossdomain.precision import Float64
from families import CONFIGS, VOCABULARY, model


class Norm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.softmax(x.to(torch.float32) / 3, dim=-1, dtype=torch.float32).to(x.dtype)


def test_what_a_model_casts_to_float32_keeps_its_digits_only_within() -> None:
    x = torch.tensor([1.0, 1.0 + 1e-10], dtype=torch.float64)
    exact = (x / 3).exp() / (x / 3).exp().sum()
    with Float64():
        torch.testing.assert_close(Norm()(x), exact, rtol=1e-14, atol=0)
    assert (Norm()(x) - exact).abs().max() > 1e-12


def test_gradients_of_both_orders_keep_them_too() -> None:
    x = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    with Float64():
        assert torch.autograd.gradcheck(Norm(), x)
        assert torch.autograd.gradgradcheck(Norm(), x)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_language_model_is_as_smooth_as_float64_within(family: str) -> None:
    made = model(family)
    params = {name: value.detach() for name, value in made.named_parameters()}
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (2, 6), generator=draws)
    along = {name: torch.randn(value.shape, generator=draws, dtype=value.dtype) for name, value in params.items()}

    def loss(step: torch.Tensor) -> torch.Tensor:
        there = {name: value + step * along[name] for name, value in params.items()}
        return functional_call(made, there, kwargs={"input_ids": ids}).logits.log_softmax(-1)[..., 3].sum()

    with Float64():
        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(step), step)
        h = torch.tensor(1e-5, dtype=torch.float64)
        difference = (loss(h) - loss(-h)) / (2 * h)
    torch.testing.assert_close(difference, slope, rtol=1e-5, atol=0)
    assert slope.dtype == torch.float64 and slope != 0
