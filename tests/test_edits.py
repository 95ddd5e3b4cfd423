"""Edits against closed forms, against a dense recomputation in float64, and of real models."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from crossdomain import edits
from crossdomain.edits import THRESHOLDS, Edits, RowSketch, analyse, summarise
from crossdomain.weights import MismatchError, Weights

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
MODELS = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=True)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, mlp_bias=True)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=8, n_inner=24, bos_token_id=0, eos_token_id=0
        )
    ),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks a tensor and several blocks a chunk, the last ones shorter, even in tiny models."""
    monkeypatch.setattr(edits, "READ", 600)
    monkeypatch.setattr(edits, "BLOCK", 250)


def compare(directory: Path, before: Tensors, after: Tensors) -> Edits:
    for side, tensors in (("before", before), ("after", after)):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / f"{side}.safetensors")
    return analyse(*(Weights(directory / f"{side}.safetensors") for side in ("before", "after")))


def of_one(directory: Path, before: Tensor, after: Tensor) -> tuple[pd.Series, pd.DataFrame]:
    """The row of a single tensor, and its shares."""
    found = compare(directory, {"w": before}, {"w": after})
    return found.tensors.iloc[0], found.shares


def unchanged(shares: pd.DataFrame, subtraction: str, kind: str) -> list[int]:
    return shares.query("subtraction == @subtraction and kind == @kind")["unchanged"].tolist()


def perturbed(model: PreTrainedModel, dtype: torch.dtype, scale: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters before and after an update that leaves out about half of the entries."""
    generator = torch.Generator().manual_seed(1)
    before, after = {}, {}
    for name, parameter in model.named_parameters():
        value = torch.randn(parameter.shape, generator=generator) * 0.02
        kept = torch.rand(parameter.shape, generator=generator) < 0.5
        before[name] = value.to(dtype)
        step = torch.randn(parameter.shape, generator=generator) * scale
        after[name] = torch.where(kept, before[name], (before[name].float() + step).to(dtype))
    return before, after


def dense_counts(before: Tensor, after: Tensor, subtraction: str) -> dict[str, list[int]]:
    """The definitions, entry by entry."""
    if subtraction == "stored":
        change = (after.to(before.dtype) - before).float().abs()
    else:
        change = (after.float() - before.float()).abs()
    size = before.float().abs()
    none = change == 0
    return {
        "absolute": [int((change <= limit).sum()) for limit in THRESHOLDS],
        "relative": [int((none | (change <= limit * size)).sum()) for limit in THRESHOLDS],
        "paper": [int((none | ((change < 1e-7) & (change < 1e-3 * size))).sum())],
    }


def participation_ratio(change: Tensor) -> float:
    squares = torch.linalg.svdvals(change.double()) ** 2
    return float(squares.sum() ** 2 / (squares**2).sum())


def test_a_known_change_has_the_norms_and_counts_of_its_closed_form(tmp_path: Path) -> None:
    before = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    after = before + torch.tensor([[2.0**-20, 0.0], [0.0, 2.0**-12]])
    row, shares = of_one(tmp_path, before, after)
    assert row["parameters"] == 4
    assert row["norm_before"] == 5
    assert row["norm_delta"] == pytest.approx(math.hypot(2.0**-20, 2.0**-12), rel=1e-6)
    assert row["relative_norm"] == pytest.approx(row["norm_delta"] / 5)
    assert row["max_abs"] == 2.0**-12
    assert row["dtype"] == "float32"
    for subtraction in ("stored", "float32"):  # the same where weights are stored in float32
        assert unchanged(shares, subtraction, "absolute") == [2, 2, 2, 3, 3, 3, 4]  # 1e-6 > 2^-20, 1e-3 > 2^-12
        assert unchanged(shares, subtraction, "relative") == [2, 2, 2, 3, 3, 3, 3]  # what was 0 has changed relatively
        assert unchanged(shares, subtraction, "paper") == [2]  # 2^-20 > 1e-7


def test_thresholds_count_at_equality_and_the_papers_do_not(tmp_path: Path) -> None:
    limits = torch.tensor(THRESHOLDS[1:])
    before = torch.zeros(12)
    before[6:] = 1.0
    after = torch.cat([limits, torch.full((6,), 1.0 + 2.0**-13)])
    _, shares = of_one(tmp_path, before, after)
    assert unchanged(shares, "float32", "absolute") == [0, 1, 2, 3, 4, 5, 12]
    assert unchanged(shares, "float32", "paper") == [0]  # 1e-8 at 0, and 2^-13 at 1
    _, shares = of_one(tmp_path, torch.tensor([125.0]), torch.tensor([125.125]))  # a relative change of 1e-3
    assert unchanged(shares, "float32", "relative") == [0, 0, 0, 0, 0, 0, 1]
    _, shares = of_one(
        tmp_path, torch.tensor([1e-3, 2e-4, 1.0, 0.0]), torch.tensor([1e-3 + 5e-8, 2e-4 + 9e-7, 1.0, -0.0])
    )
    assert unchanged(shares, "float32", "paper") == [3]  # small, too large, equal, equal at 0


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_agrees_with_a_dense_recomputation(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    before, after = perturbed(MODELS[kind](), dtype, 1e-4)
    found = compare(tmp_path, before, after)
    assert found.tensors["name"].tolist() == sorted(before)
    for row in found.tensors.itertuples():
        old, new = before[row.name], after[row.name]
        change = new.double() - old.double()
        assert row.parameters == old.numel()
        assert row.norm_before == pytest.approx(float(old.double().norm()), rel=1e-6)
        assert row.norm_delta == pytest.approx(float(change.norm()), rel=1e-6)
        assert row.max_abs == pytest.approx(float(change.abs().max()), rel=1e-6)
        if change.ndim == 2:
            assert row.effective_rank_method == "exact"
            assert row.effective_rank == pytest.approx(participation_ratio(change), rel=1e-5)
        else:
            assert row.effective_rank_method == "n/a"
            assert math.isnan(row.effective_rank)
        shares = found.shares[found.shares["name"] == row.name]
        for subtraction in ("stored", "float32"):
            for of_kind, counts in dense_counts(old, new, subtraction).items():
                assert unchanged(shares, subtraction, of_kind) == counts


@pytest.mark.parametrize("kind", MODELS)
def test_a_neuron_s_magnitude_is_that_of_its_rows_and_column(kind: str, tmp_path: Path) -> None:
    before, after = perturbed(MODELS[kind](), torch.float32, 1e-2)
    neurons = compare(tmp_path, before, after).neurons
    change = {name: after[name].double() - before[name].double() for name in before}
    assert len(neurons) == 2 * 24
    for layer, index, magnitude in neurons.itertuples(index=False):
        if kind == "gpt2":
            prefix = f"transformer.h.{layer}.mlp."
            parts = [change[prefix + "c_fc.weight"][:, index], change[prefix + "c_proj.weight"][index]]
        else:
            prefix = f"model.layers.{layer}.mlp."
            parts = [change[f"{prefix}{module}.weight"][index] for module in ("gate_proj", "up_proj")]
            parts.append(change[prefix + "down_proj.weight"][:, index])
        assert magnitude == pytest.approx(float(torch.cat(parts).norm()), rel=1e-5)


def test_shards_give_what_one_file_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sides = [MODELS["qwen3"]() for _ in range(2)]
    found = {}
    for size in ("1GB", "3KB"):
        for model, side in zip(sides, ("before", "after"), strict=True):
            model.save_pretrained(tmp_path / size / side, max_shard_size=size)
        found[size] = analyse(*(Weights(tmp_path / size / side) for side in ("before", "after")))
    for name in ("tensors", "shares", "neurons"):
        pd.testing.assert_frame_equal(getattr(found["1GB"], name), getattr(found["3KB"], name))
    assert "lm_head.weight" not in set(found["1GB"].tensors["name"])  # tied


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_block_sizes_change_nothing(dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = perturbed(MODELS["qwen3"](), dtype, 1e-3)
    small = compare(tmp_path, before, after)
    monkeypatch.setattr(edits, "READ", 2**22)
    monkeypatch.setattr(edits, "BLOCK", 2**19)
    large = compare(tmp_path, before, after)
    pd.testing.assert_frame_equal(small.shares, large.shares)
    pd.testing.assert_frame_equal(small.tensors, large.tensors, rtol=1e-6)
    pd.testing.assert_frame_equal(small.neurons, large.neurons, rtol=1e-6)


def test_no_change_at_all_is_unchanged_by_every_kind(tmp_path: Path) -> None:
    tensors = {"model.layers.0.mlp.up_proj.weight": torch.randn(8, 4), "zero": torch.zeros(3, 3), "one": torch.ones(2)}
    found = compare(tmp_path, tensors, tensors)
    assert (found.shares["unchanged"] == found.shares["parameters"]).all()
    assert (found.tensors[["norm_delta", "max_abs"]] == 0).all(axis=None)
    assert found.tensors["effective_rank"].isna().all()
    assert (found.neurons["magnitude"] == 0).all()
    ratios = found.tensors.set_index("name")["relative_norm"]
    assert ratios["one"] == 0
    assert math.isnan(ratios["zero"])


def test_bfloat16_holds_no_small_relative_change(tmp_path: Path) -> None:
    bits = torch.arange(-(2**15), 2**15 - 1, dtype=torch.int16)  # every finite number and its neighbour
    before, after = bits.view(torch.bfloat16), (bits + 1).view(torch.bfloat16)
    finite = before.isfinite() & after.isfinite()
    before, after = before[finite].clamp(-1e18, 1e18), after[finite].clamp(-1e18, 1e18)  # squares stay finite
    _, shares = of_one(tmp_path, before, after)
    equal = int((before == after).sum())
    for subtraction in ("stored", "float32"):
        assert unchanged(shares, subtraction, "relative") == [equal] * len(THRESHOLDS)
        assert unchanged(shares, subtraction, "relative") == dense_counts(before, after, subtraction)["relative"]


def test_rounding_makes_a_dense_edit_sparse(tmp_path: Path) -> None:
    before = torch.randn(64, 64) * 0.02
    after = before + torch.randn(64, 64) * 1e-5
    shares = {}
    for dtype in (torch.float32, torch.bfloat16):
        _, table = of_one(tmp_path, before.to(dtype), after.to(dtype))
        shares[dtype] = summarise(table).query("kind == 'paper' and subtraction == 'stored'")["share"].item()
    assert shares[torch.float32] < 0.05
    assert shares[torch.bfloat16] > 0.7


@pytest.mark.parametrize(
    ("first", "second"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "bfloat16")]
)
def test_types_may_differ_and_stored_is_that_of_before(first: str, second: str, tmp_path: Path) -> None:
    before = (torch.randn(20, 10) * 0.02).to(getattr(torch, first))
    after = (before.float() * (1 + torch.randn(20, 10) * 1e-3)).to(getattr(torch, second))
    before[0], after[0] = 0.0, 0.0
    after[1] = before[1].to(after.dtype)
    row, shares = of_one(tmp_path, before, after)
    assert row["dtype"] == first
    for subtraction in ("stored", "float32"):
        for kind, counts in dense_counts(before, after, subtraction).items():
            assert unchanged(shares, subtraction, kind) == counts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_difference_that_is_rounded_when_stored_counts_as_it_is_stored(dtype: torch.dtype, tmp_path: Path) -> None:
    steps = torch.arange(-40, 41) / 20_000
    after = torch.cat([limit * (1 + steps) for limit in THRESHOLDS[-3:]]).repeat_interleave(40).to(dtype)
    before = (after.float() * 0.01 * torch.rand(len(after))).to(dtype)  # too small for an exact difference
    _, shares = of_one(tmp_path, before, after)
    counts = {
        subtraction: dense_counts(before, after, subtraction)["absolute"] for subtraction in ("stored", "float32")
    }
    assert counts["stored"] != counts["float32"]
    for subtraction, expected in counts.items():
        assert unchanged(shares, subtraction, "absolute") == expected


def test_a_change_that_rounds_to_nothing_at_zero_is_unchanged_where_it_is_stored(tmp_path: Path) -> None:
    before, after = torch.zeros(4).half(), torch.full((4,), 1e-9)  # half of the smallest float16 is 3e-8
    _, shares = of_one(tmp_path, before, after)
    assert unchanged(shares, "stored", "paper") == [4]
    assert unchanged(shares, "stored", "relative") == [4] * len(THRESHOLDS)
    assert unchanged(shares, "float32", "paper") == [0]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(-1, 1, width=16), st.floats(-1, 1, width=16)), min_size=1, max_size=30),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_any_entries_are_counted_by_the_definitions(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[float, float]], dtype: torch.dtype
) -> None:
    before, step = torch.tensor(pairs).T
    after = before + 1e-3 * step**3
    before, after = before.to(dtype), after.to(dtype)
    _, shares = of_one(tmp_path_factory.mktemp("edits"), before, after)
    for subtraction in ("stored", "float32"):
        for kind, counts in dense_counts(before, after, subtraction).items():
            assert unchanged(shares, subtraction, kind) == counts


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (5, 5), (3, 4, 5), (1, 6), (6, 1)])
def test_the_rank_of_small_matrices_is_exact(shape: tuple[int, ...], tmp_path: Path) -> None:
    change = torch.randn(shape)
    row, _ = of_one(tmp_path, torch.zeros(shape), change)
    assert row["effective_rank_method"] == "exact"
    assert row["effective_rank"] == pytest.approx(participation_ratio(change.reshape(shape[0], -1)), rel=1e-5)


def test_equal_singular_values_are_counted_and_one_direction_counts_once(tmp_path: Path) -> None:
    axes = torch.linalg.qr(torch.randn(30, 30))[0]
    row, _ = of_one(tmp_path, torch.zeros(30, 30), 1e-3 * axes[:, :4] @ axes[:4])
    assert row["effective_rank"] == pytest.approx(4, rel=1e-5)
    row, _ = of_one(tmp_path, torch.zeros(30, 20), torch.outer(torch.randn(30), torch.randn(20)))
    assert row["effective_rank"] == pytest.approx(1, rel=1e-5)


def large(kind: str) -> Tensor:
    torch.manual_seed(7)
    rows, columns = 700, 600
    noise = torch.randn(rows, columns)
    return {
        "full rank": noise,
        "sparse": noise * (torch.rand(rows, columns) < 0.1),
        "rank one": torch.outer(torch.randn(rows), torch.randn(columns)),
        "rank three": torch.randn(rows, 3) @ torch.randn(3, columns),
        "few rows": noise * (torch.rand(rows, 1) < 0.02),
        "orthogonal rows": torch.eye(rows, columns),
        "common part": noise + 0.1 * torch.randn(columns),
        "decaying": torch.linalg.qr(torch.randn(rows, rows))[0] / torch.arange(1, rows + 1) @ noise,
        "one row": noise * (torch.arange(rows) == 5)[:, None],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("full rank", 0.04),
        ("sparse", 0.04),
        ("rank one", 1e-5),
        ("rank three", 0.08),
        ("few rows", 0.02),
        ("orthogonal rows", 1e-5),
        ("common part", 0.1),
        ("decaying", 0.3),
        ("one row", 1e-5),
    ],
)
def test_the_rank_of_large_matrices_is_estimated(
    kind: str, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edits, "READ", 2**18)
    monkeypatch.setattr(edits, "BLOCK", 2**17)
    change = large(kind)
    row, _ = of_one(tmp_path, torch.zeros_like(change), change)
    assert row["effective_rank_method"] == "sketch"
    assert row["effective_rank"] == pytest.approx(participation_ratio(change), rel=tolerance)
    again, _ = of_one(tmp_path, torch.zeros_like(change), change)
    assert row["effective_rank"] == again["effective_rank"]


def test_the_sketch_is_right_on_average_and_errs_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    change = large("full rank")
    squares = change.double().square().sum(dim=1)
    estimates = []
    for seed in range(40):
        monkeypatch.setattr(edits, "SEED", seed)
        sketch = RowSketch(*change.shape)
        sketch.add(slice(500), change[:500])
        sketch.add(slice(500, 700), change[500:])
        estimates.append(sketch.fourth_moment(squares))
    ratios = np.array(estimates) / float((torch.linalg.svdvals(change.double()) ** 4).sum())
    assert ratios.mean() == pytest.approx(1, abs=0.01)
    assert ratios.std() < 2 / edits.BUCKETS


def test_summaries_add_up_over_any_parts(tmp_path: Path) -> None:
    found = compare(tmp_path, *perturbed(MODELS["qwen3"](), torch.bfloat16, 1e-4))
    whole = summarise(found.shares).set_index(["subtraction", "kind", "threshold"])
    assert (whole["parameters"] == found.tensors["parameters"].sum()).all()
    assert len(whole) == 2 * (2 * len(THRESHOLDS) + 1)
    for by in ("name", "layer", "module", "block", ["layer", "block"]):
        parts = summarise(found.shares, by)
        assert (parts["share"] == parts["unchanged"] / parts["parameters"]).all()
        sums = parts.groupby(["subtraction", "kind", "threshold"], dropna=False)["unchanged"].sum()
        assert sums.sort_index().tolist() == whole["unchanged"].sort_index().tolist()
    assert summarise(found.shares, "layer")["layer"].isna().sum() == len(whole)  # embedding and last norm


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    found = compare(tmp_path, {"w": torch.ones(2)}, {"w": torch.ones(2)})
    with pytest.raises(ValueError, match="by = colour: expected columns of name, layer, module, block"):
        summarise(found.shares, ["layer", "colour"])


def test_empty_tensors_and_scalars_have_rows(tmp_path: Path) -> None:
    before = {"empty": torch.zeros(0, 4), "flat": torch.zeros(4, 0), "scale": torch.tensor(2.0)}
    found = compare(tmp_path, before, before | {"scale": torch.tensor(3.0)})
    assert found.tensors["parameters"].tolist() == [0, 0, 1]
    assert found.tensors["norm_delta"].tolist() == [0, 0, 1]
    assert found.neurons.empty


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["before", "after", "both"])
def test_values_that_are_not_finite_are_refused_with_the_tensors_name(value: float, side: str, tmp_path: Path) -> None:
    good = torch.randn(30, 4)
    bad = good.clone()
    bad[17, 2] = value
    before, after = {"before": (bad, good), "after": (good, bad), "both": (bad, bad)}[side]
    with pytest.raises(ValueError, match="w holds values that are not finite"):
        of_one(tmp_path, before, after)


def test_float64_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="w is stored as float64; expected float32 or less"):
        of_one(tmp_path, torch.ones(2, dtype=torch.float64), torch.ones(2))


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError):
        compare(tmp_path, {"w": torch.ones(2)}, {"v": torch.ones(2)})


def test_progress_is_shown_for_large_models_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    of_one(tmp_path, torch.ones(2), torch.ones(2))
    assert not caplog.records
    monkeypatch.setattr(edits, "LARGE", 2)
    of_one(tmp_path, torch.ones(2), torch.ones(2))
    assert [record.getMessage()[:11] for record in caplog.records] == ["edits: done"]
