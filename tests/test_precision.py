"""Float64 stays float64 where a model asks for float32."""

import torch
from torch import nn

from crossdomain.precision import Float64


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
