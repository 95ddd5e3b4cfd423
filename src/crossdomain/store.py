"""A store of finished work: one directory an artifact, keyed by all that determines it, written atomically.

    store/<name>.<hash>/      a finished artifact: its files and `manifest.json`
    store/.partial/<key>/     what an interrupted process left, from which the next one resumes
    store/.damaged/           artifacts whose files no longer match their manifest
    store/.locks/             one lock an artifact, so that two processes make it once

Locks are held by the operating system on behalf of the process, so one that dies leaves none behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crossdomain import provenance

logger = logging.getLogger(__name__)
MANIFEST = "manifest.json"
LEFT_OUT = "left_out"


class StoreError(RuntimeError):
    """Finished work could not be kept; the message says what to do."""


@dataclass(frozen=True)
class Artifact:
    """A finished piece of work: `path` holds its files, `manifest` how it was made.

    Of one that came in a pack (`crossdomain.pack`), `path` lacks the files that the manifest says were `left_out`.
    """

    key: str
    path: Path
    manifest: dict[str, Any]
    complete: Callable[[], None] | None = field(default=None, compare=False, repr=False)

    @property
    def left_out(self) -> dict[str, Any]:
        """Files that are not there but were measured: size and checksum by name."""
        found: dict[str, Any] = self.manifest.get(LEFT_OUT, {})
        return found

    @property
    def described(self) -> dict[str, Any]:
        """Size and checksum of all its files by name, there or left out."""
        return {**self.manifest["files"], **self.left_out}

    def whole(self) -> Path:
        """The directory with all its files: those left out are made again first.

        Raises:
            StoreError: they came out otherwise than those that were measured, or nothing says how they are made.
        """
        if any(not (self.path / name).is_file() for name in self.left_out):
            if self.complete is None:
                raise StoreError(f"{self.key}: {', '.join(self.left_out)} were left out when it was packed")
            self.complete()
        return self.path

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file["bytes"] for file in self.manifest["files"].values())


class Store:
    """Artifacts under one directory."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @staticmethod
    def key(name: str, inputs: dict[str, Any]) -> str:
        """The name an artifact is kept under: readable part and hash of what determines it."""
        return f"{name[:80]}.{provenance.fingerprint(inputs)[:16]}"

    def find(self, key: str) -> Artifact | None:
        """The finished artifact of that key; None if there is none. A damaged one is set aside with a warning."""
        path = self.root / key
        if not path.is_dir():
            return None
        fault = damage(path)
        if fault is None:
            return Artifact(key, path, json.loads((path / MANIFEST).read_text()))
        aside = self._set_aside(path)
        logger.warning("%s is damaged (%s): set aside as %s, it will be made again", key, fault, aside)
        return None

    def get(self, name: str, inputs: dict[str, Any], make: Callable[[Path, Path], None]) -> Artifact:
        """The artifact that `inputs` determine: read if it is there, else made.

        Args:
            name: readable part of the key.
            inputs: plain data that determine the artifact; equal inputs are the same artifact.
            make: called as `make(output, work)`. It leaves the artifact's files in `output` (empty at the start) and may
                keep in `work` what lets it resume after an interruption.

        Raises:
            StoreError: the disk is full. What was done so far stays for the next try.
        """
        key = self.key(name, inputs)

        def complete() -> None:
            with self._disk_full_explained(key), self._locked(key):
                self._complete(key, make)

        if (found := self.find(key)) is not None:
            return replace(found, complete=complete)
        with self._disk_full_explained(key), self._locked(key):
            if (found := self.find(key)) is not None:  # another process made it while this one waited
                return replace(found, complete=complete)
            return self._make(key, name, inputs, make)

    def artifacts(self) -> Iterator[Artifact]:
        """All finished artifacts, unverified, by name."""
        for path in sorted(self.root.glob(f"*/{MANIFEST}")):
            with contextlib.suppress(ValueError):
                yield Artifact(path.parent.name, path.parent, json.loads(path.read_text()))

    def leftovers(self) -> list[Path]:
        """Interrupted and damaged work that no process is busy with."""
        paths = sorted(self.root.glob(".damaged/*"))
        for partial in sorted(self.root.glob(".partial/*")):
            with contextlib.suppress(Timeout), self._lock(partial.name).acquire(timeout=0):
                paths.append(partial)
        return paths

    def remove(self, path: Path) -> None:
        """Delete an artifact or leftover of this store."""
        if self.root.resolve() not in path.resolve().parents:
            raise ValueError(f"{path} is not inside the store {self.root}")
        shutil.rmtree(path)

    def _make(self, key: str, name: str, inputs: dict[str, Any], make: Callable[[Path, Path], None]) -> Artifact:
        partial, output, work = self._workplace(key)
        clock = _Clock(partial / "seconds")
        try:
            make(output, work)
        finally:
            with contextlib.suppress(OSError):
                clock.keep()
        manifest = {
            "key": key,
            "name": name,
            "inputs": inputs,
            "files": _described(output),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": round(clock.wall(), 2),
            "core_seconds": round(clock.core(), 2),
            "peak_memory_gib": round(provenance.peak_memory_gib(), 2),
            "hardware": provenance.hardware(),
            "versions": provenance.versions(),
            "commit": provenance.git_commit(),
        }
        (output / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _flush(output)
        output.replace(self.root / key)
        shutil.rmtree(partial, ignore_errors=True)
        return Artifact(key, self.root / key, manifest)

    def _complete(self, key: str, make: Callable[[Path, Path], None]) -> None:
        """Make again what was left out of an artifact, and add it if it is what was there."""
        path = self.root / key
        manifest = json.loads((path / MANIFEST).read_text())
        if LEFT_OUT not in manifest:  # another process was faster
            return
        there, here = (hardware["processor"] for hardware in (manifest["hardware"], provenance.hardware()))
        if there != here:
            logger.warning("%s was made on %s, this is %s: it may come out otherwise", key, there, here)
        partial, output, work = self._workplace(key)
        make(output, work)
        made, expected = _described(output), manifest.pop(LEFT_OUT)
        if other := [name for name, file in expected.items() if made.get(name) != file]:
            shutil.rmtree(partial, ignore_errors=True)
            raise StoreError(
                f"{key}: made again, {other[0]} is not the file whose measurements were unpacked; other processors and "
                "library builds round otherwise. Set CROSSDOMAIN_STORE to an empty directory, in which everything is "
                "made and measured here"
            )
        for name in expected:
            (path / name).parent.mkdir(exist_ok=True)
            (output / name).replace(path / name)
        _flush(path)
        manifest["files"] |= expected
        draft = partial / MANIFEST
        draft.write_text(json.dumps(manifest, indent=1))
        draft.replace(path / MANIFEST)
        shutil.rmtree(partial, ignore_errors=True)

    def _workplace(self, key: str) -> tuple[Path, Path, Path]:
        """Where an artifact is made: a directory, in it `output`, now empty, and `work`, with what a last try left."""
        partial = self.root / ".partial" / key
        output, work = partial / "output", partial / "work"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        work.mkdir(exist_ok=True)
        return partial, output, work

    def _set_aside(self, path: Path) -> Path:
        damaged = self.root / ".damaged"
        damaged.mkdir(parents=True, exist_ok=True)
        aside = damaged / f"{path.name}.{time.time_ns()}"
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            path.replace(aside)
        return aside

    def _lock(self, key: str) -> FileLock:
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{key}.lock")

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        lock = self._lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("%s is being made by another process: waiting for it", key)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _disk_full_explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            full = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
            if not full:
                raise
            raise StoreError(
                f"no space left on the disk of {self.root.resolve()} while making {key}: free some (`crossdomain store "
                "prune` lists what is not needed) or set CROSSDOMAIN_STORE to another disk, then run the same command "
                "again: it resumes"
            ) from error


def damage(path: Path) -> str | None:
    """What is wrong with a finished artifact's files; None if they match the manifest."""
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{name} has {file.stat().st_size} bytes instead of {expected['bytes']}"
        if sha256(file) != expected["sha256"]:
            return f"{name} has another checksum than its manifest"
    return None


def _described(directory: Path) -> dict[str, Any]:
    """Checksum and size of every file, by its name in the directory."""
    return {
        str(file.relative_to(directory)): {"sha256": sha256(file), "bytes": file.stat().st_size}
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def sha256(file: Path) -> str:
    """Checksum of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Clock:
    """Time since it was made, and in the interrupted tries noted in a file: on the wall, and of all cores used."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            wall, core = map(float, file.read_text().split())
        except (OSError, ValueError):
            wall = core = 0.0
        self._wall, self._core = time.monotonic() - wall, time.process_time() - core

    def wall(self) -> float:
        """Seconds that passed."""
        return time.monotonic() - self._wall

    def core(self) -> float:
        """Seconds that the process computed, which does not grow when other processes want the same cores."""
        return time.process_time() - self._core

    def keep(self) -> None:
        """Note both in the file."""
        self.file.write_text(f"{self.wall()} {self.core()}")


def _flush(directory: Path) -> None:
    """Make sure the files are on the disk before the directory takes its final name."""
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
