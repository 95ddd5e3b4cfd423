"""Sealed trainer checkpoints: only whole ones are resumed from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from crossdomain.resume import SEAL, SealCallback, last_sealed, seal


def write_checkpoint(work: Path, step: int) -> Path:
    checkpoint = work / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(bytes(range(step, step + 100)))
    (checkpoint / "trainer_state.json").write_text("{}")
    return checkpoint


@pytest.fixture
def sealed(tmp_path: Path) -> list[Path]:
    """Whole checkpoints, in an order of steps that is not that of their names."""
    checkpoints = [write_checkpoint(tmp_path, step) for step in (2, 9, 10)]
    for checkpoint in checkpoints:
        seal(checkpoint)
    return checkpoints


def test_there_is_nothing_to_resume_from_in_an_empty_directory(tmp_path: Path) -> None:
    assert last_sealed(tmp_path) is None


def test_the_newest_whole_checkpoint_wins(tmp_path: Path, sealed: list[Path]) -> None:
    assert last_sealed(tmp_path) == sealed[-1]
    assert all(checkpoint.is_dir() for checkpoint in sealed)


def test_sealing_again_covers_what_was_added(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 2)
    seal(checkpoint)
    (checkpoint / "optimizer.pt").write_text("state")
    seal(checkpoint)
    assert last_sealed(tmp_path) == checkpoint
    (checkpoint / "optimizer.pt").write_text("other")
    assert last_sealed(tmp_path) is None


def flip_a_byte(checkpoint: Path) -> None:
    content = bytearray((checkpoint / "model.safetensors").read_bytes())
    content[50] ^= 1
    (checkpoint / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: (path / SEAL).unlink(), id="never sealed"),
        pytest.param(lambda path: (path / SEAL).write_text('{"model.safe'), id="half a seal"),
        pytest.param(lambda path: (path / SEAL).write_text("[]"), id="not a seal"),
        pytest.param(lambda path: (path / "model.safetensors").write_bytes(b"\0\1"), id="truncated file"),
        pytest.param(lambda path: (path / "trainer_state.json").unlink(), id="missing file"),
        pytest.param(flip_a_byte, id="flipped byte"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_removed_and_the_one_before_is_used(
    tmp_path: Path, sealed: list[Path], caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    harm(sealed[-1])
    assert last_sealed(tmp_path) == sealed[-2]
    assert not sealed[-1].exists()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert str(sealed[-1]) in warning
    assert "not whole" in warning


def test_without_a_whole_checkpoint_all_are_removed(tmp_path: Path) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step)
    assert last_sealed(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_trainer_callback_seals_the_checkpoint_just_saved(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 4)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    SealCallback().on_save(arguments, TrainerState(global_step=4), TrainerControl())
    assert last_sealed(tmp_path) == checkpoint
