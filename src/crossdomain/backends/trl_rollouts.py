"""vLLM inside TRL's GRPO: its options, how it starts, and a check of every transfer of weights to it.

The trainer hands its weights to vLLM before each step's rollouts. Where that fails in part, rollouts are another policy's
and training goes on as if nothing had happened; so after every transfer the engine answers some prompts greedily, and the
trained policy must agree with each token it chose and with the probability it gave it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl.generation import vllm_generation

from crossdomain.backends import engine_dtype
from crossdomain.backends.base import BackendError, one_line, require_vllm
from crossdomain.backends.vllm_engine import cpu_options, first_error, on_cpu, started
from crossdomain.profiles import Profile
from crossdomain.rollouts import microbatches

trl_engine: Any = vllm_generation  # its `LLM` is vLLM's, where that is installed

CHECKED_PROMPTS, CHECKED_TOKENS = 4, 16
# Nats by which log-probabilities, and the logits of two tokens that are as good as tied, may differ between the backends.
# Measured, rounding alone makes 1e-5 in float32; in bfloat16 0.03 on the tiny model, and on SmolLM2 0.11 and a gap of 0.25
# between tied tokens, as its logits are so large that their last bit is 0.125.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}


def arguments(
    profile: Profile,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    stop: Sequence[int],
) -> dict[str, Any]:
    """What `GRPOConfig` is told of who generates: nothing, if it is transformers.

    Args:
        profile: `rollouts`, and where and how large the engine is.
        tokenizer: of the policy.
        prompts: all that it is trained on.
        max_new_tokens: where a response is cut off.
        stop: ids of the tokens that end a response.
    """
    if profile.rollouts == "transformers":
        return {}
    options = {"use_vllm": True, "generation_kwargs": {"stop_token_ids": list(stop), "ignore_eos": True}}
    if profile.rollouts == "server":
        return options | {"vllm_mode": "server", "vllm_server_base_url": profile.rollout_server}
    return options | {
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": profile.vllm_memory,
        "vllm_max_model_length": max(map(len, tokenizer(list(prompts))["input_ids"])) + max_new_tokens,
    }


@contextmanager
def engine(profile: Profile) -> Iterator[None]:
    """Where a trainer is made, trained and done: its engine starts as the profile says and leaves nothing behind.

    Raises:
        BackendError: vLLM is not installed.
    """
    if profile.rollouts == "transformers":
        yield
        return
    require_vllm("rollouts")
    environment, threads, made = dict(os.environ), torch.set_num_threads, trl_engine.LLM
    alone = not torch.distributed.is_initialized()
    # TRL has no option for these two: an engine of a float32 policy would compute in bfloat16.
    running: list[Any] = []
    trl_engine.LLM = partial(_start, made, running, dtype=engine_dtype(profile), **cpu_options(profile.vllm_memory))
    try:
        if on_cpu():
            plain_linear()
            with torch.compiler.set_stance("force_eager"):  # as CPU_ENVIRONMENT, but torch is loaded
                yield
        else:
            yield
    finally:
        trl_engine.LLM = made
        torch.set_num_threads = threads  # vLLM's worker on a CPU replaces it by nothing
        for llm in running:
            llm.llm_engine.engine_core.shutdown()
            llm.llm_engine = None  # the trainer outlives it, and its memory is wanted
        if running and alone:
            from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()
        os.environ.clear()
        os.environ.update(environment)


def _start(made: Callable[..., Any], running: list[Any], **options: Any) -> Any:
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            with started(log):
                running.append(made(**options))
        except Exception as error:
            raise BackendError(
                f"rollouts: vllm does not start with {options['model']} in {options['dtype']} "
                f"({first_error(log) or one_line(error)}); mend that, or set rollouts: transformers"
            ) from error
    return running[-1]


def plain_linear() -> None:
    """Have vLLM's layers on a CPU multiply with the weights they hold.

    They pack a copy of them when a model is loaded and multiply with that. New weights then have no place to go, and an LM
    head tied to the embedding goes on with the old ones, silently.
    """
    from vllm.model_executor.layers import utils

    def dispatch(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = dispatch


@dataclass(frozen=True)
class Agreement:
    """How far an engine's greedy responses are from a policy's.

    Attributes:
        tokens: compared.
        gap: largest logit gap between the policy's best token and the engine's; 0 where they are the same.
        difference: largest absolute difference of a chosen token's log-probability.
    """

    tokens: int
    gap: float
    difference: float


def agreement(
    policy: Callable[..., Any],
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    logps: Sequence[Sequence[float]],
    device: torch.device,
) -> Agreement:
    """Compare an engine's greedy responses, and the log-probabilities it gave their tokens, with a transformers policy.

    Each token is compared given the engine's own tokens before it, so that one near-tie does not count for what follows.
    """
    (batch,) = microbatches(prompts, responses, len(prompts), device)
    with torch.no_grad():
        logits: Tensor = policy(input_ids=batch["ids"], use_cache=False).logits.float()
    mask = batch["mask"]
    logits = logits[:, -mask.shape[1] :]  # (rows, position, vocabulary)
    chosen = logits.gather(2, batch["targets"][:, :, None]).squeeze(2)
    gap = (logits.amax(2) - chosen)[mask]
    found = (chosen - logits.logsumexp(2))[mask]
    given = torch.tensor([logp for row in logps for logp in row], device=found.device)
    return Agreement(int(mask.sum()), float(gap.max()), float((found - given).abs().max()))


class CheckedSync:
    """The transfer of weights to an engine, and a check that it arrived.

    Args:
        engine: TRL's `VLLMGeneration`.
        policy: the trained policy, called for logits.
        prompts: token ids; the first few are answered.
        tolerance: see `TOLERANCE`.
        device: of the policy.

    Raises:
        BackendError: when called, if the engine's responses are not the policy's.
    """

    def __init__(
        self,
        engine: Any,
        policy: Callable[..., Any],
        prompts: Sequence[list[int]],
        tolerance: float,
        device: torch.device,
    ) -> None:
        self.found: list[Agreement] = []
        self._engine, self._sync, self._policy = engine, engine.sync_weights, policy
        self._prompts, self._tolerance, self._device = list(prompts[:CHECKED_PROMPTS]), tolerance, device

    def __call__(self) -> None:
        """Transfer the weights and check."""
        self._sync()
        with torch.random.fork_rng():
            responses, logps = self._greedy()
            found = agreement(self._policy, self._prompts, responses, logps, self._device)
        self.found.append(found)
        if max(found.gap, found.difference) > self._tolerance:
            raise BackendError(
                f"rollouts: vllm does not generate with the trained weights (transfer {len(self.found)}: greedy tokens are "
                f"{found.gap:.2g} below the policy's best logit, log-probabilities differ by {found.difference:.2g}, "
                f"expected at most {self._tolerance:g}): a part of its weights is stale, such as an LM head tied to the "
                "embedding; use a vLLM version that TRL supports, or set rollouts: transformers"
            )

    def _greedy(self) -> tuple[list[list[int]], list[list[float]]]:
        engine = self._engine
        sampling = engine.temperature, engine.max_completion_length
        engine.temperature, engine.max_completion_length = 0.0, min(CHECKED_TOKENS, sampling[1])
        try:
            _, responses, logps, _ = engine.generate(prompts=self._prompts, images=None, num_generations=1)
        finally:
            engine.temperature, engine.max_completion_length = sampling
        return responses, [[float(token[0]) for token in row] for row in logps]


def check_syncs(trainer: Any, profile: Profile) -> None:
    """Check every transfer of weights to a trainer's engine, if it has one, on the first prompts it is trained on."""
    if profile.rollouts == "transformers":
        return
    texts = trainer.train_dataset[:CHECKED_PROMPTS]["prompt"]
    prompts = trainer.processing_class(text=texts)["input_ids"]
    # Wrapped only once training starts, so looked up when called.
    policy: Callable[..., Any] = lambda **inputs: trainer.model_wrapped(**inputs)  # noqa: E731
    tolerance = TOLERANCE[engine_dtype(profile)]
    trainer.vllm_generation.sync_weights = CheckedSync(
        trainer.vllm_generation, policy, prompts, tolerance, trainer.accelerator.device
    )
