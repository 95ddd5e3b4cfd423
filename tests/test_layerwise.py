"""A decoder run piece by piece against the model itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, T5Config

from crossdomain.layerwise import Decoder
from crossdomain.objectives import parameters
from families import CONFIGS, VOCABULARY, model

IDS = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
BATCH = {"ids": IDS, "targets": IDS[:, 4:]}


@pytest.mark.parametrize("family", CONFIGS)
def test_pieces_in_their_order_give_the_models_logits_to_the_bit(family: str) -> None:
    whole, decoder = model(family), Decoder(CONFIGS[family], torch.float64)
    params, hidden = parameters(whole), torch.empty(0)
    batch = {**BATCH, "calls": decoder.arguments(BATCH)}
    with torch.no_grad():
        for piece in decoder.pieces:
            hidden = piece.run({name: params[name] for name in piece.names}, hidden, batch)
        expected = whole(input_ids=IDS, logits_to_keep=5).logits
    assert torch.equal(hidden, expected)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_parameter_is_in_one_piece_and_a_tied_embedding_in_the_first_and_the_last(family: str) -> None:
    decoder = Decoder(CONFIGS[family])
    found = [name for piece in decoder.pieces for name in piece.names]
    assert {*found} == {*decoder.names} == {*parameters(model(family))}
    assert len(found) == len(decoder.names) + len(decoder.tied)
    assert decoder.tied == ([] if family == "llama" else [decoder.pieces[0].names[0]])
    assert {name: decoder.shape(name) for name in found} == {
        n: tuple(p.shape) for n, p in parameters(model(family)).items()
    }


def test_the_blocks_are_as_they_were_after_a_run() -> None:
    decoder = Decoder(CONFIGS["qwen3"])
    first, second = decoder.arguments(BATCH), decoder.arguments(BATCH)
    assert len(first) == len(second) == 3
    assert torch.equal(first[0][1]["position_embeddings"][0], second[0][1]["position_embeddings"][0])


def test_a_saved_checkpoint_is_known_by_its_names(tmp_path: Path) -> None:
    whole = model("llama", torch.bfloat16)
    whole.save_pretrained(tmp_path / "whole")
    assert Decoder.of(tmp_path / "whole").names == list(parameters(whole))
    whole.model.save_pretrained(tmp_path / "headless")  # without `model.` before its names
    with pytest.raises(ValueError, match=r"tensors are only in the checkpoint or only in the model.*save_pretrained"):
        Decoder.of(tmp_path / "headless")


def test_a_model_of_another_kind_is_refused() -> None:

    with pytest.raises(TypeError, match=r"BloomForCausalLM: expected a model of a supported family: Qwen3, Llama"):
        Decoder(BloomConfig(vocab_size=8, hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match="T5Config"):
        Decoder(T5Config(vocab_size=8, d_model=8, num_layers=1, num_heads=2))
