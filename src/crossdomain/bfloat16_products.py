"""Products of bfloat16 on processors that cannot take them: taken in float32, and rounded.

Without AVX-512, as on most laptops, oneDNN has no products of bfloat16, and PyTorch falls back on loops that take several
times as long as products of float32 (`benchmarks/bfloat16_products.py`). Every bfloat16 number is one of float32, and sums
are kept in float32 either way: the results differ by the order of the sums alone, as they do between any two processors.
"""

from __future__ import annotations

import functools
import platform
import warnings
from typing import Any

import torch
from torch import DispatchKeySet, Tensor
from torch.library import Library, get_kernel

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")  # of aten: what linear layers and attention written out come down to
DEVICE = "CPU"


def slow() -> bool:
    """Whether this processor is an x86 whose products of bfloat16 PyTorch takes without oneDNN."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    return x86 and torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def prepare(precision: str) -> None:
    """Have what a profile's `precision` needs multiplied in float32 where this processor is slow at it."""
    if precision == "bf16-autocast" and slow():
        take_in_float32()


@functools.cache
def take_in_float32() -> Library:
    """Take this process' products of bfloat16 in float32 from now on; products of other types stay what they are.

    Returns:
        What keeps it so: PyTorch forgets the new kernels with it, and the cache of this function holds it.
    """
    library = Library("aten", "IMPL")
    plain = {name: get_kernel(f"aten::{name}", DEVICE) for name in PRODUCTS}
    into = {name: get_kernel(f"aten::{name}.out", DEVICE) for name in PRODUCTS}

    def product(name: str, keys: DispatchKeySet, *factors: Tensor, **scales: Any) -> Tensor:
        if factors[0].dtype != torch.bfloat16:
            found: Tensor = plain[name].call_boxed(keys, *factors, **scales)
            return found
        wide: Tensor = plain[name].call_boxed(keys, *(factor.float() for factor in factors), **scales)
        return wide.to(torch.bfloat16)

    def product_into(name: str, keys: DispatchKeySet, *factors: Tensor, out: Tensor, **scales: Any) -> Tensor:
        if factors[0].dtype != torch.bfloat16:
            found: Tensor = into[name].call_boxed(keys, *factors, out=out, **scales)
            return found
        made = product(name, keys, *factors, **scales)
        return out.resize_(made.shape).copy_(made)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        for name in PRODUCTS:
            for overload, kernel in ((name, product), (f"{name}.out", product_into)):
                bound = functools.partial(kernel, name)
                library.impl(overload, bound, DEVICE, with_keyset=True, allow_override=True)
    return library
