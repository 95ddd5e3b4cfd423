"""A policy that vLLM can load (its kernels on a CPU know heads of 32 and more), and prompts of different lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain.models import load_model, tiny_model, tiny_tokenizer
from crossdomain.profiles import Profile, load_profile

SIZES = "head_dim=32 hidden_size=64 attention_heads=2 key_value_heads=1"
PROMPTS = ["71+95=", "1>13,2>19:", "gud,ag:", "tud.q:su,ba,pi,sa?", "9", "12-7=", "3>4,4>5:", "b"]


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return PROMPTS


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile("smoke", SIZES)


@pytest.fixture(scope="session")
def directory(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy; its tied embedding is enlarged so that it has preferences."""
    path = tmp_path_factory.mktemp("policy") / "policy.0123"
    tokenizer = tiny_tokenizer()
    model = tiny_model(profile, tokenizer, seed=0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(5)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def model(directory: Path) -> PreTrainedModel:
    return load_model(directory)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return tiny_tokenizer()
