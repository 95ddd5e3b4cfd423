"""Which backend a profile opens, what keys its results, and one clear line where it is missing or fails."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typer.testing import CliRunner

from crossdomain import backends, evaluation
from crossdomain.backends import BackendError, Engine, base, vllm_engine
from crossdomain.backends.vllm_engine import VLLM
from crossdomain.cli import app
from crossdomain.generation import generate_ids
from crossdomain.lineage import Lineage
from crossdomain.models import load_model, load_tokenizer
from crossdomain.profiles import Profile, load_profile

SIZES = {"dtype": "float32", "memory": 0.1, "sequences": 8, "length": 64}


@pytest.fixture
def without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    find = base.find_spec
    monkeypatch.setattr(base, "find_spec", lambda name: None if name == "vllm" else find(name))


def never() -> Path:
    raise AssertionError("no directory is needed")


class Replayed(Engine):
    """What a transformers policy would generate, as an engine; it notes what it is asked."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.model, self.tokenizer, self.options = load_model(directory), load_tokenizer(directory), options
        self.asked: list[tuple[float, int]] = []
        self.closed = False

    def complete(
        self,
        prompts: Sequence[list[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        temperature: float,
        seeds: Sequence[int],
    ) -> list[list[int]]:
        self.asked.append((temperature, len(prompts)))
        assert all(len(prompt) + max_new_tokens <= self.options["length"] for prompt in prompts)
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts]
        return generate_ids(
            self.model, self.tokenizer, texts, max_new_tokens=max_new_tokens, stop=stop, temperature=temperature
        )

    def close(self) -> None:
        self.closed = True


def test_transformers_is_the_default_of_every_profile_but_the_papers() -> None:
    for name in ("smoke", "cpu", "cpu-noise", "smollm"):
        profile = load_profile(name)
        assert (profile.generation_backend, profile.rollouts) == ("transformers", "transformers")
        assert backends.inputs(profile, profile.generation_backend) == {}


def test_transformers_needs_no_engine(profile: Profile, model: PreTrainedModel, without_vllm: None) -> None:
    backends.check(profile)
    with backends.opened(profile, lambda: model, "policy", never, lambda: 64) as policy:
        assert policy is model


@pytest.mark.parametrize("setting", ["generation_backend", "rollouts"])
def test_missing_vllm_is_said_before_anything_is_trained(setting: str, without_vllm: None) -> None:
    with pytest.raises(BackendError) as error:
        backends.check(load_profile("smoke", {setting: "vllm"}))
    assert str(error.value) == (
        f"{setting}: vllm is not installed; run `pip install -e '.[vllm]'` (without a GPU: "
        f"`pip install --no-deps -r requirements-vllm.lock`), or set {setting}: transformers"
    )
    done = CliRunner().invoke(app, ["train", "--profile", "smoke", "-p", f"{setting}=vllm"])
    assert done.exit_code == 2
    assert done.output.strip().splitlines() == [f"error: {error.value}"]


def test_missing_vllm_is_said_where_it_is_opened(directory: Path, without_vllm: None) -> None:
    with pytest.raises(BackendError, match="vllm is not installed"):
        VLLM(directory, **SIZES)


def failing_vllm(monkeypatch: pytest.MonkeyPatch, printed: str) -> None:
    """A vllm whose processes print something and which then does not start."""

    def start(**_: Any) -> None:
        print(printed, file=sys.stderr, flush=True)
        raise RuntimeError("Engine core initialization failed.\nSee root cause above.")

    module = types.ModuleType("vllm")
    module.LLM = start  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(vllm_engine, "require_vllm", lambda setting: None)


@pytest.mark.parametrize(
    ("printed", "cause"),
    [
        (
            "Traceback (most recent call last):\n  ...\nValueError: no kernel for head_dim 16\n",
            "ValueError: no kernel for",
        ),
        ("nothing of use", "RuntimeError: Engine core initialization failed. See root cause above."),
    ],
)
def test_a_failed_start_is_said_in_one_line_with_its_cause(
    printed: str,
    cause: str,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with capfd.disabled():  # file descriptors are redirected for real
        failing_vllm(monkeypatch, printed)
        with pytest.raises(BackendError, match="generation_backend: vllm does not start") as error:
            VLLM(directory, **SIZES)
    message = str(error.value)
    assert cause in message and str(directory) in message and "\n" not in message
    assert message.endswith("or set generation_backend: transformers")


def test_what_vllm_prints_does_not_reach_the_terminal(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log:
        with vllm_engine.redirected(log):
            os.write(1, b"loading\n")  # as a child process does
            os.write(2, b"warning\n")
        os.write(1, b"after\n")
        assert (tmp_path / "log").read_text() == "loading\nwarning\n"
    assert capfd.readouterr() == ("after\n", "")


def test_the_engines_arithmetic_is_trainings() -> None:
    assert backends.engine_dtype(load_profile("smoke")) == "float32"
    assert backends.engine_dtype(load_profile("smoke", "precision=bf16-autocast")) == "bfloat16"
    assert backends.engine_dtype(load_profile("smoke", "weights=bfloat16")) == "bfloat16"


def test_the_backend_keys_what_it_generates(lineage: Lineage) -> None:
    def settings(**changes: Any) -> dict[str, Any]:
        profile = load_profile("smoke", changes)
        return backends.inputs(profile, profile.generation_backend)

    server = {"generation_backend": "server", "generation_server": "http://localhost:8000/v1"}
    found = [
        settings(),
        settings(generation_backend="vllm"),
        settings(generation_backend="vllm", precision="bf16-autocast"),
        settings(**server),
    ]
    assert len({str(inputs) for inputs in found}) == 4
    assert settings(**server) == settings(**server | {"generation_server": "http://other:8000/v1"})
    assert settings(generation_backend="vllm", vllm_memory=0.5) == settings(generation_backend="vllm")


@pytest.mark.parametrize("name", ["cw", "cw@12"])
def test_an_evaluation_generates_by_the_profiles_engine(
    name: str, lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint's directory or, of a snapshot, one made for it; the probabilities stay with transformers."""
    lineage.checkpoint("cw")
    used: list[Replayed] = []

    def engine(directory: Path, **options: Any) -> Replayed:
        used.append(Replayed(directory, **options))
        return used[-1]

    monkeypatch.setattr(backends, "VLLM", engine)
    profile = lineage.profile
    variant = Lineage(profile.override({"generation_backend": "vllm"}), 0, lineage.store)
    monkeypatch.setattr(lineage, "_trained", lambda stage: pytest.fail("trained again"))
    variant._found = lineage._found
    variant.checkpoint(name)
    plain, found = evaluation.scores(lineage, name), evaluation.scores(variant, name)
    (only,) = used
    assert only.closed and only.options["dtype"] == "float32"
    assert {temperature for temperature, _ in only.asked} == {0.0, 1.0}
    for table in (plain, found):
        assert set(table["estimate"]) == {"exact", "sampled", "greedy"}
    same = ["exact", "greedy"]
    pd.testing.assert_frame_equal(
        plain[plain["estimate"].isin(same)].reset_index(drop=True),
        found[found["estimate"].isin(same)].reset_index(drop=True),
    )


def test_several_greedy_responses_are_refused(directory: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="greedy decoding gives one response"):
        generate_ids(Replayed(directory, length=64), tokenizer, ["9"], max_new_tokens=3, stop=[2], samples=2)
