"""Profiles of the workflow: Snakemake lays out the graph under each; what is submitted to Kubernetes is a whole job."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "workflow" / "profiles"
EXECUTORS = {
    "local": None,
    "slurm": "snakemake_executor_plugin_slurm",
    "kubernetes": "snakemake_executor_plugin_cluster_generic",
}


@pytest.mark.parametrize("name", EXECUTORS)
def test_the_graph_is_laid_out_under_each_profile(name: str, runs: Path) -> None:
    executor = EXECUTORS[name]
    if executor and find_spec(executor) is None:
        pytest.skip(f"{executor} is not installed: `make cluster`")
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--profile", str(FOLDER / name)]
    settings = ["profile=paper", "seeds=0", "chapters="]
    command += ["--cores", "256", "--dry-run", "--quiet", "host", "--config", *settings, "--", "trained"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert said.count("gpu=8") == 2 and said.count("threads: 128") == 2  # sequence and experts
    assert not runs.exists()


def test_a_job_for_kubernetes_asks_for_what_the_workflow_gives_it(tmp_path: Path) -> None:
    """`kubectl` is stood in for by a program that keeps what it is given: no cluster is here."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\n[ "$1" = apply ] && cat > {tmp_path}/job.yaml || echo Complete\n')
    kubectl.chmod(0o755)
    script = tmp_path / "snakejob.sh"
    script.write_text("exit 0\n")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    name = run(str(FOLDER / "kubernetes" / "submit"), "4", "3000", "2", "60", str(script))
    job = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert job["metadata"]["name"] == name and name.startswith("crossdomain-")
    assert job["spec"]["activeDeadlineSeconds"] == 3600
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sh", str(script)] and container["workingDir"] == str(tmp_path)
    assert container["resources"] == {
        "requests": {"cpu": "4", "memory": "3000M"},
        "limits": {"memory": "3000M", "nvidia.com/gpu": "2"},
    }
    assert run(str(FOLDER / "kubernetes" / "status"), name) == "success"
