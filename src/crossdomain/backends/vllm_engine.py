"""vLLM's `LLM` on a checkpoint's directory: it runs in processes of its own, so that nothing of it stays in this one."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from crossdomain.backends.base import BackendError, Engine, one_line, require_vllm

# What vLLM reads from the environment, where the user has not said otherwise.
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
CPU_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS says how many threads
    "TORCH_COMPILE_DISABLE": "1",  # compiling parts of the sampler takes a minute and spares milliseconds
}
CAUSE = re.compile(r"\b(?!EngineDead|EngineGenerate)(\w*(?:Error|Exception): .+)")


class VLLM(Engine):
    """An engine of `vllm.LLM`.

    Args:
        directory: configuration, tokenizer and safetensors of the policy.
        dtype: of weights and arithmetic: float32 or bfloat16.
        memory: share of the device's memory (without a GPU, of the machine's) that it may take.
        sequences: at a time, at most.
        length: of the longest prompt with its response, in tokens.

    Raises:
        BackendError: vLLM is not installed, or does not start with this policy here.
    """

    def __init__(self, directory: Path, *, dtype: str, memory: float, sequences: int, length: int) -> None:
        require_vllm("generation_backend")
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed in `close`
        try:
            with started(self._log):
                from vllm import LLM

                self._llm: Any = LLM(
                    model=str(directory),
                    dtype=dtype,
                    gpu_memory_utilization=memory,
                    max_num_seqs=sequences,
                    max_model_len=length,
                    disable_log_stats=True,
                    **cpu_options(memory),
                )
        except Exception as error:
            cause = first_error(self._log) or one_line(error)
            self._log.close()
            raise BackendError(
                f"generation_backend: vllm does not start with {directory} in {dtype} ({cause}); mend that, or set "
                "generation_backend: transformers"
            ) from error

    def complete(
        self,
        prompts: Sequence[list[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        temperature: float,
        seeds: Sequence[int],
    ) -> list[list[int]]:
        """As `Engine.complete`."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                max_tokens=max_new_tokens,
                temperature=temperature,
                seed=int(seed) if temperature else None,
                stop_token_ids=list(stop),
                ignore_eos=True,  # `stop` has it; the model's own configuration may name others
                detokenize=False,
            )
            for seed in seeds
        ]
        try:
            requests = [{"prompt_token_ids": prompt} for prompt in prompts]
            outputs = self._llm.generate(requests, parameters, use_tqdm=False)
        except Exception as error:
            cause = first_error(self._log) or one_line(error)
            raise BackendError(
                f"generation_backend: vllm failed while generating ({cause}); mend that, or set generation_backend: "
                "transformers"
            ) from error
        return [list(output.outputs[0].token_ids) for output in outputs]

    def close(self) -> None:
        """Stop its processes."""
        with redirected(self._log):
            self._llm.llm_engine.engine_core.shutdown()
        self._log.close()


def on_cpu() -> bool:
    """Whether vLLM runs without a GPU here."""
    return not torch.cuda.is_available()


def cpu_options(memory: float) -> dict[str, Any]:
    """Options of `LLM` without a GPU; none with one.

    Args:
        memory: share of the machine's memory that the cache of keys and values may take.
    """
    if not on_cpu():
        return {}
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Compiling takes longer than most runs; a cache of stated size starts without measuring what the process has taken.
    return {"enforce_eager": True, "kv_cache_memory_bytes": int(memory * total)}


@contextmanager
def started(log: IO[str]) -> Iterator[None]:
    """Where vLLM is imported and started: what it and its processes print goes to `log`."""
    for name, value in (ENVIRONMENT | (CPU_ENVIRONMENT if on_cpu() else {})).items():
        os.environ.setdefault(name, value)
    with redirected(log):
        yield


@contextmanager
def redirected(log: IO[str]) -> Iterator[None]:
    """File descriptors 1 and 2, which child processes inherit, lead to `log`."""
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def first_error(log: IO[str]) -> str | None:
    """The first error that vLLM's processes printed, on one line; None if there is none."""
    log.flush()
    size = os.fstat(log.fileno()).st_size
    text = os.pread(log.fileno(), size, 0).decode(errors="replace")
    found = CAUSE.findall(text)
    return str(found[0])[:400] if found else None
