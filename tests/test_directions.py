"""Inner products of vectors over a model's parameters, against flat vectors and scikit-learn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.metrics.pairwise import cosine_similarity
from transformers import AutoModelForCausalLM, GPT2Config, Qwen3Config

from crossdomain import directions, units
from crossdomain.weights import Weights

CONFIGS = {
    "gated": Qwen3Config(vocab_size=30, hidden_size=8, num_hidden_layers=2, intermediate_size=12, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=4, tie_word_embeddings=True),
    "plain": GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2),
}  # fmt: skip


def vectors(directory: Path, family: str, count: int = 3) -> dict[str, dict[str, torch.Tensor]]:
    model = AutoModelForCausalLM.from_config(CONFIGS[family])
    found = {}
    for k in range(count):
        generator = torch.Generator().manual_seed(k)
        found[f"v{k}"] = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
        found[f"v{k}"]["extra.weight"] = (torch.arange(6.0) - 2).reshape(3, 2) * (k - 1)  # v1 does not move it
        save_file(found[f"v{k}"], directory / f"v{k}.safetensors")
    return found


def grams_of(directory: Path, family: str, labels: list[str]) -> directions.Grams:
    files = {label: Weights(directory / f"{label}.safetensors") for label in labels}
    return directions.grams(files, units.shape(CONFIGS[family]))


@pytest.mark.parametrize("family", CONFIGS)
def test_totals_are_the_inner_products_of_the_flat_vectors(tmp_path: Path, family: str) -> None:
    tensors = vectors(tmp_path, family)
    found = grams_of(tmp_path, family, list(tensors))
    flat = np.stack([torch.cat([v[n].flatten() for n in found.names]).double().numpy() for v in tensors.values()])
    np.testing.assert_allclose(found.total(), flat @ flat.T, rtol=1e-10)
    np.testing.assert_allclose(directions.cosines(found.total()), cosine_similarity(flat), atol=1e-12)


def test_chunks_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = vectors(tmp_path, "gated")
    whole = grams_of(tmp_path, "gated", list(tensors))
    chunks = directions.chunks
    monkeypatch.setattr(directions, "chunks", lambda vector, name, _: chunks(vector, name, elements=20))
    parts = grams_of(tmp_path, "gated", list(tensors))
    np.testing.assert_allclose(parts.tensors, whole.tensors, rtol=1e-10)
    for kind in units.KINDS:
        np.testing.assert_allclose(parts.units[kind], whole.units[kind], rtol=1e-10, atol=1e-10)


def test_a_unit_has_the_inner_products_of_its_rows_and_columns(tmp_path: Path) -> None:
    tensors = vectors(tmp_path, "gated")
    found = grams_of(tmp_path, "gated", list(tensors))

    def of(v: str, name: str) -> np.ndarray:
        return tensors[v][f"model.layers.1.{name}.weight"].double().numpy()

    def neuron(v: str) -> np.ndarray:
        return np.concatenate([of(v, "mlp.gate_proj")[5], of(v, "mlp.up_proj")[5], of(v, "mlp.down_proj")[:, 5]])

    def head(v: str) -> np.ndarray:
        return np.concatenate([of(v, "self_attn.q_proj")[8:12].ravel(), of(v, "self_attn.o_proj")[:, 8:12].ravel()])

    def group(v: str) -> np.ndarray:
        return np.concatenate([of(v, f"self_attn.{m}_proj")[4:8].ravel() for m in "kv"])

    for kind, index, vector in (("neuron", 5, neuron), ("head", 2, head), ("group", 1, group)):
        expected = np.stack([vector(v) for v in tensors])
        np.testing.assert_allclose(found.units[kind][1, index], expected @ expected.T, rtol=1e-10)


@pytest.mark.parametrize("family", CONFIGS)
def test_units_and_what_belongs_to_none_make_up_the_whole(tmp_path: Path, family: str) -> None:
    found = grams_of(tmp_path, family, list(vectors(tmp_path, family)))
    sizes = {n: tuple(p.shape) for n, p in AutoModelForCausalLM.from_config(CONFIGS[family]).named_parameters()}
    shape = units.shape(CONFIGS[family])
    owned = found.total(lambda name: bool(name in sizes and units.blocks(name, sizes[name], shape)))
    np.testing.assert_allclose(sum(found.units[kind].sum((0, 1)) for kind in units.KINDS), owned, rtol=1e-10)


def test_signs_agree_as_often_as_counted(tmp_path: Path) -> None:
    tensors = vectors(tmp_path, "gated")
    files = {v: Weights(tmp_path / f"{v}.safetensors") for v in tensors}
    signs = directions.grams(files, transform=torch.sign).total()
    both = directions.grams(files, transform=lambda x: x.sign().abs()).total()
    flat = [torch.cat([v[n].flatten() for n in sorted(v)]) for v in tensors.values()]
    moved = (flat[0] != 0) & (flat[1] != 0)
    expected = (flat[0].sign() == flat[1].sign())[moved].double().mean().item()
    assert directions.agreement(signs, both)[0, 1] == pytest.approx(expected, abs=1e-12)


def route_of(shape: units.Shape, active: dict[str, list[tuple[int, int]]]) -> pd.Series:
    keys = [(kind, layer, index) for kind in ("neuron", "head") for layer in range(shape.layers)
            for index in range(getattr(shape, kind))]  # fmt: skip
    values = [(layer, index) in active[kind] for kind, layer, index in keys]
    return pd.Series(values, index=pd.MultiIndex.from_tuples(keys, names=["kind", "layer", "index"]))


def test_a_route_takes_the_group_that_its_heads_read(tmp_path: Path) -> None:
    found = grams_of(tmp_path, "gated", list(vectors(tmp_path, "gated")))
    route = route_of(units.shape(CONFIGS["gated"]), {"neuron": [(0, 3)], "head": [(1, 2)]})
    on, off = directions.on_route(found, route)
    np.testing.assert_allclose(
        on, found.units["neuron"][0, 3] + found.units["head"][1, 2] + found.units["group"][1, 1], rtol=1e-10
    )
    np.testing.assert_allclose(on + off, sum(found.units[kind].sum((0, 1)) for kind in units.KINDS), rtol=1e-10)


def test_random_routes_have_as_many_units_in_every_layer(tmp_path: Path) -> None:
    found = grams_of(tmp_path, "gated", list(vectors(tmp_path, "gated")))
    ones = {kind: np.zeros_like(value) for kind, value in found.units.items()}
    ones["neuron"][0, :, 0, 0], ones["neuron"][1, :, 0, 0], ones["head"][1, :, 0, 0] = 1, 100, 10000
    counting = directions.Grams(found.labels, found.names, found.dimensions, found.tensors, ones)
    route = route_of(units.shape(CONFIGS["gated"]), {"neuron": [(0, 0), (0, 1), (1, 4)], "head": [(1, 0)]})
    drawn = directions.random_routes(counting, route, draws=20)[:, 0, 0]
    assert drawn.tolist() == [10102] * 20
    assert len(np.unique(directions.random_routes(found, route, draws=20)[:, 0, 1])) > 1


def test_all_units_are_one_random_route(tmp_path: Path) -> None:
    found = grams_of(tmp_path, "gated", list(vectors(tmp_path, "gated")))
    shape = units.shape(CONFIGS["gated"])
    everything = {k: [(layer, i) for layer in range(2) for i in range(getattr(shape, k))] for k in ("neuron", "head")}
    on, off = directions.on_route(found, route_of(shape, everything))
    np.testing.assert_allclose(off, 0, atol=1e-9)
    np.testing.assert_allclose(directions.random_routes(found, route_of(shape, everything), draws=2)[0], on, rtol=1e-10)


def test_they_are_kept_and_read_back_to_the_bit(tmp_path: Path) -> None:
    found = grams_of(tmp_path, "plain", list(vectors(tmp_path, "plain")))
    (tmp_path / "kept").mkdir()
    found.save(tmp_path / "kept")
    again = directions.Grams.load(tmp_path / "kept")
    assert again.labels == found.labels and again.names == found.names and again.dimensions == found.dimensions
    np.testing.assert_array_equal(again.tensors, found.tensors)
    assert all(np.array_equal(again.units[kind], found.units[kind]) for kind in units.KINDS)


def test_matrix_cosines_leave_out_one_dimensional_tensors(tmp_path: Path) -> None:
    tensors = vectors(tmp_path, "gated")
    found = directions.matrix_cosines(grams_of(tmp_path, "gated", list(tensors)))
    assert not found["name"].str.contains("norm").any() and len(found) == 3 * (2 * 7 + 2)
    row = found.query("a == 'v0' and b == 'v2' and name == 'model.layers.0.mlp.up_proj.weight'").iloc[0]
    first, second = (tensors[v][row["name"]].flatten().double() for v in ("v0", "v2"))
    assert row["cosine"] == pytest.approx((first @ second / first.norm() / second.norm()).item(), abs=1e-9)
    assert (row["layer"], row["module"], row["block"]) == (0, "up_proj", "mlp")


@given(st.lists(st.lists(st.floats(-10, 10), min_size=4, max_size=4), min_size=2, max_size=4))
def test_cosines_lie_between_minus_one_and_one(rows: list[list[float]]) -> None:
    values = np.array(rows)
    found = directions.cosines(values @ values.T)
    known = found[~np.isnan(found)]
    assert (np.abs(known) <= 1 + 1e-6).all()


def test_vectors_of_two_models_and_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, 2)}, tmp_path / "one.safetensors")
    save_file({"a": torch.ones(2, 3)}, tmp_path / "two.safetensors")
    save_file({"a": torch.tensor([[1.0, float("nan")], [0, 0]])}, tmp_path / "bad.safetensors")
    one, two, bad = (Weights(tmp_path / f"{name}.safetensors") for name in ("one", "two", "bad"))
    with pytest.raises(ValueError, match="'two' is not over the same tensors as 'one'"):
        directions.grams({"one": one, "two": two})
    with pytest.raises(ValueError, match="a of bad has values that are not finite"):
        directions.grams({"one": one, "bad": bad})
    with pytest.raises(ValueError, match="got none"):
        directions.grams({})
    with pytest.raises(ValueError, match="not by unit"):
        directions.on_route(directions.grams({"one": one}), pd.Series(dtype=bool))
