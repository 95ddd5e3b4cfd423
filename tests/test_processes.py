"""Configurations of accelerate: read as accelerate reads them, and checked against a profile before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from crossdomain import cluster, paths
from crossdomain.processes import configuration
from crossdomain.profiles import ProfileError, load_profile

NAMES = sorted(path.stem for path in (Path(__file__).parents[1] / "workflow" / "accelerate").glob("*.yaml"))


def test_the_configurations_are_those_the_book_names() -> None:
    assert NAMES == ["cpu-2", "cpu-fsdp-2", "fsdp-8", "one-gpu", "zero3-nodes"]


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_reads_a_configuration_as_we_do(name: str) -> None:
    found = configuration(name)
    theirs = load_config_from_file(str(found.path))
    assert (theirs.num_processes, theirs.num_machines) == (found.processes, found.machines)
    assert (theirs.distributed_type.value, theirs.use_cpu) == (found.kind, found.on_cpu)
    arguments = launch_command_parser().parse_args(["--config_file", str(found.path), "-m", "module"])
    _validate_launch_command(arguments)
    assert (arguments.use_fsdp, arguments.use_deepspeed) == (found.kind == "FSDP", found.kind == "DEEPSPEED")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"accelerate": "fsdp-9"}, "accelerate: no configuration 'fsdp-9' .* expected one of cpu-2, cpu-fsdp-2"),
        (
            {"accelerate": "fsdp-8", "batch_size": 36},
            "batch_size: 36 completions .* 8 processes .* use a multiple of 8",
        ),
        ({"accelerate": "cpu-2", "microbatch": 1}, "microbatch: 1 completions .* 2 processes .* use a multiple of 2"),
        ({"accelerate": "cpu-2", "skip_silent_groups": True}, "skip_silent_groups: .*use skip_silent_groups=false"),
        (
            {"accelerate": "zero3-nodes", "precision": "bf16-autocast"},
            "accelerate: zero3-nodes returns .* bfloat16, where weights=float32 .* weights=bfloat16",
        ),
    ],
)
def test_a_profile_that_does_not_fit_its_processes_says_so(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        load_profile("smoke", changes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distributed_type: FSDP", "expected accelerate's settings, with distributed_type and num_processes"),
        ("{distributed_type: FSDP, num_processes: 8, num_machines: 3}", "num_processes=8 over num_machines=3"),
        ("{distributed_type: FSDP, num_processes: -1}", "num_processes=-1 over num_machines=1"),
        ("[", "is not valid YAML"),
    ],
)
def test_a_file_that_is_none_of_accelerates_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        configuration(str(tmp_path / "mine.yaml"))


def test_the_papers_profile_is_spread_over_eight_gpus() -> None:
    profile = load_profile("paper")
    assert (profile.accelerate, profile.processes) == ("fsdp-8", 8)
    assert load_profile("cpu").processes == load_profile("smollm").processes == 1


# --- What jobs ask a cluster for ---


def test_a_stage_on_gpus_asks_for_them_and_for_processors_beside() -> None:
    asked = cluster.training(load_profile("paper"))
    assert asked["gpu"] == 8
    assert cluster.cores(load_profile("paper")) == 8 * cluster.CORES_A_GPU


def test_a_stage_on_several_machines_is_a_job_of_that_many_tasks() -> None:
    profile = load_profile("paper", "accelerate=zero3-nodes weights=bfloat16 microbatch=16")
    asked = cluster.training(profile)
    assert (asked["nodes"], asked["tasks"], asked["mpi"]) == (2, 2, "srun")
    assert asked["slurm_extra"] == "--gpus-per-node=8" and "gpu" not in asked


@pytest.mark.parametrize(("accelerate", "cores"), [("", 1), ("cpu-2", 2)])
def test_a_stage_on_processors_asks_for_no_gpu(accelerate: str, cores: int) -> None:
    profile = load_profile("smoke", {"accelerate": accelerate})
    assert cluster.training(profile) == cluster.one_process(profile) == {"mem_mb": 3000, "runtime": 60}
    assert cluster.cores(profile) == cores


def test_profiles_lie_where_the_workflow_looks() -> None:
    folder = paths.root() / "workflow" / "profiles"
    assert {path.parent.name for path in folder.glob("*/config.yaml")} == {"local", "slurm", "kubernetes"}
