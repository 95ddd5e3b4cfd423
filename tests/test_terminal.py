"""The terminal of a person, if there is one."""

from pathlib import Path

import pytest

from crossdomain import terminal


def test_without_a_terminal_there_is_none(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert terminal.terminal() is None
    monkeypatch.setenv(terminal.VARIABLE, str(tmp_path / "missing" / "tty"))
    assert terminal.terminal() is None


def test_a_notebook_speaks_on_the_terminal_of_its_runner(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(terminal.VARIABLE, str(tmp_path / "tty"))
    opened = terminal.terminal()
    assert opened is not None
    with opened:
        assert opened.name == str(tmp_path / "tty")
