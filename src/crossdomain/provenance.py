"""Where a result comes from: versions, hardware, commit, and a fingerprint of the code that made it."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "tokenizers", "numpy", "scipy", "pandas")
DECISIVE = ("torch", "transformers", "trl", "accelerate", "tokenizers", "numpy")  # these can change trained weights


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Public versions of packages (no local part such as `+cpu`); those not installed are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB, threads in use, accelerator and operating system."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_commit() -> str:
    """The commit of the source tree, with `+changes` where tracked files differ from it; `unknown` without git."""
    root = Path(__file__).parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def peak_memory_gib() -> float:
    """Largest resident memory of this process so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def code_fingerprint(*modules: ModuleType | str) -> str:
    """A hash of what modules compute: their syntax trees without comments and docstrings.

    Rewording a comment leaves it alone, changing a statement does not.
    """
    digest = hashlib.sha256()
    for module in modules:
        found = sys.modules[module] if isinstance(module, str) else module
        if found.__file__ is None:
            raise ValueError(f"module {found.__name__} has no source file to fingerprint")
        file = Path(found.__file__)
        digest.update(_statements(file, file.stat().st_mtime_ns).encode())
    return digest.hexdigest()[:16]


@functools.cache
def _statements(file: Path, changed: int) -> str:
    """A file's code without comments and docstrings, as it was when last changed; every key of the store asks for some."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if ast.get_docstring(node, clean=False) is not None:
                    node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def fingerprint(inputs: Any) -> str:
    """A hash of plain data, independent of the order of mappings' keys."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
