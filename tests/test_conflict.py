"""Cosines of noisy gradients: closed forms, planted signals, and a null that holds its level."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdomain import conflict
from crossdomain.directions import Grams

NAMES = ["model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight", "model.norm.weight"]


def grams_of(gradients: dict[str, np.ndarray], sizes: tuple[int, ...] = (50, 50, 10)) -> Grams:
    """From gradients of shape (parts, parameters), split among the tensors of `NAMES`."""
    labels = [conflict.label(d, k) for d, parts in gradients.items() for k in range(len(parts))]
    stacked = np.concatenate(list(gradients.values()))
    pieces = np.split(stacked, np.cumsum(sizes)[:-1], axis=1)
    return Grams(labels, NAMES[: len(sizes)], [2, 2, 1][: len(sizes)], np.stack([p @ p.T for p in pieces]), {})


def noisy(signal: np.ndarray, noise: float, parts: int, seed: int) -> np.ndarray:
    return signal + noise * np.random.default_rng(seed).normal(size=(parts, len(signal)))


def test_without_noise_the_cosine_is_exact_and_its_own_correction() -> None:
    a, b = np.zeros(110), np.zeros(110)
    a[:2], b[0] = 1, 3
    row = conflict.domain_cosines(grams_of({"a": np.stack([a] * 4), "b": np.stack([b] * 4)})).iloc[0]
    assert row["cosine"] == pytest.approx(np.sqrt(0.5), abs=1e-12)
    assert row["corrected"] == pytest.approx(np.sqrt(0.5), abs=1e-12)
    assert row["split_half_a"] == pytest.approx(1, abs=1e-12)


def test_the_correction_finds_the_cosine_that_noise_hides() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=4000)
    b = 0.6 * a + 0.8 * rng.normal(size=4000)
    true = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    found = grams_of({"a": noisy(a, 3, 8, 1), "b": noisy(b, 3, 8, 2)}, (2000, 2000))
    row = conflict.domain_cosines(found).iloc[0]
    assert abs(row["corrected"] - true) < 0.05 < 0.2 < true - row["cosine"]


def test_split_halves_are_the_cosine_of_the_even_and_odd_means() -> None:
    parts = noisy(np.ones(100), 1, 4, 3)
    even, odd = parts[::2].mean(0), parts[1::2].mean(0)
    row = conflict.domain_cosines(grams_of({"a": parts, "b": parts}, (50, 50))).iloc[0]
    expected = even @ odd / np.linalg.norm(even) / np.linalg.norm(odd)
    assert row["split_half_a"] == pytest.approx(expected, abs=1e-12) and row["cosine"] == pytest.approx(1, abs=1e-12)


def test_one_dimensional_tensors_are_left_out() -> None:
    a, b = np.zeros(110), np.zeros(110)
    a[0], b[1] = 1, 1
    a[100:], b[100:] = 5, 5  # the norm's weights agree, the matrices are orthogonal
    found = grams_of({"a": np.stack([a] * 2), "b": np.stack([b] * 2)})
    assert conflict.domain_cosines(found).iloc[0]["cosine"] == pytest.approx(0, abs=1e-12)
    assert set(conflict.module_cosines(found)["name"]) == set(NAMES[:2])


def test_module_cosines_are_those_of_the_parts_of_the_mean_gradients() -> None:
    gradients = {d: noisy(np.zeros(110), 1, 4, seed) for seed, d in enumerate("abc")}
    found = conflict.module_cosines(grams_of(gradients)).set_index(["a", "b", "name"])["cosine"]
    first, third = gradients["a"].mean(0)[50:100], gradients["c"].mean(0)[50:100]
    expected = first @ third / np.linalg.norm(first) / np.linalg.norm(third)
    assert found["a", "c", NAMES[1]] == pytest.approx(expected, abs=1e-12)
    assert len(found) == 3 * 2


def test_a_planted_conflict_stands_out_and_names_its_module() -> None:
    a, b = np.zeros(100), np.zeros(100)
    a[:50], b[:50] = 1, -1
    found = grams_of({"a": noisy(a, 0.5, 8, 1), "b": noisy(b, 0.5, 8, 2)}, (50, 50))
    worst = conflict.extremes(found).set_index("extreme").loc["conflict"]
    assert worst["name"] == NAMES[0] and worst["cosine"] < -0.9 and worst["p"] == pytest.approx(1 / 71)
    assert worst["cosine"] < worst["noise"] < 0


def test_noise_alone_is_rarely_called_a_conflict() -> None:
    found = [
        conflict.extremes(
            grams_of({"a": noisy(np.ones(100), 1, 8, s), "b": noisy(np.zeros(100), 1, 8, 500 + s)}, (50, 50))
        )["p"].min()
        for s in range(60)
    ]
    assert np.mean(np.array(found) < 0.025) <= 0.15  # two extremes at 2.5 % each; 0.15 is 3.5 sd above 0.05


def test_a_domain_without_a_gradient_has_no_cosines_and_no_extremes() -> None:
    found = grams_of({"a": noisy(np.ones(110), 1, 4, 1), "none": np.zeros((4, 110)), "b": noisy(np.ones(110), 1, 4, 2)})
    cosines = conflict.domain_cosines(found).set_index(["a", "b"])["cosine"]
    assert cosines.notna().to_dict() == {("a", "none"): False, ("a", "b"): True, ("none", "b"): False}
    assert conflict.extremes(found)[["a", "b"]].to_numpy().tolist() == [["a", "b"]] * 2
    alone = conflict.extremes(grams_of({"a": np.ones((4, 110)), "none": np.zeros((4, 110))}))
    assert alone.empty and "p" in alone


@given(st.integers(1, 4), st.integers(0, 1000))
def test_cosines_do_not_depend_on_the_scale_of_a_gradient(half: int, seed: int) -> None:
    a, b = (noisy(np.ones(100), 1, 2 * half, seed + i) for i in range(2))
    plain = conflict.domain_cosines(grams_of({"a": a, "b": b}, (50, 50)))
    scaled = conflict.domain_cosines(grams_of({"a": 1e3 * a, "b": 1e-3 * b}, (50, 50)))
    np.testing.assert_allclose(plain.drop(columns=["a", "b"]), scaled.drop(columns=["a", "b"]), rtol=1e-9)


def test_an_odd_number_of_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="even number"):
        conflict.domain_cosines(grams_of({"a": np.ones((3, 100)), "b": np.ones((2, 100))}, (50, 50)))
