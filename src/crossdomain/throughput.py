"""How long GPUs take to generate and to train, by their arithmetic and their memory's bandwidth (a roofline)."""

from __future__ import annotations

from dataclasses import dataclass

from crossdomain.footprint import BFLOAT16, Architecture
from crossdomain.profiles import Profile


@dataclass(frozen=True)
class GPU:
    """Peak dense bfloat16 FLOP/s, bytes/s and bytes of its memory, as its maker states them."""

    flops: float
    bandwidth: float
    memory: float


GPUS = {
    "a100": GPU(312e12, 2.04e12, 80e9),
    "h100": GPU(989e12, 3.35e12, 80e9),
    "h200": GPU(989e12, 4.8e12, 141e9),
}

TRAINING_SHARE, DECODING_SHARE, BANDWIDTH_SHARE, MEMORY_SHARE = 0.35, 0.4, 0.6, 0.9  # of the peaks above


@dataclass(frozen=True)
class Load:
    """Mean tokens of a domain's prompts and responses, the longest response, and seconds of reward a completion and GPU."""

    prompt: float
    response: float
    limit: int
    reward_seconds: float


def generation_seconds(architecture: Architecture, gpu: GPU, responses: float, load: Load, room: float) -> float:
    """Seconds in which one GPU gives that many responses, with `room` bytes for their cache."""
    at_once = min(responses, max(1.0, room / (architecture.cache_bytes * (load.prompt + load.response))))
    steps = load.limit + (responses - at_once) * load.response / at_once
    weights = steps * BFLOAT16 * architecture.parameters
    read = responses * architecture.cache_bytes * (load.prompt + load.response / 2) * load.response
    flops = responses * (
        load.response * architecture.forward_flops(load.prompt + load.response / 2)
        + load.prompt * architecture.forward_flops(load.prompt / 2)
    )
    return max((weights + read) / (BANDWIDTH_SHARE * gpu.bandwidth), flops / (DECODING_SHARE * gpu.flops))


def training_flops(profile: Profile, architecture: Architecture, load: Load) -> float:
    """FLOPs of a step of training."""
    length = load.prompt + load.response
    forwards = 3 + profile.gradient_checkpointing + (profile.kl_beta > 0)  # a backward pass counts twice
    return profile.batch_size * length * forwards * architecture.forward_flops(length / 2)


def training_seconds(profile: Profile, architecture: Architecture, gpu: GPU, gpus: int, load: Load) -> float:
    """Seconds of a step of training, spread over the GPUs."""
    return training_flops(profile, architecture, load) / (gpus * TRAINING_SHARE * gpu.flops)
