"""The store: artifacts made once, whole or not at all, whatever happens to the process, the disk or the files."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import StartPython
from crossdomain import provenance
from crossdomain import store as store_module
from crossdomain.store import MANIFEST, Artifact, Store, StoreError, damage, sha256

INPUTS = {"steps": 3, "settings": {"a": 1, "b": [1.5, None]}}


class Maker:
    """Makes two files, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, output: Path, work: Path) -> None:
        self.calls += 1
        (output / "weights").write_bytes(bytes(range(256)) * 40)
        (output / "sub").mkdir()
        (output / "sub" / "log.csv").write_text("step,reward\n1,0.5\n")


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def artifact(store: Store, make: Maker) -> Artifact:
    return store.get("thing", INPUTS, make)


# --- Made once ---


def test_equal_inputs_are_read_and_not_made_again(store: Store, make: Maker) -> None:
    first = store.get("thing", INPUTS, make)
    second = Store(store.root).get("thing", dict(reversed(INPUTS.items())), make)
    assert make.calls == 1
    assert first == second


@pytest.mark.parametrize(
    ("name", "inputs"),
    [("other", INPUTS), ("thing", {**INPUTS, "steps": 4}), ("thing", {**INPUTS, "more": None}), ("thing", {})],
)
def test_other_inputs_or_names_are_made(
    store: Store, make: Maker, artifact: Artifact, name: str, inputs: dict[str, object]
) -> None:
    other = store.get(name, inputs, make)
    assert make.calls == 2
    assert other.path != artifact.path
    assert damage(artifact.path) is None


def test_long_names_are_kept_under_a_usable_key(store: Store, make: Maker) -> None:
    first = store.get("-".join(["math"] * 80), {"stage": 1}, make)
    second = store.get("-".join(["math"] * 80), {"stage": 2}, make)
    assert first.path != second.path
    assert first.path.is_dir()


def test_the_manifest_says_how_the_artifact_was_made(artifact: Artifact) -> None:
    manifest = json.loads((artifact.path / MANIFEST).read_text())
    assert manifest == artifact.manifest
    assert manifest["key"] == artifact.key == artifact.path.name
    assert manifest["name"] == "thing"
    assert manifest["inputs"] == INPUTS
    assert manifest["files"] == {
        name: {"sha256": sha256(artifact.path / name), "bytes": (artifact.path / name).stat().st_size}
        for name in ("sub/log.csv", "weights")
    }
    assert manifest["wall_seconds"] >= 0 and manifest["core_seconds"] >= 0
    assert manifest["peak_memory_gib"] > 0
    assert manifest["hardware"] == provenance.hardware()
    assert manifest["versions"] == provenance.versions()
    assert manifest["commit"] == provenance.git_commit()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest["made"])


def test_an_artifacts_size_is_that_of_its_files(artifact: Artifact) -> None:
    assert artifact.size == 256 * 40 + len("step,reward\n1,0.5\n")


def test_all_artifacts_are_listed_by_name(store: Store, make: Maker) -> None:
    assert list(store.artifacts()) == []
    made = [store.get(name, INPUTS, make) for name in ("b", "a")]
    assert list(store.artifacts()) == made[::-1]


def test_finding_what_is_not_there_makes_nothing(store: Store) -> None:
    assert store.find("thing.0000") is None
    assert not store.root.exists()


# --- Damage ---


def truncate(path: Path) -> None:
    with (path / "weights").open("r+b") as stream:
        stream.truncate(100)


def flip_a_byte(path: Path) -> None:
    content = bytearray((path / "weights").read_bytes())
    content[1_000] ^= 1
    (path / "weights").write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        pytest.param(truncate, "weights has 100 bytes instead of 10240", id="truncated file"),
        pytest.param(flip_a_byte, "weights has another checksum", id="flipped byte"),
        pytest.param(lambda path: (path / "weights").unlink(), "weights is missing", id="missing file"),
        pytest.param(lambda path: shutil.rmtree(path / "sub"), "sub/log.csv is missing", id="missing directory"),
        pytest.param(lambda path: (path / MANIFEST).unlink(), f"{MANIFEST} cannot be read", id="missing manifest"),
        pytest.param(
            lambda path: (path / MANIFEST).write_text("{"), f"{MANIFEST} cannot be read", id="half a manifest"
        ),
        pytest.param(lambda path: (path / MANIFEST).write_text("[]"), f"{MANIFEST} cannot be read", id="not a mapping"),
        pytest.param(lambda path: (path / MANIFEST).write_text("{}"), f"{MANIFEST} cannot be read", id="no files"),
        pytest.param(lambda path: (path / MANIFEST).write_bytes(b"\xff\0"), f"{MANIFEST} cannot be read", id="no text"),
    ],
)
def test_a_damaged_artifact_is_set_aside_and_made_again(
    store: Store,
    make: Maker,
    artifact: Artifact,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path], None],
    named: str,
) -> None:
    harm(artifact.path)
    again = store.get("thing", INPUTS, make)
    assert make.calls == 2
    assert again.key == artifact.key
    assert damage(again.path) is None
    (aside,) = (store.root / ".damaged").iterdir()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert named in warning
    assert str(aside) in warning
    assert damage(aside) is not None


def test_artifacts_that_cannot_be_read_are_not_listed(store: Store, artifact: Artifact) -> None:
    (artifact.path / MANIFEST).write_text("{")
    assert list(store.artifacts()) == []


# --- Interruptions ---


def test_an_interrupted_make_leaves_its_work_and_no_artifact(store: Store, make: Maker) -> None:
    def fail(output: Path, work: Path) -> None:
        (output / "half").write_text("half")
        (work / "state").write_text("step 5")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("thing", INPUTS, fail)
    key = store.key("thing", INPUTS)
    assert store.find(key) is None
    assert list(store.artifacts()) == []
    assert store.leftovers() == [store.root / ".partial" / key]

    def resume(output: Path, work: Path) -> None:
        assert list(output.iterdir()) == []
        assert (work / "state").read_text() == "step 5"
        make(output, work)

    finished = store.get("thing", INPUTS, resume)
    assert sorted(finished.manifest["files"]) == ["sub/log.csv", "weights"]
    assert store.leftovers() == []


def test_the_time_of_interrupted_tries_is_counted(store: Store, make: Maker) -> None:
    partial = store.root / ".partial" / store.key("thing", INPUTS)
    partial.mkdir(parents=True)
    (partial / "seconds").write_text("1000 900")
    manifest = store.get("thing", INPUTS, make).manifest
    assert 1000 <= manifest["wall_seconds"] < 2000
    assert 900 <= manifest["core_seconds"] < 1000


def test_other_errors_are_passed_on_as_they_are(store: Store) -> None:
    def fail(output: Path, work: Path) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        store.get("thing", INPUTS, fail)


def test_a_lock_file_that_nobody_holds_does_not_block(store: Store, make: Maker) -> None:
    locks = store.root / ".locks"
    locks.mkdir(parents=True)
    (locks / f"{store.key('thing', INPUTS)}.lock").write_text("4711")
    store.get("thing", INPUTS, make)
    assert make.calls == 1


# --- A full disk ---


def fill_disk(output: Path, work: Path) -> None:
    (work / "state").write_text("step 5")
    with Path("/dev/full").open("w") as stream:
        stream.write("weights")


def raise_enospc(output: Path, work: Path) -> None:
    (work / "state").write_text("step 5")
    (output / "weights").write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights")


def raise_like_a_library(output: Path, work: Path) -> None:
    (work / "state").write_text("step 5")
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("fail", [fill_disk, raise_enospc, raise_like_a_library])
def test_a_full_disk_is_explained_and_the_next_try_resumes(
    store: Store, make: Maker, fail: Callable[[Path, Path], None]
) -> None:
    with pytest.raises(StoreError) as caught:
        store.get("thing", INPUTS, fail)
    message, key = str(caught.value), store.key("thing", INPUTS)
    for part in ("no space left", str(store.root), key, "crossdomain store prune", "CROSSDOMAIN_STORE", "again"):
        assert part in message
    assert not (store.root / key).exists()

    def resume(output: Path, work: Path) -> None:
        assert (work / "state").read_text() == "step 5"
        make(output, work)

    assert damage(store.get("thing", INPUTS, resume).path) is None


def test_a_disk_that_fills_up_at_the_very_end_leaves_no_artifact(
    store: Store, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_flush", fail)
        with pytest.raises(StoreError, match="no space left"):
            store.get("thing", INPUTS, make)
    assert list(store.artifacts()) == []
    assert damage(store.get("thing", INPUTS, make).path) is None


def test_a_disk_too_full_for_a_lock_is_explained(store: Store, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "_lock", fail)
    with pytest.raises(StoreError, match="no space left"):
        store.get("thing", INPUTS, make)


# --- Several processes ---

MAKE_WHEN_TOLD = """
import logging, sys, time
from pathlib import Path
from crossdomain.store import Store

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
root, go = sys.argv[1:]

def make(output, work):
    (work / "state").write_text("step 5")
    print("making", flush=True)
    while not Path(go).exists():
        time.sleep(0.01)
    (output / "weights").write_text("whole")

print(Store(root).get("thing", {"steps": 3}, make).key, flush=True)
"""


def test_two_processes_that_ask_for_the_same_make_it_once(
    store: Store, tmp_path: Path, start_python: StartPython
) -> None:
    key, go = store.key("thing", {"steps": 3}), tmp_path / "go"
    first = start_python(MAKE_WHEN_TOLD, store.root, go)
    assert first.stdout is not None and first.stdout.readline() == "making\n"
    second = start_python(MAKE_WHEN_TOLD, store.root, go)
    assert second.stdout is not None and "being made by another process" in second.stdout.readline()
    go.touch()
    assert first.stdout.read().splitlines() == [key]
    assert second.stdout.read().splitlines() == [key]


def test_a_killed_process_leaves_its_work_and_no_lock(
    store: Store, tmp_path: Path, start_python: StartPython, make: Maker
) -> None:
    inputs = {"steps": 3}
    process = start_python(MAKE_WHEN_TOLD, store.root, tmp_path / "never")
    assert process.stdout is not None and process.stdout.readline() == "making\n"
    assert store.leftovers() == []  # it is busy
    process.kill()
    process.wait()
    assert store.leftovers() == [store.root / ".partial" / store.key("thing", inputs)]

    def resume(output: Path, work: Path) -> None:
        assert (work / "state").read_text() == "step 5"
        make(output, work)

    assert damage(store.get("thing", inputs, resume).path) is None


# --- Tidying up ---


def test_leftovers_are_partial_and_damaged_work(store: Store, make: Maker, artifact: Artifact) -> None:
    truncate(artifact.path)
    assert store.find(artifact.key) is None
    partial = store.root / ".partial" / "other.0000"
    partial.mkdir(parents=True)
    (aside,) = (store.root / ".damaged").iterdir()
    assert store.leftovers() == [aside, partial]
    for path in store.leftovers():
        store.remove(path)
    assert store.leftovers() == []


def test_an_artifact_can_be_removed_and_is_made_again(store: Store, make: Maker, artifact: Artifact) -> None:
    store.remove(artifact.path)
    assert store.find(artifact.key) is None
    store.get("thing", INPUTS, make)
    assert make.calls == 2


def test_nothing_outside_the_store_is_removed(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.mkdir()
    (store.root / "link").symlink_to(outside)
    for path in (outside, tmp_path, store.root, store.root / ".." / "precious", store.root / "link"):
        with pytest.raises(ValueError, match="not inside the store"):
            store.remove(path)
    assert outside.is_dir()
    assert damage(artifact.path) is None
