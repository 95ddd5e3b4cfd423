"""Packs: measurements without weights, which answer as the store did and are trusted for nothing else."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from crossdomain import paths
from crossdomain.cli import app
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.pack import pack, unpack
from crossdomain.store import Artifact, Store, StoreError

INPUTS = {"kind": "test"}
LEFT_OUT = [
    *("h.0.attn.weight.safetensors", "model.safetensors"),
    *("parts/grams.safetensors", "snapshots/00002.safetensors"),
]


def maker(made: list[str], weights: str = "weights") -> Callable[[Path, Path], None]:
    """Leaves weights, a snapshot and a table, and notes that it did."""

    def make(output: Path, work: Path) -> None:
        made.append(weights)
        (output / "snapshots").mkdir()
        (output / "model.safetensors").write_text(weights)
        (output / "snapshots" / "00002.safetensors").write_text(weights[:2])
        (output / "h.0.attn.weight.safetensors").write_text("of a diagonal")
        (output / "parts").mkdir()
        (output / "parts" / "grams.safetensors").write_text("large")
        (output / "parts" / "scores.safetensors").write_text("measured")
        (output / "training.csv").write_text("step,reward\n1,0.5\n")

    return make


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A pack of one artifact."""
    store, file = Store(tmp_path / "first"), tmp_path / "measurements.tar.xz"
    store.get("stage", INPUTS, maker([]))
    assert pack(store.artifacts(), file) == 1
    return file


def test_an_unpacked_artifact_has_all_but_its_weights_and_is_not_made_again(packed: Path, tmp_path: Path) -> None:
    store, made = Store(tmp_path / "second"), list[str]()
    assert unpack(packed, store) == (1, 0)
    found = store.get("stage", INPUTS, maker(made))
    assert made == []
    assert (found.path / "training.csv").read_text() == "step,reward\n1,0.5\n"
    assert [path.name for path in found.path.rglob("*.safetensors")] == ["scores.safetensors"]
    assert sorted(found.left_out) == LEFT_OUT
    assert found.described["model.safetensors"]["bytes"] == len("weights")


def test_weights_are_made_again_once_where_they_are_needed(packed: Path, tmp_path: Path) -> None:
    store, made = Store(tmp_path / "second"), list[str]()
    unpack(packed, store)
    found = store.get("stage", INPUTS, maker(made))
    assert (found.whole() / "model.safetensors").read_text() == "weights"
    assert (found.whole() / "snapshots" / "00002.safetensors").read_text() == "we"
    assert (found.whole() / "parts" / "grams.safetensors").read_text() == "large"
    again = store.get("stage", INPUTS, maker(made))
    again.whole()
    assert made == ["weights"]
    assert again.left_out == {} and again.described == found.described
    assert store.leftovers() == []


def test_weights_that_come_out_otherwise_are_refused(packed: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "second")
    unpack(packed, store)
    found = store.get("stage", INPUTS, maker([], "another processor's"))
    with pytest.raises(StoreError, match=r"model\.safetensors is not the file whose measurements were unpacked"):
        found.whole()
    assert not (found.path / "model.safetensors").exists()
    with pytest.raises(StoreError, match=r"were left out when it was packed"):
        next(iter(store.artifacts())).whole()


@pytest.mark.parametrize("other", [True, False])
def test_another_processor_is_named_before_anything_is_made_again(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, other: bool
) -> None:
    store = Store(tmp_path / "second")
    unpack(packed, store)
    if other:
        monkeypatch.setattr("crossdomain.provenance.hardware", lambda: {"processor": "another one"})
    store.get("stage", INPUTS, maker([])).whole()
    assert ("this is another one" in caplog.text) == other


def test_the_same_artifacts_give_the_same_bytes_packed_once_or_twice(packed: Path, tmp_path: Path) -> None:
    store, again = Store(tmp_path / "second"), tmp_path / "again.tar.xz"
    unpack(packed, store)
    pack(store.artifacts(), again)
    assert again.read_bytes() == packed.read_bytes()


def test_what_the_store_has_stays_as_it_is(packed: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "first")
    assert unpack(packed, store) == (0, 1)
    assert store.get("stage", INPUTS, maker([])).left_out == {}


def test_a_file_that_is_no_pack_or_was_changed_adds_nothing(packed: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "second")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(ValueError, match="not a pack of measurements"):
        unpack(tmp_path / "text", store)
    broken = bytearray(packed.read_bytes())
    broken[len(broken) // 2] ^= 255
    (tmp_path / "broken.tar.xz").write_bytes(broken)
    (tmp_path / "short.tar.xz").write_bytes(packed.read_bytes()[: len(broken) // 2])
    for name in ("broken.tar.xz", "short.tar.xz"):
        with pytest.raises(ValueError, match="not a pack of measurements"):
            unpack(tmp_path / name, store)
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "changed", filter="data")
    (table,) = (tmp_path / "changed").rglob("training.csv")
    table.write_text("step,reward\n1,0.9\n")
    with tarfile.open(tmp_path / "changed.tar.xz", "w:xz") as archive:
        archive.add(table.parent, table.parent.name)
    with pytest.raises(ValueError, match=r"training\.csv has another checksum than its manifest"):
        unpack(tmp_path / "changed.tar.xz", store)
    assert [*store.artifacts()] == [] and store.leftovers() == []
    with pytest.raises(ValueError, match="nothing to pack"):
        pack([], tmp_path / "empty.tar.xz")


def test_a_lineage_reads_a_pack_and_trains_what_was_left_out(
    store_with_base: Store, lineage: Lineage, base: Checkpoint, tmp_path: Path
) -> None:
    artifact = base.artifact
    pack([Artifact(artifact.key, artifact.path, artifact.manifest)], tmp_path / "base.tar.xz")
    store = Store(tmp_path / "second")
    unpack(tmp_path / "base.tar.xz", store)
    found = Lineage(lineage.profile, lineage.seed, store).checkpoint("base")
    assert found.key == base.key and found.snapshots() == base.snapshots()
    assert found.tokenizer().get_vocab() == base.tokenizer().get_vocab()
    assert found.parameter_count() == base.model().num_parameters()
    assert not (found.artifact.path / "model.safetensors").exists()
    for one, other in zip(found.model().parameters(), base.model().parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_commands_pack_what_a_run_uses() -> None:
    store = Store(paths.store())
    used, _ = store.get("used", {"kind": "a"}, maker([])), store.get("unused", {"kind": "b"}, maker([]))
    references = paths.run("smoke", [0]) / "uses"
    references.mkdir(parents=True)
    (references / "code").write_text(used.key + "\n")
    file = paths.runs() / "measurements.tar.xz"

    def invoke(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["store", *arguments])
        return result.exit_code, result.output

    status, said = invoke("pack", str(file), "--profile", "smoke", "--seeds", "0")
    assert (status, said.partition(",")[0]) == (0, f"1 artifacts in {file}")
    store.remove(used.path)
    said = f"{file}: 1 artifacts added, 0 were there\n{file}: 0 artifacts added, 1 were there\n"
    assert invoke("unpack", str(file), str(file)) == (0, said)
    manifest = json.loads((used.path / "manifest.json").read_text())
    assert sorted(manifest["left_out"]) == sorted(LEFT_OUT)
    status, said = invoke("pack", str(file), "--profile", "smoke", "--seeds", "7")
    assert status == 2 and said.startswith("error: nothing to pack")
