"""How long a GRPO step of TRL's trainer takes, against a bare loop doing the same work.

    python benchmarks/grpo_step.py --domain math code qa cw

The project trains with TRL's `GRPOTrainer`; this measures what that costs. The bare loop beside it has the same
prompts, model, sampling (transformers' `generate` with its cache), rewards, advantages, loss, clipping, AdamW and
logged quantities, and nothing else. Both run in one process, a block of steps of each in turn, so that a busy machine
slows both; and every bare step starts from the random state of its counterpart, so that both draw the same responses.
Before anything is timed, responses, loss and gradient of both are compared.

The ratio is of median wall times. Processor times are beside it: with one thread they are the wall times of an idle
machine, and the split by phase is given in them.

Exits with status 1 if the ratio of the median times is above `--limit`, or if the two do not compute the same.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.grpo_trainer import GRPOTrainer

from crossdomain import paths, provenance
from crossdomain.domains import Domain
from crossdomain.lineage import BASE_SETTINGS, MODEL_SETTINGS
from crossdomain.models import load_model, load_tokenizer, stop_token_ids, tiny_model, tiny_tokenizer
from crossdomain.profiles import Profile, load_profile
from crossdomain.progress import Progress, ProgressCallback
from crossdomain.resume import SealCallback
from crossdomain.store import Store
from crossdomain.training import ended_reward, grpo_config, prompt_order, quiet, run

Reward = Callable[..., list[float | None]]

GENERATION = "generation"
TEXT = "tokenising and decoding"
REWARD = "reward"
ROLLOUT = "padding, masks, advantages"
FORWARD = "log-probabilities and entropy"
LOSS = "loss and its metrics"
BACKWARD = "backward"
CLIPPING = "gradient clipping"
OPTIMIZER = "optimizer"
LOGGING = "logging and callbacks"
DATA = "data loading"
SAVING = "saving for resuming"
OTHER = "rest of the loop"
PHASES = [GENERATION, TEXT, REWARD, ROLLOUT, FORWARD, LOSS, BACKWARD, CLIPPING, OPTIMIZER, LOGGING, DATA, SAVING, OTHER]

TOLERANCE = 1e-5  # of loss and gradient, in the check that both do the same
CHECKED_STEPS = 3


@dataclass(frozen=True)
class Lap:
    """The seconds of one step by phase: on the wall's clock, and those of the processor."""

    wall: dict[str, float]
    cpu: dict[str, float]


class Stopwatch:
    """Times steps by phase. Of nested phases only the innermost counts, so phases add up to the whole."""

    def __init__(self) -> None:
        self._open: list[str] = []

    def start(self) -> None:
        """A step begins."""
        self._lap = Lap(dict.fromkeys(PHASES, 0.0), dict.fromkeys(PHASES, 0.0))
        self._open = [OTHER]
        self._since = time.perf_counter(), time.process_time()

    def stop(self) -> Lap:
        """The step is over."""
        self._book()
        self._open = []
        return self._lap

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside counts for that phase (outside of a step nothing counts)."""
        if not self._open:
            yield
            return
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def wrap(self, owner: Any, method: str, phase: str) -> None:
        """Make calls of an object's method count for a phase."""
        function = getattr(owner, method)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(phase):
                return function(*args, **kwargs)

        setattr(owner, method, timed)

    def _book(self) -> None:
        now = time.perf_counter(), time.process_time()
        self._lap.wall[self._open[-1]] += now[0] - self._since[0]
        self._lap.cpu[self._open[-1]] += now[1] - self._since[1]
        self._since = now


@dataclass(frozen=True)
class Task:
    """What both loops are given."""

    profile: Profile
    domain: Domain
    tokenizer: PreTrainedTokenizerBase
    steps: int
    learning_rate: float
    seed: int

    @functools.cached_property
    def stop(self) -> list[int]:
        """Ids of the tokens that end a response."""
        return stop_token_ids(self.tokenizer, self.domain.stop)

    @functools.cached_property
    def prompts(self) -> Dataset:
        """The prompts in the order of training."""
        return prompt_order(self.profile, self.domain, self.steps, self.seed)


class BareLoop:
    """GRPO as one would write it by hand: TRL's loss "dapo", on-policy, without KL penalty."""

    def __init__(self, task: Task, model: PreTrainedModel, reward: Reward) -> None:
        profile = task.profile
        self.task, self.model, self.reward = task, model, reward
        self.watch = Stopwatch()
        self.log: list[dict[str, float]] = []
        self.columns = task.prompts.to_dict()
        self.size = profile.batch_size // profile.generations
        self.stop = torch.tensor(task.stop)
        self.sampling = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=task.domain.max_new_tokens,
            do_sample=True,
            temperature=profile.temperature,
            top_k=0,
            eos_token_id=task.stop,
            pad_token_id=task.tokenizer.pad_token_id,
        )
        self.optimizer = torch.optim.AdamW(
            model.parameters(), betas=(0.9, profile.adam_beta2), weight_decay=0.0, fused=True
        )

    def step(self) -> Lap:
        """One step: sample responses, reward them, update the model, note what happened."""
        profile, watch, done = self.task.profile, self.watch, len(self.log)
        watch.start()
        with watch.phase(OPTIMIZER):
            self.optimizer.zero_grad()
            rate = self.task.learning_rate * min(1.0, done / profile.warmup_steps)
            self.optimizer.param_groups[0]["lr"] = rate
        sequences, attention, mask, rewards = self._rollout(done)
        with watch.phase(ROLLOUT):
            groups = rewards.view(-1, profile.generations)
            spread = groups.std(dim=1, keepdim=True)
            advantages = ((groups - groups.mean(dim=1, keepdim=True)) / (spread + 1e-4)).view(-1, 1)
        with watch.phase(FORWARD):
            logp, entropy = self._log_probabilities(sequences, attention, mask.shape[1])
        with watch.phase(LOSS):
            ratio = (logp - logp.detach()).exp()
            clipped = ratio.clamp(1 - profile.clip_epsilon, 1 + profile.clip_epsilon)
            tokens = mask.sum()
            loss = -(torch.min(ratio * advantages, clipped * advantages) * mask).sum() / tokens
        with watch.phase(BACKWARD):
            loss.backward()  # type: ignore[no-untyped-call]
        with watch.phase(CLIPPING):
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), profile.max_grad_norm)
        with watch.phase(OPTIMIZER):
            self.optimizer.step()
        with watch.phase(LOGGING):
            outside = ((ratio < 1 - profile.clip_epsilon) & (advantages < 0)) | (
                (ratio > 1 + profile.clip_epsilon) & (advantages > 0)
            )
            lengths = mask.sum(1)
            last = sequences[:, -mask.shape[1] :].gather(1, lengths[:, None] - 1)
            self.log.append(
                {
                    "step": done + 1,
                    "reward": rewards.mean().item(),
                    "reward_std": rewards.std().item(),
                    "groups_without_signal": (spread < 1e-8).float().mean().item(),
                    "entropy": ((entropy * mask).sum() / tokens).item(),
                    "completion_tokens": lengths.float().mean().item(),
                    "share_cut_off": (~torch.isin(last, self.stop)).float().mean().item(),
                    "clip_ratio": ((outside * mask).sum() / tokens).item(),
                    "loss": loss.item(),
                    "gradient_norm": norm.item(),
                    "learning_rate": rate,
                }
            )
        return watch.stop()

    def _rollout(self, done: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sampled responses to the step's prompts.

        Returns:
            Sequences and their attention mask, both (batch, position); the mask of responses (batch, length); rewards
            (batch,).
        """
        generations, tokenizer, watch = self.task.profile.generations, self.task.tokenizer, self.watch
        with watch.phase(DATA):
            rows = slice(done * self.size, (done + 1) * self.size)
            columns = {
                name: [value for value in values[rows] for _ in range(generations)]
                for name, values in self.columns.items()
            }
            prompts = columns.pop("prompt")
        with watch.phase(TEXT):
            inputs = tokenizer(prompts[::generations], return_tensors="pt", padding=True)
            inputs = {key: inputs[key].repeat_interleave(generations, 0) for key in ("input_ids", "attention_mask")}
        with watch.phase(GENERATION):
            sequences: Any = self.model.generate(**inputs, generation_config=self.sampling)  # type: ignore[operator]
        with watch.phase(ROLLOUT):
            responses = sequences[:, inputs["input_ids"].shape[1] :]
            ends = torch.isin(responses, self.stop)
            lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, responses.shape[1])
            mask = (torch.arange(responses.shape[1]) < lengths[:, None]).long()
            attention = torch.cat([inputs["attention_mask"], mask], dim=1)
            ids = [row[:n] for row, n in zip(responses.tolist(), lengths.tolist(), strict=True)]
        with watch.phase(TEXT):
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        with watch.phase(REWARD):
            rewards = torch.tensor(self.reward(prompts=prompts, completions=texts, completion_ids=ids, **columns))
        return sequences, attention, mask, rewards

    def _log_probabilities(self, sequences: Tensor, attention: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Of the responses' tokens: log-probabilities, and entropy of the distribution; both (batch, length)."""
        output = self.model(input_ids=sequences, attention_mask=attention, logits_to_keep=length + 1, use_cache=False)
        logits = output.logits[:, :-1] / self.task.profile.temperature  # the last predicts what follows the response
        distribution = logits.log_softmax(-1)  # (batch, length, vocabulary)
        logp = distribution.gather(2, sequences[:, -length:, None]).squeeze(2)
        with torch.no_grad():
            entropy = -(distribution.exp() * distribution).sum(-1)
        return logp, entropy


class Interleaved:
    """Runs blocks of bare steps between blocks of a trainer's, each from the random state of its counterpart.

    A trainer asks for a step's batch when the step begins: there the step before is over, and a block may be. So its
    last step has no counterpart and is not counted.
    """

    def __init__(self, trainer: Any, bare: BareLoop, block: int) -> None:
        self.bare, self.block = bare, block
        self.watch = Stopwatch()
        self.trl_laps: list[Lap] = []
        self.bare_laps: list[Lap] = []
        self._states: list[Tensor] = []
        self._fetch = trainer.get_batch_samples
        trainer.get_batch_samples = self._begin_step

    def _begin_step(self, *args: Any) -> Any:
        if self._states:
            self.trl_laps.append(self.watch.stop())
        if len(self._states) == self.block:
            after = torch.get_rng_state()
            for state in self._states:
                torch.set_rng_state(state)
                self.bare_laps.append(self.bare.step())
            torch.set_rng_state(after)
            self._states.clear()
        self.watch.start()
        with self.watch.phase(DATA):
            batch = self._fetch(*args)
            self._states.append(torch.get_rng_state())  # only now: an epoch's first batch draws a random number
        return batch


class PhaseCallback(TrainerCallback):
    """Has the phases of a trainer timed, once it has its optimizer."""

    def __init__(self, trainer: Any, watch: Stopwatch) -> None:
        self.trainer, self.watch = trainer, watch

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called by the trainer before its first step."""
        trainer, callbacks = self.trainer, self.trainer.callback_handler
        for owner, method, phase in (
            (trainer, "_prepare_inputs", ROLLOUT),
            (trainer, "_tokenize_prompts", TEXT),
            (trainer.processing_class, "batch_decode", TEXT),
            (trainer.model, "generate", GENERATION),
            (trainer, "_calculate_rewards", REWARD),
            (trainer, "compute_loss", LOSS),
            (trainer, "_get_per_token_logps_and_entropies", FORWARD),
            (trainer.accelerator, "backward", BACKWARD),
            (trainer, "_clip_grad_norm", CLIPPING),
            (trainer.optimizer, "step", OPTIMIZER),
            (trainer.model, "zero_grad", OPTIMIZER),
            (trainer, "log", LOGGING),
            (callbacks, "on_step_begin", LOGGING),
            (callbacks, "on_pre_optimizer_step", LOGGING),
            (callbacks, "on_optimizer_step", LOGGING),
            (callbacks, "on_step_end", LOGGING),
            (trainer, "_save_checkpoint", SAVING),
            (callbacks, "on_save", SAVING),
        ):
            self.watch.wrap(owner, method, phase)


class GradientCallback(TrainerCallback):
    """Keeps the clipped gradient of every step."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> None:
        """Called by the trainer between clipping and the optimizer's step."""
        if model is not None:
            self.gradients.append(gradient(model))


def gradient(model: PreTrainedModel) -> Tensor:
    """The gradient of all parameters as one vector."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def grpo_trainer(
    task: Task, model: PreTrainedModel, reward: Reward, work: Path, callbacks: list[TrainerCallback]
) -> Any:
    """TRL's trainer as `crossdomain.training` makes it."""
    model.generation_config.eos_token_id = task.stop
    rewards: list[Any] = [reward]  # TRL's type wants floats or None, which a list of floats is not to mypy
    return GRPOTrainer(
        model=model,
        args=grpo_config(task.profile, task.domain, task.steps, task.learning_rate, task.seed, work),
        reward_funcs=rewards,
        train_dataset=task.prompts,
        processing_class=task.tokenizer,
        callbacks=callbacks,
    )


def check(task: Task, model: PreTrainedModel) -> dict[str, Any]:
    """Largest differences between both loops over some steps from the same weights and random state.

    The rewards get a part that depends on the response's letters alone, so that there is a gradient to compare even
    where a model earns nothing.
    """
    earned = ended_reward(task.domain, task.stop)
    responses: dict[str, list[Any]] = {"trl": [], "bare": []}

    def reward(name: str) -> Reward:
        def watched(*, completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
            responses[name].append(completion_ids)
            scores = earned(completions=completions, completion_ids=completion_ids, **columns)
            return [(s or 0.0) + zlib.crc32(text.encode()) % 8 / 8 for s, text in zip(scores, completions, strict=True)]

        return watched

    kept = GradientCallback()
    trl_model, bare_model = copy.deepcopy(model), copy.deepcopy(model)
    bare = BareLoop(task, bare_model, reward("bare"))
    bare_gradients: list[Tensor] = []
    with tempfile.TemporaryDirectory() as work:
        trainer = grpo_trainer(task, trl_model, reward("trl"), Path(work), [kept])
        Interleaved(trainer, bare, block=1)
        bare.optimizer.register_step_pre_hook(lambda *_: bare_gradients.append(gradient(bare_model)))
        run(trainer, Path(work))
    steps = len(bare.log)
    logs = [row for row in trainer.state.log_history if "loss" in row][:steps]
    pairs = list(zip(logs, bare.log, strict=True))
    gradients = list(zip(kept.gradients[:steps], bare_gradients, strict=True))
    found: dict[str, float] = {
        "loss": max(abs(a["loss"] - b["loss"]) for a, b in pairs),
        "entropy": max(abs(a["entropy"] - b["entropy"]) for a, b in pairs),
        "gradient": max(((a - b).norm() / a.norm()).item() for a, b in gradients),
        "gradient_norm": max(abs(a["grad_norm"] / b["gradient_norm"] - 1) for a, b in pairs),
    }
    same_responses = responses["trl"][:steps] == responses["bare"]
    same = same_responses and all(difference <= TOLERANCE for difference in found.values())  # a NaN is not
    return {"steps": steps, "same": same, "same_responses": same_responses, **found}


def measure(task: Task, model: PreTrainedModel, block: int, warm_up: int) -> dict[str, Any]:
    """Time both loops, a block of steps of each in turn."""
    reward = ended_reward(task.domain, task.stop)
    trl_model, bare_model = copy.deepcopy(model), copy.deepcopy(model)
    bare = BareLoop(task, bare_model, reward)
    with tempfile.TemporaryDirectory() as work, Progress("GRPO by TRL and bare", task.steps) as progress:
        shown = ProgressCallback(progress, "reward", "entropy")
        trainer = grpo_trainer(task, trl_model, reward, Path(work), [SealCallback(), shown])
        interleaved = Interleaved(trainer, bare, block)
        trainer.add_callback(PhaseCallback(trainer, interleaved.watch))
        run(trainer, Path(work))
    logs = [row for row in trainer.state.log_history if "loss" in row][: len(bare.log)]
    same = [abs(a["reward"] - b["reward"]) < 1e-6 for a, b in zip(logs, bare.log, strict=True)]
    return {
        **compare(interleaved.trl_laps[warm_up:], interleaved.bare_laps[warm_up:], block),
        "save_every": task.profile.save_every,
        "same_reward_steps": f"{sum(same)} of {len(same)}",
        "reward": [statistics.mean(row["reward"] for row in log[-10:]) for log in (logs, bare.log)],
        "completion_tokens": [
            statistics.mean(row["completions/mean_length"] for row in logs[warm_up:]),
            statistics.mean(row["completion_tokens"] for row in bare.log[warm_up:]),
        ],
    }


def compare(trl: list[Lap], bare: list[Lap], block: int) -> dict[str, Any]:
    """Medians, quartiles and ratios of the times of both, and where the difference lies."""
    report: dict[str, Any] = {"steps": len(bare)}
    for clock in ("wall", "cpu"):
        laps = {name: [getattr(lap, clock) for lap in loop] for name, loop in (("trl", trl), ("bare", bare))}
        seconds = {name: [sum(phases.values()) for phases in loop] for name, loop in laps.items()}
        blocks = [slice(start, start + block) for start in range(0, len(bare), block)]
        report[clock] = {
            "ratio": median(seconds["trl"]) / median(seconds["bare"]),
            "ratio_of_blocks": quartiles([sum(seconds["trl"][part]) / sum(seconds["bare"][part]) for part in blocks]),
            "seconds": {name: quartiles(values) for name, values in seconds.items()},
            "phases": {
                phase: {name: median(phases[phase] for phases in loop) for name, loop in laps.items()}
                for phase in PHASES
            },
        }
    saves = [lap.wall[SAVING] for lap in trl if lap.wall[SAVING] > 0]
    return {"ratio": report["wall"]["ratio"], **report, "seconds_a_save": median(saves) if saves else None}


def median(values: Any) -> float:
    """The median of numbers."""
    return float(statistics.median(values))


def quartiles(values: list[float]) -> list[float]:
    """First quartile, median, third quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def starting_point(profile: Profile, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """A base model of the profile's size from the store, else a random one; its tokenizer; and which it is."""
    found = []
    for artifact in Store(paths.store()).artifacts():
        settings = artifact.manifest["inputs"].get("settings", {})
        if artifact.manifest["inputs"].get("kind") == "base" and all(
            settings.get(key) == getattr(profile, key) for key in (*MODEL_SETTINGS, "prompt_template")
        ):
            alike = sum(settings.get(key) == getattr(profile, key) for key in BASE_SETTINGS)
            found.append((alike, artifact.manifest["made"], artifact.key, artifact.path))
    if found:
        *_, key, path = max(found)
        return load_model(path).train(), load_tokenizer(path), f"base from the store ({key})"
    tokenizer = tiny_tokenizer()
    return tiny_model(profile, tokenizer, seed).train(), tokenizer, f"random weights (seed {seed}): none in the store"


def show(name: str, report: dict[str, Any]) -> None:
    """Print one domain's report."""
    found = report["check"]
    print(f"\n{name}: {report['model']}")
    print(
        f"  check over {found['steps']} steps: responses {'equal' if found['same_responses'] else 'DIFFER'}, "
        f"loss within {found['loss']:.1e}, entropy {found['entropy']:.1e}, gradient {found['gradient']:.1e} "
        f"(relative; tolerance {TOLERANCE:g}): {'same work' if found['same'] else 'NOT THE SAME'}"
    )
    print(
        f"  {report['steps']} steps of each; mean reward equal at {report['same_reward_steps']} steps; "
        f"{report['completion_tokens'][0]:.2f} and {report['completion_tokens'][1]:.2f} tokens a response"
    )
    print(f"  {'seconds a step':32}{'TRL':>9}{'bare':>9}{'ratio':>9}   ratio of paired blocks, quartiles")
    for clock, label in (("wall", "wall"), ("cpu", "processor")):
        times = report[clock]
        (low, _, high), trl, bare = times["ratio_of_blocks"], times["seconds"]["trl"], times["seconds"]["bare"]
        print(f"  {label + ', median':32}{trl[1]:9.4f}{bare[1]:9.4f}{times['ratio']:9.3f}   {low:.3f} to {high:.3f}")
        print(f"  {'  lower quartile':32}{trl[0]:9.4f}{bare[0]:9.4f}")
        print(f"  {'  upper quartile':32}{trl[2]:9.4f}{bare[2]:9.4f}")
    print(f"  {'processor milliseconds, medians':32}{'TRL':>9}{'bare':>9}{'more':>9}{'of it':>8}")
    phases = report["cpu"]["phases"]
    whole = sum(times["trl"] - times["bare"] for times in phases.values())
    for phase, times in phases.items():
        more = times["trl"] - times["bare"]
        share = f"{more / whole:8.0%}" if whole else ""
        print(f"  {phase:32}{1e3 * times['trl']:9.2f}{1e3 * times['bare']:9.2f}{1e3 * more:9.2f}{share}")
    if report["seconds_a_save"] is not None:
        cost, every = report["seconds_a_save"], report["save_every"]
        print(f"  a save for resuming takes {cost:.3f} s: {1e3 * cost / every:.2f} ms a step when every {every} steps")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--domain", nargs="+", default=["math"], help="domains of the profile to time")
    parser.add_argument("--profile", default="cpu", help="name of a profile or a YAML file")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of each loop, rounded up to whole blocks")
    parser.add_argument("--warm-up", type=int, default=5, help="steps of each that are not counted")
    parser.add_argument("--block", type=int, default=5, help="steps of one loop before the other has its turn")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and sampling")
    parser.add_argument("--limit", type=float, default=1.4, help="the largest ratio that is not a failure")
    parser.add_argument("--output", type=Path, default=paths.runs() / "benchmarks" / "grpo_step.json", help="report")
    options = parser.parse_args()
    if options.steps < 1 or options.block < 1 or options.warm_up < 0:
        parser.error("--steps and --block must be at least 1, --warm-up at least 0")
    return options


def main() -> int:
    """Time the domains asked for, print and write the report; the exit status."""
    options = arguments()
    quiet()
    profile = load_profile(options.profile)
    if profile.precision != "float32" or profile.kl_beta or torch.cuda.is_available():
        sys.exit(f"profile {profile.name}: the bare loop knows float32 on a CPU without KL penalty only")
    domains = profile.load_domains()
    if unknown := [name for name in options.domain if name not in domains]:
        sys.exit(f"no domain {', '.join(unknown)} in profile {profile.name}: expected {', '.join(domains)}")
    model, tokenizer, description = starting_point(profile, options.seed)
    total = -(-(options.warm_up + options.steps) // options.block) * options.block
    reports = {}
    for name in options.domain:
        make_task = functools.partial(
            Task, profile, domains[name], tokenizer, learning_rate=profile.learning_rate[name], seed=options.seed
        )
        found = check(make_task(steps=CHECKED_STEPS + 1), model)
        timed = measure(make_task(steps=total + 1), model, options.block, options.warm_up)
        reports[name] = {"model": description, "check": found, "load_average": os.getloadavg()[0], **timed}
        show(name, reports[name])
    passed = all(report["check"]["same"] and report["ratio"] <= options.limit for report in reports.values())
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps(
            {
                "benchmark": "GRPO step: TRL against a bare loop",
                "limit": options.limit,
                "passed": passed,
                "profile": profile.label,
                "hardware": provenance.hardware(),
                "versions": provenance.versions(),
                "commit": provenance.git_commit(),
                "domains": reports,
            },
            indent=1,
        )
    )
    verdict = "within" if passed else "NOT within"
    ratios = ", ".join(f"{name} {report['ratio']:.3f}" for name, report in reports.items())
    print(f"\nratio: {ratios}; {verdict} the limit of {options.limit:g}; report in {options.output}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
