"""Merging on cases worked by hand, and against the definitions written out coordinate by coordinate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crossdomain import merging

UPDATES = [
    torch.tensor([4.0, -1.0, 0.5, 3.0]),
    torch.tensor([-2.0, -3.0, 0.1, 1.0]),
    torch.tensor([-1.0, 2.0, 5.0, 0.0]),
]


def drawn(seed: int, policies: int, size: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(policies)]


def by_definition(updates: list[Tensor], density: float) -> np.ndarray:
    size = len(updates[0])
    keep = max(1, round(density * size))
    trimmed = []
    for update in (u.numpy() for u in updates):
        largest = set(np.argsort(-np.abs(update), kind="stable")[:keep].tolist())
        trimmed.append([value if i in largest else 0.0 for i, value in enumerate(update)])
    merged = np.zeros(size)
    for i in range(size):
        column = [row[i] for row in trimmed]
        sign = np.sign(sum(column))
        agreeing = [value for value in column if value != 0 and np.sign(value) == sign]
        merged[i] = np.mean(agreeing) if agreeing else 0.0
    return merged


def test_task_arithmetic_is_the_sum() -> None:
    assert merging.task_arithmetic(UPDATES).tolist() == pytest.approx([1.0, -2.0, 5.6, 4.0])


def test_ties_trims_elects_and_averages() -> None:
    # Kept at 1/2: (4, ., ., 3), (-2, -3, ., .), (., 2, 5, .). Signs elected: +, -, +, +.
    assert merging.ties(UPDATES, 0.5).tolist() == [4.0, -3.0, 5.0, 3.0]
    # All kept: sums 1, -2, 5.6, 4; the mean of those with that sign.
    assert merging.ties(UPDATES, 1.0).tolist() == pytest.approx([4.0, -2.0, (0.5 + 0.1 + 5.0) / 3, 2.0])


def test_ties_leaves_out_what_cancels() -> None:
    assert merging.ties([torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 2.0])], 1.0).tolist() == [0.0, 2.0]


@given(st.integers(0, 100), st.integers(1, 5), st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_ties_is_its_definition(seed: int, policies: int, density: float) -> None:
    updates = drawn(seed, policies, 20)
    np.testing.assert_allclose(merging.ties(updates, density).numpy(), by_definition(updates, density), atol=1e-12)


@given(st.integers(0, 100), st.floats(-3, 3))
def test_task_arithmetic_is_linear(seed: int, factor: float) -> None:
    first, second = drawn(seed, 3, 12), drawn(seed + 1, 3, 12)
    whole = merging.task_arithmetic([a + factor * b for a, b in zip(first, second, strict=True)])
    parts = merging.task_arithmetic(first) + factor * merging.task_arithmetic(second)
    torch.testing.assert_close(whole, parts)


@given(st.integers(0, 100), st.floats(0.1, 3))
def test_ties_scales_with_its_updates(seed: int, factor: float) -> None:
    updates = drawn(seed, 3, 12)
    torch.testing.assert_close(merging.ties([factor * u for u in updates], 0.5), factor * merging.ties(updates, 0.5))


def test_one_policy_alone_is_merged_into_itself() -> None:
    (update,) = drawn(0, 1, 30)
    for found in (merging.task_arithmetic([update]), merging.ties([update], 1.0), merging.dare([update], 1.0, seed=0)):
        torch.testing.assert_close(found, update)


def test_dare_keeps_the_share_and_scales_up_what_it_keeps() -> None:
    found = merging.dare([torch.ones(10_000)], 0.2, seed=1)
    assert set(found.unique().tolist()) == {0.0, 5.0}
    assert found.count_nonzero().item() / 10_000 == pytest.approx(0.2, abs=0.02)  # five standard deviations
    assert torch.equal(found, merging.dare([torch.ones(10_000)], 0.2, seed=1))
    assert not torch.equal(found, merging.dare([torch.ones(10_000)], 0.2, seed=2))


def test_dare_drops_other_entries_of_every_update() -> None:
    found = merging.dare([torch.ones(1000), torch.ones(1000)], 0.5, seed=0)
    assert {0.0, 2.0, 4.0} == set(found.unique().tolist())


def test_dare_is_unbiased_for_the_sum() -> None:
    updates = drawn(3, 3, 8)
    draws = torch.stack([merging.dare(updates, 0.3, seed=seed) for seed in range(4000)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - merging.task_arithmetic(updates)).abs() < 4.5 * error).all()


@pytest.mark.parametrize(
    ("updates", "density", "message"),
    [
        ([], 0.5, "got none"),
        ([torch.zeros(2), torch.zeros(3)], 0.5, "of one shape"),
        ([torch.zeros(2, 2)], 0.5, "of one shape"),
        ([torch.zeros(2)], 0.0, r"density = 0.0: expected a share in \(0, 1\]"),
        ([torch.zeros(2)], 1.1, "density"),
    ],
)
def test_what_cannot_be_merged_is_refused(updates: list[Tensor], density: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merging.ties(updates, density)
    with pytest.raises(ValueError, match=message):
        merging.dare(updates, density, seed=0)
