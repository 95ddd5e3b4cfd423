"""Coordinates of checkpoints on disk: scored, chosen, taken back and written, against the same in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from crossdomain import checkpoint_rollback, rollback
from crossdomain.checkpoint_rollback import Difference, RolledBack, Scores, threshold
from crossdomain.curvature import ParameterSpace
from crossdomain.objectives import parameters
from crossdomain.weights import Delta, Weights
from families import CONFIGS, model


class Given:
    """Scores that are given."""

    def __init__(self, scores: dict[str, Tensor]) -> None:
        self.scores = scores

    names = property(lambda self: sorted(self.scores))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.scores[name].shape)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return self.scores[name][start:stop]


class Pair:
    """A model before and after a random update of a part of its entries, saved, with a random Fisher diagonal."""

    def __init__(self, folder: Path, family: str = "gpt2", dtype: torch.dtype = torch.float32, **options: str) -> None:
        self.before, self.after = folder / "before", folder / "after"
        whole = model(family, dtype)
        whole.save_pretrained(self.before, **options)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in whole.parameters():
                moved = torch.rand(parameter.shape, generator=generator) < 0.5
                parameter += moved * 0.1 * torch.randn(parameter.shape, generator=generator)
        whole.save_pretrained(self.after, **options)
        self.delta = Delta(Weights(self.before), Weights(self.after))
        fisher = {name: torch.rand(self.delta.shape(name), generator=generator) for name in self.delta.names}
        save_file(fisher, folder / "fisher.safetensors")
        self.fisher = Weights(folder / "fisher.safetensors")

    def flat(self, vector: object) -> Tensor:
        return torch.cat([vector.rows(n, 0, self.delta.shape(n)[0]).flatten() for n in self.delta.names])  # type: ignore[attr-defined]


def load(path: Path) -> PreTrainedModel:
    found: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
    return found


@given(
    values=st.lists(st.floats(0, 2.0**99, width=32), min_size=1, max_size=60),
    count=st.integers(1, 80),
)
def test_the_threshold_is_the_score_of_the_last_that_is_taken(values: list[float], count: int) -> None:
    scores = torch.tensor(values)
    given_scores = Given({"a": scores[: len(scores) // 2], "b": scores[len(scores) // 2 :]})
    positive = scores[scores > 0].sort(descending=True).values
    if len(positive) == 0:
        with pytest.raises(ValueError, match="no coordinate has a score above 0"):
            threshold(given_scores, count)
    else:
        assert threshold(given_scores, count) == positive[min(count, len(positive)) - 1]


def test_scores_that_mean_nothing_are_refused() -> None:
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="w: expected finite scores of 0 or more"):
            threshold(Given({"w": torch.tensor([1.0, bad])}), 1)
    with pytest.raises(ValueError, match="count = 0"):
        threshold(Given({"w": torch.ones(2)}), 0)


@pytest.mark.parametrize("count", [1, 100, 2000])
def test_what_is_taken_back_is_what_the_ranking_in_memory_puts_first(tmp_path: Path, count: int) -> None:
    pair = Pair(tmp_path)
    scores = Scores.fisher(pair.delta, pair.fisher)
    repaired = RolledBack(scores, threshold(scores, count))
    delta = pair.flat(pair.delta)
    ranked = rollback.ranking(rollback.fisher_scores(pair.flat(pair.fisher), delta))[:count]
    expected = pair.flat(Weights(pair.before)) + rollback.rolled_back(delta, ranked, 1.0)
    torch.testing.assert_close(pair.flat(repaired), expected, rtol=0, atol=1e-7)
    assert repaired.count() == count
    left = pair.flat(Difference(repaired, Weights(pair.before)))
    torch.testing.assert_close(left, rollback.rolled_back(delta, ranked, 1.0), rtol=0, atol=1e-7)


def test_controls_take_as_many_by_size_and_at_random(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    delta = pair.flat(pair.delta)
    scores = Scores.magnitude(pair.delta)
    largest = RolledBack(scores, threshold(scores, 50))
    left = pair.flat(Difference(largest, Weights(pair.before))).abs()
    assert left.max() < delta.abs().topk(50).values.min()
    first, again, other = (Scores.random(pair.delta, seed) for seed in (0, 0, 1))
    assert torch.equal(pair.flat(first), pair.flat(again)) and not torch.equal(pair.flat(first), pair.flat(other))
    assert torch.equal(pair.flat(first) > 0, delta != 0)
    name = max(pair.delta.names, key=lambda n: pair.delta.shape(n)[0])
    assert torch.equal(first.rows(name, 2, 5), first.rows(name, 0, 9)[2:5])
    assert RolledBack(first, threshold(first, 50)).count() == 50


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_written_checkpoint_loads_and_holds_before_where_it_was_taken_and_after_elsewhere(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    pair = Pair(tmp_path, family, dtype)
    scores = Scores.fisher(pair.delta, pair.fisher)
    repaired = RolledBack(scores, threshold(scores, 500))
    taken = checkpoint_rollback.write(pair.after, repaired, tmp_path / "repaired")
    found, before, after = (parameters(load(tmp_path / name)) for name in ("repaired", "before", "after"))
    assert taken == repaired.count() >= 500
    for name, value in found.items():
        mask = repaired.taken(name, 0, len(value))
        assert value.dtype == dtype and torch.equal(value, torch.where(mask, before[name], after[name]))


def test_shards_their_index_and_other_files_are_those_of_after_but_pickles_are_left(tmp_path: Path) -> None:
    pair = Pair(tmp_path, max_shard_size="10KB")
    (pair.after / "tokenizer.json").write_text("{}")
    (pair.after / "pytorch_model.bin").touch()
    (pair.after / "snapshots").mkdir()
    scores = Scores.magnitude(pair.delta)
    checkpoint_rollback.write(pair.after, RolledBack(scores, threshold(scores, 300)), tmp_path / "new" / "repaired")
    left, made = ({file.name for file in path.iterdir()} for path in (pair.after, tmp_path / "new" / "repaired"))
    assert len(list(pair.after.glob("*.safetensors"))) > 1
    assert left - made == {"pytorch_model.bin", "snapshots"} and made < left
    assert ParameterSpace(parameters(load(tmp_path / "new" / "repaired"))).size == len(pair.flat(pair.delta))


def test_a_second_copy_of_a_tied_head_is_repaired_like_the_embedding(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "qwen3")
    for path in (pair.before, pair.after):
        held = load_file(path / "model.safetensors")
        save_file({**held, "lm_head.weight": held["model.embed_tokens.weight"].clone()}, path / "model.safetensors")
    delta = Delta(Weights(pair.before), Weights(pair.after))
    scores = Scores.magnitude(delta)
    checkpoint_rollback.write(pair.after, RolledBack(scores, threshold(scores, 3000)), tmp_path / "repaired")
    found = load_file(tmp_path / "repaired" / "model.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    assert not torch.equal(found["lm_head.weight"], load_file(pair.after / "model.safetensors")["lm_head.weight"])


def test_nothing_is_overwritten_and_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(tmp_path)
    scores = Scores.magnitude(pair.delta)
    repaired = RolledBack(scores, threshold(scores, 10))
    with pytest.raises(FileExistsError, match=r"--out .*after exists already"):
        checkpoint_rollback.write(pair.after, repaired, pair.after)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_rollback, "_overwrite", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            checkpoint_rollback.write(pair.after, repaired, tmp_path / "repaired")
    assert not (tmp_path / "repaired").exists()
    checkpoint_rollback.write(pair.after, repaired, tmp_path / "repaired")
    assert json.loads((tmp_path / "repaired" / "config.json").read_text())["model_type"] == "gpt2"


@pytest.mark.parametrize(("text", "percent"), [("5%", 5.0), ("0.5 %", 0.5), ("100", 100.0)])
def test_percent_are_read_with_and_without_their_sign(text: str, percent: float) -> None:
    assert checkpoint_rollback.parse_percent(text) == percent


@pytest.mark.parametrize("text", ["", "0%", "101%", "nan", "five", "-1"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"--keep {text}: expected percent of the parameters"):
        checkpoint_rollback.parse_percent(text)
