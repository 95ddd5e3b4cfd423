"""The workflow on a real Slurm of one node, which this test sets up: jobs submitted, accounted for, and their results.

Opt-in, as root, with Debian's slurm-wlm and munge installed and `make cluster` done:

    CROSSDOMAIN_TEST_SLURM=1 python -m pytest tests/workflow/test_slurm.py
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from crossdomain.lineage import Lineage
from crossdomain.profiles import load_profile
from crossdomain.store import Store

pytestmark = pytest.mark.skipif(
    "CROSSDOMAIN_TEST_SLURM" not in os.environ, reason="starts a Slurm cluster as root; set CROSSDOMAIN_TEST_SLURM=1"
)
ROOT = Path(__file__).parents[2]
SYSTEM = Path("/etc/slurm/slurm.conf")  # the executor clears SLURM_CONF, so that jobs look here
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
JobAcctGatherType=jobacct_gather/linux
MinJobAge=3600
NodeName={host} CPUs={cores} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


def wait(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come within {seconds} s")
        time.sleep(0.2)


def says_idle() -> bool:
    return "idle" in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False).stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    """A running cluster; its folder, where `jobs.txt` accounts for finished jobs."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None:
            pytest.fail(f"{program} is missing: install slurm-wlm and munge")
    if SYSTEM.exists():
        pytest.fail(f"{SYSTEM} exists: this machine belongs to a cluster, and this test wants one of its own")
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "key").write_bytes(secrets.token_bytes(1024))
    (folder / "key").chmod(0o400)
    values = {"host": socket.gethostname().partition(".")[0], "folder": folder, "cores": os.cpu_count()}
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(**values, controller=free_port(), daemon=free_port()))
    SYSTEM.parent.mkdir(exist_ok=True)
    SYSTEM.symlink_to(configuration)
    files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid"}
    files |= {"log-file": "munged.log", "seed-file": "munged.seed"}
    munge = ["munged", "--force", *(f"--{option}={folder / name}" for option, name in files.items())]
    search = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}
    try:
        for command in (munge, ["slurmctld"], ["slurmd"]):
            subprocess.run(command, check=True, env=search)
        wait(says_idle, "an idle node")
        yield folder
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            with suppress(OSError, ValueError):
                os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
        SYSTEM.unlink()


def test_a_seed_is_trained_by_jobs_of_the_cluster(cluster: Path, runs: Path) -> None:
    log = cluster / "snakemake.log"
    settings = ["profile=smoke", "seeds=0", "chapters="]
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"]
    command += ["--profile", "workflow/profiles/slurm", "--latency-wait", "10"]
    # Without a database, sacct knows nothing; the queue itself does. Others have one, hence not in the profile.
    command += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"]
    command += ["--slurm-logdir", str(cluster / "logs"), "--config", *settings, "--", "trained"]
    with log.open("w") as said:
        done = subprocess.run(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, check=False, timeout=1800)
    assert done.returncode == 0, log.read_text()[-5000:]

    accounted = (cluster / "jobs.txt").read_text()
    jobs = re.findall(r"JobId=(\d+) .*?JobState=(\w+) .*? ExitCode=(\S+)", accounted)
    assert [state for _, state, _ in jobs] == ["COMPLETED"] * 3
    assert {status for *_, status in jobs} == {"0:0"}
    assert accounted.count("TimeLimit=60") == 3 and accounted.count("mem=3000M") == 3

    lineage = Lineage(load_profile("smoke"), 0, Store(runs / "store"))
    found = {artifact.manifest["name"] for artifact in lineage.store.artifacts()}
    assert {f"{name}-seed0" for name in lineage.sequence} <= found
    assert {path.stem for path in (runs / "smoke" / "seed-0").glob("*.done")} == {"sequence", "experts"}
