"""The tiny tokenizer and model, and models that were saved. (What `locate` and imports do is in `test_smollm.py`.)"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossdomain.domains import Item
from crossdomain.domains.arithmetic import Arithmetic
from crossdomain.lineage import Checkpoint
from crossdomain.models import (
    CHARACTERS,
    check_vocabulary,
    load_model,
    load_tokenizer,
    stop_token_ids,
    tiny_model,
    tiny_tokenizer,
)
from crossdomain.profiles import Profile


class OneItem(Arithmetic):
    """Sums with one item more, which a test chooses."""

    def __init__(self, item: Item) -> None:
        self.item = item

    def items(self, split: str) -> list[Item]:
        return [*super().items(split), self.item]


# --- The tiny tokenizer ---


def test_every_character_is_one_token_and_comes_back() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(CHARACTERS)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert len(ids) == len(set(ids)) == len(CHARACTERS) + 1
    assert len(tokenizer) == len(CHARACTERS) + 3
    assert tokenizer.decode(ids, skip_special_tokens=True) == CHARACTERS


@pytest.mark.parametrize("text", ["a b", "  a  ", " , . ?", "(x + 1)*2", "pem gud sol tag"])
def test_blanks_and_signs_come_back_where_they_were(text: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


def test_special_tokens_are_three_of_their_own() -> None:
    tokenizer = tiny_tokenizer()
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.decode([0, 1, 5, 2, 0], skip_special_tokens=True) == CHARACTERS[2]


def test_batches_are_padded_on_the_left() -> None:
    batch = tiny_tokenizer()(["1", "123"], padding=True)
    assert batch["attention_mask"] == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert batch["input_ids"][0][:3] == [0, 0, 1]


def test_the_tokenizer_is_the_same_after_saving(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded, made = load_tokenizer(tmp_path), tiny_tokenizer()
    texts = [CHARACTERS, "a b"]
    assert loaded(texts, padding=True)["input_ids"] == made(texts, padding=True)["input_ids"]
    assert loaded.padding_side == "left"
    assert loaded.decode(loaded("(x + 1)")["input_ids"], skip_special_tokens=True) == "(x + 1)"


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token == "<eos>"


# --- Vocabulary and stops ---


def test_items_of_known_characters_pass() -> None:
    check_vocabulary("math", OneItem(Item("1+1=", "200")), tiny_tokenizer())


@pytest.mark.parametrize(
    "item",
    [Item("1+1ß", "200"), Item("1+1=", "20ß"), Item("1+1=", "200", prefill="ß")],
    ids=["prompt", "answer", "prefill"],
)
def test_an_unknown_character_is_named_with_the_domain(item: Item) -> None:
    with pytest.raises(ValueError, match=r"domain 'sums'.*has no 'ß'"):
        check_vocabulary("sums", OneItem(item), tiny_tokenizer())


def test_a_response_ends_at_the_end_of_sequence() -> None:
    tokenizer = tiny_tokenizer()
    assert stop_token_ids(tokenizer, ()) == [tokenizer.eos_token_id]


def test_a_response_ends_at_every_token_that_holds_a_stop_string() -> None:
    tokenizer = tiny_tokenizer()
    expected = {tokenizer.eos_token_id, *tokenizer(",?", add_special_tokens=False)["input_ids"]}
    assert stop_token_ids(tokenizer, [",", "?"]) == sorted(expected)


# --- Models ---


def test_the_seed_alone_determines_the_initial_weights(smoke: Profile) -> None:
    tokenizer = tiny_tokenizer()
    first, same, other = (tiny_model(smoke, tokenizer, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_the_initial_model_has_the_size_of_the_profile(smoke: Profile) -> None:
    config = tiny_model(smoke, tiny_tokenizer(), 0).config
    assert config.num_hidden_layers == smoke.layers
    assert config.num_attention_heads == smoke.attention_heads
    assert config.num_key_value_heads == smoke.key_value_heads
    for key in ("hidden_size", "intermediate_size", "head_dim"):
        assert getattr(config, key) == getattr(smoke, key)
    assert config.vocab_size == len(CHARACTERS) + 3
    assert config.tie_word_embeddings


def test_a_saved_model_is_loaded_in_float32_for_evaluation(base: Checkpoint) -> None:
    model = load_model(base.artifact.path)
    saved = load_file(base.artifact.path / "model.safetensors")
    assert not model.training
    parameters = dict(model.named_parameters())
    assert parameters.keys() == saved.keys()
    for name, parameter in parameters.items():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, saved[name])


def test_a_snapshot_replaces_all_weights(cw: Checkpoint) -> None:
    weights = cw.artifact.path / "snapshots" / "00002.safetensors"
    snapshot = load_file(weights)
    final, early = load_model(cw.artifact.path), load_model(cw.artifact.path, weights)
    for (name, parameter), last in zip(early.named_parameters(), final.parameters(), strict=True):
        assert torch.equal(parameter, snapshot[name])
        assert not torch.equal(parameter, last), name


def test_tied_embeddings_stay_tied_in_a_snapshot(cw: Checkpoint) -> None:
    model = load_model(cw.artifact.path, cw.artifact.path / "snapshots" / "00002.safetensors")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_a_snapshot_of_another_model_is_refused(cw: Checkpoint, tmp_path: Path) -> None:
    save_file({"other.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(KeyError, match=r"model\.embed_tokens\.weight"):
        load_model(cw.artifact.path, tmp_path / "other.safetensors")
