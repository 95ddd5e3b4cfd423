"""What a run will take before it starts: time, memory, disk and cost on GPUs, from a stated model of tokens and FLOPs.

The model, for each optimizer step of a stage on G equal GPUs:

* *generation*, `batch_size` / G completions a GPU, by an engine that batches continuously (vLLM): the longer of its
  arithmetic, a forward pass a token, and its traffic, bound by memory bandwidth: each decoding step reads the weights once,
  and the cache of each response up to there. The last response to start reaches the limit, so there are as many steps as
  the limit has tokens, after those that responses which found no room in the cache had to wait for.
* *rewards*: programs in the sandbox and texts before the judge take a stated time each; others take none.
* *training*: a forward and a backward pass over prompts and responses, with `gradient_checkpointing` a second forward pass.

Evaluation generates the greedy and sampled responses of chapter 1; other chapters are not planned. `ASSUMED` is all that is
assumed; nothing of it was measured on the paper's model. Lengths of responses matter most, and change while a policy is
trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from crossdomain import launch
from crossdomain.domains import Domain
from crossdomain.domains.code_tests import TESTS
from crossdomain.domains.hub import HubDomain
from crossdomain.evaluation import test_splits
from crossdomain.footprint import BFLOAT16, KNOWN, LOGIT_BYTES, Architecture
from crossdomain.lineage import RL_SETTINGS, Lineage, Stage
from crossdomain.models import locate, tiny_tokenizer
from crossdomain.profiles import Profile, ProfileError
from crossdomain.staging import ADAM_RESTART, expert_names, learned, refresh_names
from crossdomain.throughput import (
    BANDWIDTH_SHARE,
    DECODING_SHARE,
    GPU,
    MEMORY_SHARE,
    TRAINING_SHARE,
    Load,
    generation_seconds,
    training_flops,
    training_seconds,
)

GIGA = 1e9
HEADINGS = {
    "tokens": "million tokens",
    "generation": "s a step: generation",
    "reward": "rewards",
    "training": "training",
}
CORES_A_GPU, PROGRAM_SECONDS = 16, 0.3
JUDGE_SECONDS = 0.125  # a text: 2 s, 16 at a time
LENGTHS = {  # mean tokens of prompts and responses by domain
    "code_tests": (600, 10_000),
    "openr1_math": (150, 8_000),
    "supergpqa": (300, 5_000),
    "creative_writing": (200, 2_500),
}
ASSUMED = (
    f"training reaches {TRAINING_SHARE:.0%} of a GPU's peak FLOP/s, generation {DECODING_SHARE:.0%} of it or "
    f"{BANDWIDTH_SHARE:.0%} of its bandwidth, whichever is slower",
    "parameters, gradients and Adam's moments are sharded over the GPUs (FSDP); each also holds an engine with bfloat16 "
    f"weights, whose cache takes what is left of {MEMORY_SHARE:.0%} of its memory",
    "mean tokens of prompts and responses: "
    + ", ".join(f"{name} {prompt} + {response}" for name, (prompt, response) in LENGTHS.items())
    + " (guesses; --tokens changes those of responses); of other domains, the longest response",
    f"{CORES_A_GPU} processor cores a GPU, {PROGRAM_SECONDS} core-seconds for each of up to {TESTS} programs a completion",
    f"{JUDGE_SECONDS} s for each text before the judge, whose own machine is not counted",
    "transfers, start-up, saving and waiting for stragglers between processes take no time",
)


@dataclass(frozen=True)
class Plan:
    """Tidy tables: `stages`, a row a stage or kind of evaluation; `memory`, a row a use of a GPU's; and totals.

    Attributes:
        stages: `stage`, `steps`, millions of `tokens`, seconds a step of `generation`, `reward` and `training`; `hours`.
        memory: `what` and `gigabytes` on each GPU.
        gpus: how many.
        capacity: gigabytes of each.
        disk: gigabytes of the store when all is done, and more while a stage is trained.
    """

    stages: pd.DataFrame
    memory: pd.DataFrame
    gpus: int
    capacity: float
    disk: tuple[float, float]

    @property
    def hours(self) -> float:
        """From the first stage to the last evaluation."""
        return float(self.stages["hours"].sum())

    @property
    def fits(self) -> bool:
        """Whether a GPU's memory is enough."""
        return float(self.memory["gigabytes"].sum()) <= self.capacity

    def text(self, price: float | None = None) -> str:
        """All of it for a terminal; with `price` of a GPU-hour, what it costs."""
        used = self.memory["gigabytes"].sum()
        gpu_hours = self.hours * self.gpus
        lines = [
            table(self.stages.rename(columns=HEADINGS)),
            "",
            table(self.memory.rename(columns={"what": "on each GPU", "gigabytes": "GB"})),
            "",
            f"time    {_short(self.hours)} h, {_short(gpu_hours)} GPU-hours a seed (GPUs: {self.gpus})",
            f"cost    {_short(gpu_hours * price)} at {price:g} a GPU-hour"
            if price is not None
            else "cost    say --price to know",
            f"memory  {used:.0f} of {self.capacity:.0f} GB a GPU"
            + ("" if self.fits else ": it does not fit; use more GPUs, a smaller hub.completion_tokens or microbatch"),
            f"disk    {self.disk[0]:.0f} GB, and {self.disk[1]:.0f} GB more while a stage is trained",
            "",
            "Estimated, never measured. Assumed:",
            *(f"- {assumption}" for assumption in ASSUMED),
        ]
        return "\n".join(lines)


def plan(profile: Profile, gpus: int, gpu: GPU, tokens: Mapping[str, float] | None = None) -> Plan:
    """The plan of chapter 1 of a profile, one seed.

    Args:
        profile: whose.
        gpus: how many, of one kind.
        gpu: the kind.
        tokens: mean tokens of a response by domain of the run, where they are known better.

    Raises:
        ProfileError: `tokens` names no domain, or completions cannot be split over the GPUs.
        FileNotFoundError: the model's configuration is not here.
    """
    lineage = Lineage(profile, 0)
    if unknown := set(tokens or {}) - set(lineage.domains):
        raise ProfileError(f"--tokens: no domain {', '.join(sorted(unknown))}; expected {', '.join(lineage.domains)}")
    if profile.batch_size % gpus:
        raise ProfileError(f"batch_size: {profile.batch_size} completions cannot be split over {gpus} GPUs")
    architecture = architecture_of(profile)
    loads = {name: _load(profile, name, domain, (tokens or {}).get(name)) for name, domain in lineage.domains.items()}
    memory = _memory(profile, architecture, gpus, max(load.limit for load in loads.values()))
    room = MEMORY_SHARE * gpu.memory - GIGA * memory.loc[memory["what"] != "cache of one response", "gigabytes"].sum()
    rows = []
    stages = _stages(lineage)
    for name, stage in stages.items():
        load = loads[stage.domain]
        generation = generation_seconds(architecture, gpu, profile.batch_size / gpus, load, room)
        reward = profile.batch_size * load.reward_seconds / gpus
        training = training_seconds(profile, architecture, gpu, gpus, load)
        rows.append(
            {
                "stage": name,
                "steps": stage.steps,
                "tokens": stage.steps * profile.batch_size * load.response / 1e6,
                "generation": generation,
                "reward": reward,
                "training": training,
                "hours": stage.steps * (generation + reward + training) / 3600,
            }
        )
    rows += [_evaluation(lineage, architecture, gpu, gpus, loads, room, len(stages) + 1)]
    rows += [_curves(lineage, architecture, gpu, gpus, loads, room)]
    return Plan(pd.DataFrame(rows), memory, gpus, gpu.memory / GIGA, _disk(profile, architecture, stages.values()))


def architecture_of(profile: Profile) -> Architecture:
    """The sizes of a profile's model, without its weights.

    Raises:
        FileNotFoundError: its configuration is neither here nor known.
    """
    if profile.model == "tiny":
        sizes = (profile.layers, profile.hidden_size, profile.intermediate_size)
        heads = (profile.attention_heads, profile.key_value_heads, profile.head_dim)
        return Architecture(*sizes, *heads, len(tiny_tokenizer()), tied=True)
    if profile.model in KNOWN:
        return KNOWN[profile.model]
    from transformers import AutoConfig

    location, options = locate(profile.model)
    try:
        return Architecture.of(AutoConfig.from_pretrained(location, **options))
    except (OSError, ValueError, AttributeError) as error:
        raise FileNotFoundError(
            f"model {profile.model!r}: no configuration of it here ({' '.join(str(error).split())[:200]}); set model to a "
            "local folder of it"
        ) from error


def measured(profile: Profile) -> pd.DataFrame:
    """What the store's stages under a profile's settings took, beside the model's count of tokens and FLOPs.

    Returns:
        A row a stage: `stage`, `steps`, `tokens` of a response, `seconds` a step, and `gigaflops` a second.
    """
    lineage = Lineage(profile, 0)
    architecture, settings = architecture_of(profile), profile.subset(*RL_SETTINGS)
    processes = launch.inputs(profile).get("processes")
    rows = []
    for artifact in lineage.store.artifacts():
        inputs = artifact.manifest["inputs"]
        name = artifact.manifest["name"]
        if inputs.get("kind") != "stage" or inputs["settings"] != settings or "+" in name:
            continue  # a + in a name says that it was trained by another method than one domain's GRPO
        if inputs.get("processes") != processes:
            continue  # on other processes
        log = pd.read_csv(artifact.path / "training.csv")
        stage = lineage.stage(name.rpartition("-seed")[0])
        prompt, _ = _lengths(profile, stage.domain, lineage.domains[stage.domain])
        mean = float(log["completion_tokens"].mean())
        load = Load(prompt, mean, math.ceil(mean), 0.0)
        generated = profile.batch_size * (mean + prompt) * architecture.forward_flops((prompt + mean) / 2)
        seconds = float(log["step_seconds"].mean())
        flops = generated + training_flops(profile, architecture, load)
        rows.append((name, len(log), mean, seconds, flops / seconds / GIGA))
    return pd.DataFrame(rows, columns=["stage", "steps", "tokens", "seconds", "gigaflops"])


def _stages(lineage: Lineage) -> dict[str, Stage]:
    """The stages of chapter 1 by name; of the control whose start is chosen by scores, one that takes as many steps."""
    names = [*lineage.sequence[1:], *(name for name in expert_names(lineage) if name not in lineage.sequence)]
    stages = {name: lineage.stage(name) for name in [*names, *refresh_names(lineage)]}
    if lineage.profile.interferes:
        control = lineage.stage(f"{learned(lineage)}-re{lineage.profile.refresh}")
        stages |= {control.name: control, ADAM_RESTART: control}
    return stages


def _lengths(profile: Profile, name: str, domain: Domain) -> tuple[float, float]:
    if profile.domains[name] in LENGTHS:
        return LENGTHS[profile.domains[name]]
    items = domain.items("train")[:100]
    characters = sum(len(profile.prompt(item.prompt, item.prefill)) for item in items) / len(items)
    return characters / (1 if profile.model == "tiny" else 4), domain.max_new_tokens


def _load(profile: Profile, name: str, domain: Domain, response: float | None) -> Load:
    prompt, assumed = _lengths(profile, name, domain)
    seconds = {"code_tests": TESTS * PROGRAM_SECONDS / CORES_A_GPU, "creative_writing": JUDGE_SECONDS}
    limit = domain.max_new_tokens
    return Load(prompt, min(response or assumed, limit), limit, seconds.get(profile.domains[name], 0.0))


def _memory(profile: Profile, architecture: Architecture, gpus: int, limit: int) -> pd.DataFrame:
    at_once = math.ceil((profile.microbatch or profile.batch_size) / gpus)
    length = limit + (profile.hub.prompt_tokens if profile.hub else limit)
    gathered = BFLOAT16 * (2 * architecture.layer + architecture.embedding) if gpus > 1 else 0
    rows = {
        "weights, gradients, Adam": architecture.state_bytes(4 if profile.weights == "float32" else 2) / gpus,
        "weights gathered for a layer": gathered,
        "activations": at_once * length * architecture.activation_bytes(profile.gradient_checkpointing),
        "logits": at_once * limit * architecture.vocabulary * LOGIT_BYTES,
        "engine's weights": BFLOAT16 * architecture.parameters,
        "cache of one response": length * architecture.cache_bytes,
    }
    return pd.DataFrame({"what": list(rows), "gigabytes": [size / GIGA for size in rows.values()]})


def _evaluation(
    lineage: Lineage,
    architecture: Architecture,
    gpu: GPU,
    gpus: int,
    loads: Mapping[str, Load],
    room: float,
    checkpoints: int,
) -> dict[str, Any]:
    profile = lineage.profile
    seconds = tokens = 0.0
    for name, domain in lineage.domains.items():
        for split in test_splits(domain):
            size = domain.size(split) if isinstance(domain, HubDomain) else len(domain.items(split))
            responses = min(profile.test_prompts, size) * (profile.samples + 1)
            seconds += generation_seconds(architecture, gpu, responses / gpus, loads[name], room)
            seconds += responses * loads[name].reward_seconds / gpus
            tokens += responses * loads[name].response
    return _row(f"scores of {checkpoints} checkpoints", checkpoints * tokens, checkpoints * seconds)


def _curves(
    lineage: Lineage, architecture: Architecture, gpu: GPU, gpus: int, loads: Mapping[str, Load], room: float
) -> dict[str, Any]:
    stages = [lineage.stage(name) for name in [*lineage.sequence[1:], *refresh_names(lineage)]]
    points = sum(2 + (stage.steps - 1) // stage.snapshot_every for stage in stages)
    prompts = lineage.profile.curve_prompts
    seconds = sum(generation_seconds(architecture, gpu, prompts / gpus, load, room) for load in loads.values())
    seconds += sum(prompts * load.reward_seconds / gpus for load in loads.values())
    tokens = prompts * sum(load.response for load in loads.values())
    return _row(f"curves of {points} points", points * tokens, points * seconds)


def _row(what: str, tokens: float, seconds: float) -> dict[str, Any]:
    return {"stage": what, "tokens": tokens / 1e6, "hours": seconds / 3600}


def _disk(profile: Profile, architecture: Architecture, stages: Iterable[Stage]) -> tuple[float, float]:
    """Gigabytes of checkpoints and snapshots at the end, and of saves for resuming while a stage is trained."""
    weights = (4 if profile.weights == "float32" else 2) * architecture.parameters / GIGA
    base = 4 * architecture.parameters / GIGA  # imported as float32
    kept = sum(1 + (stage.steps - 1) // stage.snapshot_every for stage in stages)
    return base + kept * weights, 2 * 3 * weights  # two saves of weights and two moments


def table(frame: pd.DataFrame) -> str:
    """Markdown with short numbers, and nothing where a number is missing."""
    shown = frame.map(lambda value: value if isinstance(value, str) else "" if pd.isna(value) else _short(value))
    return str(shown.to_markdown(index=False, disable_numparse=True, stralign="right"))


def _short(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
