"""A run's measurements without its weights: one small file, from which every chapter is rendered without training.

A pack holds what the store has of a run but for weights, the Fisher diagonal of a diagnosis, and inner products of updates
and gradients; of these it keeps size and checksum. Unpacked into a store, it answers whatever was measured; where a
measurement is missing, what it needs of these is made again and compared.
So the seeds of a run can be measured on several machines, and a reviewer can render chapters from a few megabytes.
"""

from __future__ import annotations

import fnmatch
import io
import json
import lzma
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from crossdomain.store import LEFT_OUT, MANIFEST, Artifact, Store, damage

LARGE = (
    *("model*.safetensors", "snapshots/*.safetensors", "*/grams.safetensors"),
    *("*.weight.safetensors", "*.bias.safetensors"),  # a Fisher diagonal, a file a tensor
)


def pack(artifacts: Iterable[Artifact], file: Path) -> int:
    """Write artifacts to a compressed archive, a directory each, without their `LARGE` files.

    The same artifacts give the same bytes.

    Args:
        artifacts: finished ones.
        file: the archive, written anew.

    Returns:
        How many there are.

    Raises:
        ValueError: there are none.
    """
    found = sorted(artifacts, key=lambda artifact: artifact.key)
    if not found:
        raise ValueError("nothing to pack: the store has nothing that this run uses; execute its notebooks first")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}")
    with tarfile.open(draft, "w:xz", preset=9) as archive:
        for artifact in found:
            manifest = dict(artifact.manifest)
            known = artifact.described
            manifest["files"] = {name: about for name, about in known.items() if not _is_large(name)}
            if left_out := {name: about for name, about in known.items() if _is_large(name)}:
                manifest[LEFT_OUT] = left_out
            _add(archive, f"{artifact.key}/{MANIFEST}", json.dumps(manifest, indent=1).encode())
            for name in manifest["files"]:
                _add(archive, f"{artifact.key}/{name}", (artifact.path / name).read_bytes())
    draft.replace(file)
    return len(found)


def unpack(file: Path, store: Store) -> tuple[int, int]:
    """Add the artifacts of a pack to a store; those that it has already stay as they are.

    Returns:
        How many were added, and how many the store had.

    Raises:
        ValueError: the file is no pack, or its files do not match their checksums; nothing is added then.
    """
    unpacked = store.root / ".partial" / f"unpack-{file.name}"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    try:
        with tarfile.open(file, "r:xz") as archive:
            archive.extractall(unpacked, filter="data")
        paths = sorted(unpacked.iterdir())
        for path in paths:
            if fault := damage(path):
                raise ValueError(f"{file}: {path.name} is damaged ({fault}); get the file again")
        new = [path for path in paths if not (store.root / path.name).exists()]
        for path in new:
            path.replace(store.root / path.name)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise ValueError(
            f"{file}: not a pack of measurements ({error}); expected one that `store pack` wrote"
        ) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return len(new), len(paths) - len(new)


def _is_large(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in LARGE)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
