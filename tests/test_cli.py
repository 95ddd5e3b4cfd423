"""The command line: one clear message for what a user can mend, and a store that can be looked at and pruned."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from crossdomain import paths
from crossdomain.cli import app
from crossdomain.store import Store


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def kept(name: str) -> Path:
    def make(output: Path, work: Path) -> None:
        (output / "weights").write_text(name)

    return Store(paths.store()).get(name, {"kind": "test", "name": name}, make).path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "77"), "no notebook '77'"),
        (("run", "01", "--profile", "cup"), "no profile 'cup'"),
        (("run", "01", "--profile", "smoke", "--seed", "x"), "different integers"),
        (("run", "01", "--profile", "smoke", "-p", "refresh_stpes=6"), "no parameter 'refresh_stpes'"),
        (("run", "01", "--profile", "smoke", "-p", "generations=5"), "batch_size"),
        (("run", "01", "--profile", "smoke", "-p", "stages=code,poetry"), "poetry"),
        (("run", "01", "--profile", "smoke", "-p", "refresh_steps"), "expected key=value"),
        (("train", "--profile", "smoke", "-p", "steps.math=0"), "steps.math"),
        (("train", "--profile", "smoke", "--part", "half"), "expected one of base"),
        (("diagnose", "--before", "a", "--after", "b", "--prompts", "c"), "a does not exist; expected a checkpoint"),
        (
            ("rollback", "--before", "a", "--after", "b", "--prompts", "c", "--keep", "x", "--out", "o"),
            "--keep x: expected",
        ),
        (
            ("rollback", "--before", "a", "--after", "b", "--prompts", "c", "--keep", "5%", "--out", "."),
            "exists already",
        ),
    ],
)
def test_mistakes_get_one_message_and_train_nothing(arguments: tuple[str, ...], said: str) -> None:
    status, output = invoke(*arguments)
    assert status == 2
    assert output.startswith("error: ") and said in output
    assert "Traceback" not in output
    assert not paths.store().exists()


def test_the_store_is_listed_and_verified() -> None:
    path = kept("whole")
    assert "whole" in invoke("store", "list")[1]
    assert invoke("store", "verify") == (0, "1 whole, 0 damaged and set aside\n")
    (path / "weights").write_text("WHOLE")
    assert invoke("store", "verify")[0] == 1
    assert not path.exists()


def test_pruning_deletes_what_no_run_uses_and_only_when_told() -> None:
    used, unused = kept("used"), kept("unused")
    references = paths.run("smoke", [0]) / "uses"
    references.mkdir(parents=True)
    (references / "base").write_text(used.name + "\n")
    assert f"not used: {unused}" in invoke("store", "prune")[1]
    assert unused.exists()
    invoke("store", "prune", "--yes")
    assert used.exists() and not unused.exists()


def test_a_run_that_was_not_executed_has_no_verdict_and_trains_nothing() -> None:
    status, output = invoke("claims", "--profile", "smoke", "--seed", "0")
    assert status == 0 and output.count("not testable here") == output.count("was not run") > 0
    assert not paths.store().exists()


def test_verification_without_a_reference_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles").symlink_to(paths.root() / "profiles")
    monkeypatch.setenv("CROSSDOMAIN_HOME", str(tmp_path))
    status, output = invoke("verify", "--profile", "smoke")
    assert status == 2 and output.startswith("error: ") and "crossdomain promote --profile smoke" in output
