"""Progress: a bar at a terminal, lines now and then in a log."""

from __future__ import annotations

import io
import logging
import os
import sys
import termios
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from crossdomain import progress
from crossdomain.progress import Progress, ProgressCallback


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged where there is no terminal."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, "crossdomain.progress")
    return caplog


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    with Progress("math, seed 0", 100) as shown:
        for step in range(1, 101):
            clock.now += 1
            shown.to(step, reward=step / 100)
    assert log.messages == [
        "math, seed 0: 30 of 100 after 30 s  reward 0.3",
        "math, seed 0: 60 of 100 after 60 s  reward 0.6",
        "math, seed 0: 90 of 100 after 90 s  reward 0.9",
        "math, seed 0: done in 100 s",
    ]


def test_short_work_gets_one_line(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    with Progress("cw", 2) as shown:
        shown.to(1)
        shown.to(2)
    assert log.messages == ["cw: done in 0 s"]


def test_failed_work_is_not_called_done(clock: Clock, log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), Progress("cw", 2) as shown:
        shown.to(1)
        raise ZeroDivisionError
    assert log.messages == []


def test_a_terminal_named_by_the_runner_gets_a_bar_and_the_log_no_lines(
    clock: Clock,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    screen = tmp_path / "screen"
    monkeypatch.setenv("CROSSDOMAIN_TTY", str(screen))
    with Progress("math, seed 0", 4) as shown:
        for step in range(1, 5):
            clock.now += 60
            shown.to(step, reward=0.25)
    assert log.messages == ["math, seed 0: done in 240 s"]
    drawn = screen.read_bytes()
    assert drawn.count(b"\r") > 1
    assert b"math, seed 0" in drawn
    assert b"0/4" in drawn


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, screen = os.openpty()
    termios.tcsetwinsize(screen, (24, 80))
    os.set_blocking(keyboard, False)
    with os.fdopen(screen, "w") as terminal, os.fdopen(keyboard, "rb", buffering=0) as camera:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress("math, seed 0", 4) as shown:
            shown.to(2, reward=0.25)
        assert not terminal.closed
        assert b"math, seed 0" in camera.read(4_096)


def test_the_trainer_callback_shows_step_and_chosen_values(
    clock: Clock, log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    logs = {"reward": 0.5, "loss": 0.1, "entropy": None}
    with Progress("cw", 10) as shown:
        clock.now += 60
        callback = ProgressCallback(shown, "reward", "entropy")
        callback.on_log(arguments, TrainerState(global_step=7), TrainerControl(), logs=logs)
    assert log.messages[0] == "cw: 7 of 10 after 60 s  reward 0.5"
