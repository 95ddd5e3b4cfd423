"""Where results come from."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from crossdomain import provenance
from crossdomain.provenance import code_fingerprint, fingerprint, git_commit, versions

PLAIN = '''
def mean(values):
    """The mean."""
    return sum(values) / len(values)

class Counter:
    count = 0
'''


@pytest.fixture
def fingerprint_of(tmp_path: Path) -> Callable[[str], str]:
    """The fingerprint of a module with that code."""
    module = ModuleType("fingerprinted")
    module.__file__ = str(tmp_path / "fingerprinted.py")

    def written(code: str) -> str:
        (tmp_path / "fingerprinted.py").write_text(code)
        return code_fingerprint(module)

    return written


@pytest.mark.parametrize(
    "code",
    [
        "# A comment.\n" + PLAIN.replace("count = 0", "count = 0  # another"),
        '"""A module docstring."""\n' + PLAIN,
        PLAIN.replace("The mean.", "The arithmetic\n    mean."),
        PLAIN.replace('    """The mean."""\n', ""),
        PLAIN.replace("class Counter:\n", 'class Counter:\n    """Counts."""\n\n'),
        PLAIN.replace("sum(values) / len(values)", "(sum(values)\n            / len(values))"),
    ],
    ids=["comments", "module docstring", "reworded", "docstring gone", "class docstring", "layout"],
)
def test_comments_docstrings_and_layout_leave_the_code_fingerprint(
    fingerprint_of: Callable[[str], str], code: str
) -> None:
    assert fingerprint_of(code) == fingerprint_of(PLAIN)


@pytest.mark.parametrize(
    "code",
    [
        PLAIN.replace("count = 0", "count = 1"),
        PLAIN.replace(" / ", " // "),
        PLAIN.replace("def mean(values)", "def mean(values, axis=0)"),
        PLAIN + "\nEXTRA = 'text'\n",
        PLAIN.replace("    return", "    'text' + 'text'\n    return"),
    ],
    ids=["value", "operator", "signature", "statement", "expression"],
)
def test_statements_change_the_code_fingerprint(fingerprint_of: Callable[[str], str], code: str) -> None:
    assert fingerprint_of(code) != fingerprint_of(PLAIN)


def test_a_function_of_nothing_but_a_docstring_has_a_fingerprint(fingerprint_of: Callable[[str], str]) -> None:
    assert fingerprint_of('def f():\n    """Nothing."""\n') == fingerprint_of("def f():\n    pass\n")


def test_every_module_counts_by_object_or_name() -> None:
    one, two = code_fingerprint(provenance), code_fingerprint(provenance, "crossdomain.domains.base")
    assert one == code_fingerprint("crossdomain.provenance") != two


def test_a_module_without_source_is_refused() -> None:
    module = ModuleType("namespace")
    module.__file__ = None
    with pytest.raises(ValueError, match="namespace has no source"):
        code_fingerprint(module)


def test_the_fingerprint_of_data_ignores_the_order_of_keys_alone() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    different = [{"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": [1]}, {"a": [1, 2]}, {"a": [2, 1]}, {"a": None}, {}]
    assert len({fingerprint(inputs) for inputs in different}) == len(different)


def test_versions_are_public_and_of_installed_packages() -> None:
    found = versions(("torch", "numpy", "no-such-package"))
    assert sorted(found) == ["numpy", "torch"]
    assert all(re.fullmatch(r"\d+(\.\w+)+", version) for version in found.values())


def test_what_decides_trained_weights_is_among_the_recorded_versions() -> None:
    assert set(provenance.DECISIVE) <= set(versions())


def test_the_commit_is_a_hash_that_marks_changes() -> None:
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", git_commit())


def test_the_commit_of_a_changed_tree_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "0" * 40, "status": ""}
    monkeypatch.setattr(provenance, "_git", lambda root, command, *_: answers[command])
    assert git_commit() == "0" * 40
    answers["status"] = " M src/crossdomain/store.py"
    assert git_commit() == "0" * 40 + "+changes"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_commit() == "unknown"


def test_outside_a_repository_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(subprocess, "run", fail)
    assert git_commit() == "unknown"


def test_hardware_is_plain_data() -> None:
    found = provenance.hardware()
    assert json.loads(json.dumps(found)) == found
    assert found["cores"] == os.cpu_count()
    assert found["memory_gib"] > 0
    assert found["processor"]
