"""What tests share: runs in temporary directories, and one tiny base and stage that are trained once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: results depend on the number of threads

import pytest
from hypothesis import settings

from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.profiles import Profile, load_profile
from crossdomain.sandbox import Sandbox, SandboxError
from crossdomain.store import Store

ROOT = Path(__file__).parents[1]
StartPython = Callable[..., "subprocess.Popen[str]"]

settings.register_profile("crossdomain", deadline=None, derandomize=True, database=None)
settings.load_profile("crossdomain")


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The profiles of this project, and none of the reader's runs, data sets or terminals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSDOMAIN_HOME", str(ROOT))
        patch.setenv("CROSSDOMAIN_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.delenv("CROSSDOMAIN_STORE", raising=False)
        patch.delenv("CROSSDOMAIN_TTY", raising=False)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's runs go."""
    monkeypatch.setenv("CROSSDOMAIN_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def smoke() -> Profile:
    """The smallest profile, with a stage long enough to be interrupted."""
    return load_profile("smoke", {"steps.cw": 24})


@pytest.fixture(scope="session")
def lineage(smoke: Profile, tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    """Checkpoints in a store that the whole session shares; read it, and add nothing that another test might expect."""
    return Lineage(smoke, 0, Store(tmp_path_factory.mktemp("session") / "store"))


@pytest.fixture(scope="session")
def base(lineage: Lineage) -> Checkpoint:
    """The tiny base, trained without interruption."""
    return lineage.checkpoint("base")


@pytest.fixture(scope="session")
def cw(lineage: Lineage) -> Checkpoint:
    """The base after a stage of creative writing, trained without interruption."""
    return lineage.checkpoint("cw")


@pytest.fixture
def store_with_base(store: Store, base: Checkpoint) -> Store:
    """A store of this test alone that holds the trained base."""
    shutil.copytree(base.artifact.path, store.root / base.artifact.key)
    return store


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """Where programs run; a machine that has none skips, unless it must have one."""
    try:
        return Sandbox()
    except SandboxError as error:
        if "CROSSDOMAIN_REQUIRE_SANDBOX" in os.environ:
            pytest.fail(f"CROSSDOMAIN_REQUIRE_SANDBOX is set, and {error}")
        pytest.skip(str(error))


@pytest.fixture
def start_python() -> Iterator[StartPython]:
    """Starts `python -c code arguments...`; what still runs when the test ends is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
