"""Checkpoints against what was saved: whole files, shards, slices, ties, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from crossdomain.weights import Delta, MismatchError, Weights, chunks

StartPython = Callable[..., "subprocess.Popen[str]"]
Tensors = Mapping[str, Tensor]
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def model(tied: bool, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=tied))


def saved(path: Path, tensors: Tensors) -> Weights:
    path.parent.mkdir(exist_ok=True, parents=True)
    save_file(dict(tensors), path)
    return Weights(path)


def configured(path: Path, tensors: Tensors, config: object) -> Weights:
    path.mkdir()
    save_file(dict(tensors), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config))
    return Weights(path)


def whole(vector: Weights | Delta, name: str) -> Tensor:
    rows = (vector.shape(name) or (1,))[0]
    return vector.rows(name, 0, rows)


def test_a_saved_model_is_read_back(tmp_path: Path) -> None:
    original = model(tied=False)
    original.save_pretrained(tmp_path)
    weights = Weights(tmp_path)
    state = original.state_dict()
    assert weights.names == sorted(state)
    for name, tensor in state.items():
        assert weights.shape(name) == tuple(tensor.shape)
        assert weights.dtype(name) == tensor.dtype
        assert torch.equal(whole(weights, name), tensor)


def test_shards_hold_what_one_file_holds(tmp_path: Path) -> None:
    original = model(tied=True)
    original.save_pretrained(tmp_path / "one")
    original.save_pretrained(tmp_path / "many", max_shard_size="4KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = Weights(tmp_path / "one"), Weights(tmp_path / "many")
    assert one.names == many.names
    for name in one.names:
        assert torch.equal(whole(one, name), whole(many, name))


def test_a_slice_is_the_slice_of_the_tensor_in_its_stored_type(tmp_path: Path) -> None:
    tensors = {
        "matrix": torch.randn(7, 3).bfloat16(),
        "vector": torch.randn(5).half(),
        "cube": torch.randn(4, 2, 3),
        "double": torch.randn(3, 2, dtype=torch.float64),
    }
    weights = saved(tmp_path / "a.safetensors", tensors)
    for name, tensor in tensors.items():
        for start in range(len(tensor)):
            for stop in range(start, len(tensor) + 1):
                found = weights.rows(name, start, stop)
                assert found.dtype == tensor.dtype
                assert torch.equal(found, tensor[start:stop])


def test_a_scalar_counts_as_one_row(tmp_path: Path) -> None:
    weights = saved(tmp_path / "a.safetensors", {"scale": torch.tensor(3.5)})
    assert weights.shape("scale") == ()
    assert list(chunks(weights, "scale")) == [(0, 1)]
    assert weights.rows("scale", 0, 1).tolist() == [3.5]


def test_a_slice_outlives_the_reading_and_can_be_written_to_without_touching_the_file(tmp_path: Path) -> None:
    weights = saved(tmp_path / "a.safetensors", {"w": torch.ones(4, 4)})
    rows = weights.rows("w", 1, 3)
    rows.zero_()
    assert weights.rows("w", 1, 3).sum() == 8


@given(rows=st.integers(0, 50), columns=st.integers(1, 9), elements=st.integers(1, 60))
def test_chunks_cover_a_tensor_once_and_in_order(rows: int, columns: int, elements: int) -> None:
    class Shape:
        names = ("w",)

        def shape(self, name: str) -> tuple[int, ...]:
            return rows, columns

        def rows(self, name: str, start: int, stop: int) -> Tensor:
            raise AssertionError("nothing is read")

    found = list(chunks(Shape(), "w", elements))  # type: ignore[arg-type]
    assert [row for start, stop in found for row in range(start, stop)] == list(range(rows))
    assert all(0 < (stop - start) * columns <= max(elements, columns) for start, stop in found)


def test_the_stored_head_of_a_tied_model_is_left_out(tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": torch.ones(3, 2), "lm_head.weight": torch.ones(3, 2)}
    assert configured(tmp_path / "tied", tensors, {"tie_word_embeddings": True}).names == ["model.embed_tokens.weight"]
    assert configured(tmp_path / "untied", tensors, {"tie_word_embeddings": False}).names == sorted(tensors)
    assert configured(tmp_path / "silent", tensors, {}).names == sorted(tensors)


@pytest.mark.parametrize("outer", [True, False, None])
@pytest.mark.parametrize("inner", [True, False])
def test_the_text_models_own_word_on_ties_counts_first(tmp_path: Path, outer: bool | None, inner: bool) -> None:
    config = {"tie_word_embeddings": outer, "text_config": {"tie_word_embeddings": inner}}
    assert configured(tmp_path / "m", {"lm_head.weight": torch.ones(2, 2)}, config).tied == inner


def test_a_snapshot_of_a_tied_model_compares_with_its_checkpoint_and_with_an_untied_copy(tmp_path: Path) -> None:
    original = model(tied=True)
    original.save_pretrained(tmp_path / "checkpoint")
    snapshot = saved(tmp_path / "00025.safetensors", {n: p.detach() for n, p in original.named_parameters()})
    stored = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    untied = saved(tmp_path / "other" / "w.safetensors", stored)
    checkpoint = Weights(tmp_path / "checkpoint")
    assert "lm_head.weight" in untied.names
    for before, after in [(snapshot, checkpoint), (checkpoint, untied), (untied, checkpoint)]:
        assert Delta(before, after).names == snapshot.names
    with pytest.raises(MismatchError, match=r"lm_head\.weight"):  # neither says that it is tied
        Delta(snapshot, untied)


def test_a_delta_is_the_difference_in_float32(tmp_path: Path) -> None:
    before = {"w": torch.randn(6, 4).bfloat16(), "b": torch.randn(3)}
    after = {"w": torch.randn(6, 4).bfloat16(), "b": torch.randn(3).half()}  # types may differ
    delta = Delta(saved(tmp_path / "a.safetensors", before), saved(tmp_path / "b.safetensors", after))
    for name in delta.names:
        assert delta.shape(name) == tuple(before[name].shape)
        expected = after[name].double() - before[name].double()
        assert delta.rows(name, 0, 6).dtype == torch.float32
        torch.testing.assert_close(delta.rows(name, 1, 3).double(), expected[1:3], rtol=1e-6, atol=0)
        old, new = delta.pair(name, 1, 3)
        assert torch.equal(old, before[name][1:3])
        assert torch.equal(new, after[name][1:3])


def test_checkpoints_of_different_models_are_refused_with_what_differs(tmp_path: Path) -> None:
    before = saved(tmp_path / "a.safetensors", {f"a{i}": torch.ones(1) for i in range(9)} | {"w": torch.ones(2, 3)})
    after = saved(tmp_path / "b.safetensors", {"new": torch.ones(1), "w": torch.ones(3, 2)})
    with pytest.raises(MismatchError) as error:
        Delta(before, after)
    message = str(error.value)
    assert f"missing in {after.path}: a0, a1, a2, a3, a4 and 4 more" in message
    assert f"missing in {before.path}: new" in message
    assert "of another shape: w (2, 3) and (3, 2)" in message


def test_pickled_weights_are_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"it has pytorch_model\.bin\. Pickled .* save_pretrained"):
        Weights(tmp_path)
    with pytest.raises(ValueError, match=r"not a \.safetensors file\. Pickled .* save_pretrained"):
        Weights(tmp_path / "pytorch_model.bin")


def test_a_place_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        Weights(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="it has nothing"):
        Weights(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model(tied=True).save_pretrained(tmp_path, max_shard_size="4KB")
    lost = min(tmp_path.glob("*.safetensors"))
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=f"missing: {lost.name}"):
        Weights(tmp_path)


def test_a_shard_that_lacks_a_tensor_of_the_index_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "shard.safetensors")
    index = {"weight_map": {"a": "shard.safetensors", "b": "shard.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"shard\.safetensors lacks what its index lists: b;"):
        Weights(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_an_unreadable_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json cannot be read .* expected JSON with a weight_map"):
        Weights(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved(path, {"w": torch.randn(50, 50)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as safetensors .* copy it again"):
        Weights(tmp_path)
    path.write_bytes(b"no header")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as safetensors"):
        Weights(path)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "model.safetensors", {"w": torch.ones(1)})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read as JSON"):
        Weights(tmp_path)


def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="w is stored as I8; expected floating point"):
        saved(tmp_path / "a.safetensors", {"w": torch.ones(2, dtype=torch.int8)})


def test_an_unknown_name_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    weights = saved(tmp_path / "a.safetensors", {"w": torch.ones(1)})
    with pytest.raises(KeyError, match="no tensor 'v'; it has w"):
        weights.rows("v", 0, 1)


RESIDENT = """
import sys
import torch
from crossdomain.weights import Weights, chunks
def resident():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))
weights = Weights(sys.argv[1])
start, peak = resident(), 0.0
for bounds in chunks(weights, "w"):
    weights.rows("w", *bounds).view(torch.int64).sum()
    peak = max(peak, resident())
print(peak - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_what_was_read_does_not_stay_resident(tmp_path: Path, start_python: StartPython) -> None:
    saved(tmp_path / "a.safetensors", {"w": torch.zeros(32 * 1024, 1024)})  # 128 MiB
    output, errors = start_python(RESIDENT, tmp_path / "a.safetensors").communicate()
    assert float(output) < 64, errors  # MiB: a chunk of 4 and what the allocator keeps
