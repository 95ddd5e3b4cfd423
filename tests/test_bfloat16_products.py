"""Products of bfloat16 taken in float32: against float64, in every way that policies take them."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossdomain import bfloat16_products
from crossdomain.lineage import Lineage
from crossdomain.profiles import load_profile
from crossdomain.store import Store

# What is asked of the new kernels runs in a process of its own: they cannot be taken back.
PROGRAM = """
import warnings; warnings.simplefilter("error")
import torch
from crossdomain import bfloat16_products

torch.manual_seed(0)
SHAPES = {"mm": ((200, 2000), (2000, 200)), "bmm": ((4, 100, 2000), (4, 2000, 100))}
SHAPES |= {"addmm": ((200, 200), *SHAPES["mm"]), "baddbmm": ((4, 100, 100), *SHAPES["bmm"])}
factors = {name: [torch.randn(shape) for shape in shapes] for name, shapes in SHAPES.items()}
before = {name: getattr(torch, name)(*factors[name]) for name in SHAPES}
bfloat16_products.take_in_float32()
bfloat16_products.take_in_float32()

for name in bfloat16_products.PRODUCTS:
    take = getattr(torch, name)
    assert torch.equal(take(*factors[name]), before[name]), f"{name} of float32 changed"
    scales = {"beta": 0.5, "alpha": 2} if "add" in name else {}
    narrow = [factor.bfloat16() for factor in factors[name]]
    exact = take(*(factor.double() for factor in narrow), **scales)
    size = take(*(factor.double().abs() for factor in narrow), **scales)  # what errors of float32's sums scale with
    found = take(*narrow, **scales)
    assert found.dtype == torch.bfloat16
    error = (found.double() - exact).abs()
    assert (error <= 2.0**-8 * exact.abs() + 1e-6 * size).all(), f"{name}: {error.max()}"
    rounded = take(*(factor.float() for factor in narrow), **scales).bfloat16()
    assert torch.equal(found, rounded), f"{name} was summed in another order than float32's"  # as PyTorch's own is
    out = torch.empty_like(found)
    assert take(*narrow, **scales, out=out) is out and torch.equal(out, found), f"{name} into a tensor"
    assert torch.equal(take(*narrow, **scales, out=torch.empty(0, dtype=torch.bfloat16)), found)

# A layer under autocast, and its gradients
layer, inputs = torch.nn.Linear(40, 5), torch.randn(2, 7, 40, requires_grad=True)
with torch.autocast("cpu", torch.bfloat16):
    outputs = layer(inputs)
outputs.float().sum().backward()
assert outputs.dtype == torch.bfloat16 and layer.weight.grad.dtype == inputs.grad.dtype == torch.float32
expected = layer.weight.detach().bfloat16().double().sum(0)
assert ((inputs.grad.double() - expected).abs() <= 2.0**-8 * expected.abs() + 1e-6).all()
print("all products as they should be")
"""


def test_products_are_rounded_once_whatever_they_are_written_into() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout.strip() == "all products as they should be", done.stderr


@pytest.mark.parametrize(
    ("precision", "slow", "wide"),
    [("bf16-autocast", True, True), ("bf16-autocast", False, False), ("float32", True, False)],
)
def test_only_processors_that_are_slow_at_it_widen_and_only_for_profiles_that_ask(
    monkeypatch: pytest.MonkeyPatch, precision: str, slow: bool, wide: bool
) -> None:
    taken: list[bool] = []
    monkeypatch.setattr(bfloat16_products, "slow", lambda: slow)
    monkeypatch.setattr(bfloat16_products, "take_in_float32", lambda: taken.append(True))
    bfloat16_products.prepare(precision)
    assert taken == [True] * wide


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="asks x86 for its instructions")
def test_slow_are_processors_without_avx_512() -> None:
    has = torch.cpu.get_capabilities()
    assert bfloat16_products.slow() is not all(has[name] for name in ("avx512_bw", "avx512_vl", "avx512_dq"))


def test_every_lineage_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(bfloat16_products, "prepare", asked.append)
    profile = load_profile("smoke", {"precision": "bf16-autocast"})
    Lineage(profile, 0, Store(tmp_path))
    assert asked == ["bf16-autocast"]
