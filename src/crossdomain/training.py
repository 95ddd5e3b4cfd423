"""Reinforcement learning of one stage with TRL's `GRPOTrainer`, resumable to the bit.

Departures from the paper, whose algorithm and settings are not public: GRPO with the values of the profile, a fresh Adam a
stage, rewards of `domains` instead of graders. A response that does not end within its length earns nothing.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from crossdomain.backends import trl_rollouts
from crossdomain.domains import Domain
from crossdomain.grpo import FrugalGRPOTrainer
from crossdomain.models import load_model, load_tokenizer, sampling_attention, stop_token_ids
from crossdomain.profiles import Profile
from crossdomain.progress import Progress, ProgressCallback
from crossdomain.resume import SealCallback, last_sealed

logger = logging.getLogger(__name__)

# What TRL logs, under the name it has in `training.csv`.
COLUMNS = {
    "step": "step",
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "groups_without_signal",
    "entropy": "entropy",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "share_cut_off",
    "clip_ratio/region_mean": "clip_ratio",
    "loss": "loss",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
    "step_time": "step_seconds",
}


def train_stage(
    profile: Profile,
    domain: Domain,
    *,
    parent: Path,
    weights: Path | None,
    steps: int,
    learning_rate: float,
    seed: int,
    snapshot_every: int,
    output: Path,
    work: Path,
    label: str,
    prompts: Dataset | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train the policy in `parent` on a domain by GRPO and leave the result in `output`.

    Args:
        profile: the run's settings.
        domain: what is trained.
        parent: directory of the policy to start from (safetensors and tokenizer).
        weights: a snapshot of it to start from instead of its final weights.
        steps: optimizer steps.
        learning_rate: of AdamW, constant after the warm-up.
        seed: of prompts, sampling and nothing else.
        snapshot_every: weights are kept every so many steps, in `output/snapshots`.
        output: gets the model, the tokenizer, `training.csv` (a row a step) and snapshots.
        work: trainer checkpoints, from which an interrupted stage resumes.
        label: what progress is shown under.
        prompts: what is trained on, in that order, columns as in `prompt_order` and as many rows; by default that.
        callbacks: of the trainer, beside those that keep and show progress.
    """
    quiet()
    tokenizer = load_tokenizer(parent)
    dtype, attention = getattr(torch, profile.weights), sampling_attention(profile.precision)
    model = load_model(parent, weights, dtype=dtype, **attention).train()
    stop = stop_token_ids(tokenizer, domain.stop)
    model.generation_config.eos_token_id = stop  # TRL ends completions, and masks what follows, at any of them
    data = prompt_order(profile, domain, steps, seed) if prompts is None else prompts
    generation = trl_rollouts.arguments(profile, tokenizer, data["prompt"], domain.max_new_tokens, stop)
    with Progress(label, steps) as progress, trl_rollouts.engine(profile):
        frugal = profile.skip_silent_groups and not profile.kl_beta  # each completion has a KL term
        trainer = (FrugalGRPOTrainer if frugal else GRPOTrainer)(
            model=model,
            args=grpo_config(profile, domain, steps, learning_rate, seed, work, **generation),
            reward_funcs=[ended_reward(domain, stop)],
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[SealCallback(), ProgressCallback(progress, "reward", "entropy"), *callbacks],
        )
        trl_rollouts.check_syncs(trainer, profile)
        trainer.add_callback(SnapshotCallback(trainer, work / "snapshots", snapshot_every))
        run(trainer, work)
    save(trainer, output, work)


def grpo_config(
    profile: Profile, domain: Domain, steps: int, learning_rate: float, seed: int, work: Path, **generation: Any
) -> GRPOConfig:
    """TRL's configuration of one stage, on one of its `profile.processes`.

    `generation` is what it is told of who generates, if not transformers.
    """
    passes = profile.batch_size // (profile.microbatch or profile.batch_size)
    return GRPOConfig(
        **common_arguments(profile, steps, seed, work),
        learning_rate=learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=profile.warmup_steps,
        weight_decay=0.0,
        adam_beta2=profile.adam_beta2,
        max_grad_norm=profile.max_grad_norm,
        per_device_train_batch_size=profile.batch_size // (passes * profile.processes),
        gradient_accumulation_steps=passes,
        num_generations=profile.generations,
        # One step's completions: more would make a run resumed inside a window differ from an uninterrupted one.
        steps_per_generation=passes,
        max_completion_length=domain.max_new_tokens,
        temperature=profile.temperature,
        epsilon=profile.clip_epsilon,
        beta=profile.kl_beta,
        shuffle_dataset=False,  # `prompt_order` has shuffled
        **generation,
    )


def common_arguments(profile: Profile, steps: int, seed: int, work: Path) -> dict[str, Any]:
    """Arguments of any trainer here: quiet, deterministic, saved every so often."""
    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(work),
        "max_steps": steps,
        "seed": seed,
        "use_cpu": not cuda,
        "bf16": profile.precision == "bf16-autocast",
        "gradient_checkpointing": profile.gradient_checkpointing,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": profile.save_every,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }


def prompt_order(profile: Profile, domain: Domain, steps: int, seed: int) -> Dataset:
    """The prompts of a stage in the order they are trained on: seeded shuffles of the training split, one after another.

    It is laid out for the whole stage, since a trainer resumed in a later epoch would shuffle anew.
    """
    items = domain.items("train")
    needed = steps * profile.batch_size // profile.generations
    rng = np.random.default_rng([seed, 1])
    shuffles = [rng.permutation(len(items)) for _ in range(-(-needed // len(items)))]
    chosen = [items[i] for i in np.concatenate(shuffles)[:needed]]
    return Dataset.from_dict(
        {
            "prompt": [profile.prompt(item.prompt, item.prefill) for item in chosen],
            "target": [item.target for item in chosen],
        }
    )


def ended_reward(domain: Domain, stop: Sequence[int]) -> Callable[..., list[float | None]]:
    """The domain's reward, but 0 for a completion that was cut off before it ended."""
    ends = frozenset(stop)

    def reward(*, completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        scores = domain.reward(**columns)
        return [score if ids and ids[-1] in ends else 0.0 for score, ids in zip(scores, completion_ids, strict=True)]

    reward.__name__ = type(domain).__name__
    return reward


class SnapshotCallback(TrainerCallback):
    """Keeps the weights every so many steps (not at the last one, which is the result itself)."""

    def __init__(self, trainer: Trainer, directory: Path, every: int) -> None:
        self.trainer, self.directory, self.every = trainer, directory, every

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Called by the trainer after every optimizer step."""
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            whole = whole_weights(self.trainer)
            if state.is_world_process_zero:
                self.directory.mkdir(parents=True, exist_ok=True)
                parameters = {name: value.detach().contiguous() for name, value in whole.items()}
                path = self.directory / f"{state.global_step:05d}.safetensors"
                save_file(parameters, path, metadata={"format": "pt"})


def whole_weights(trainer: Trainer) -> dict[str, Tensor]:
    """The parameters of a trainer's model, tied ones once; all processes have to ask, and the first gets them whole."""
    model: Any = trainer.model
    found = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {name: found[name] for name, _ in model.named_parameters() if name in found}


def run(trainer: Trainer, work: Path) -> None:
    """Train, from the last whole trainer checkpoint in `work` if there is one."""
    trainer.remove_callback(PrinterCallback)
    with trainer.accelerator.main_process_first():  # which removes those that are not whole
        checkpoint = last_sealed(work)
    if checkpoint is not None:
        logger.info("resuming from step %s of an interrupted run", checkpoint.name.partition("-")[2])
    with warnings.catch_warnings():
        # On CPU accelerate's autocast warns about nothing the user can change.
        warnings.filterwarnings("ignore", message=".*pin_memory.*", category=UserWarning)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def save(trainer: Trainer, output: Path, work: Path) -> None:
    """Leave model, tokenizer, snapshots and the tidy log of a finished trainer in `output`."""
    weights = whole_weights(trainer)
    if not trainer.is_world_process_zero():
        return
    model: Any = trainer.model
    tokenizer: Any = trainer.processing_class
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(output, state_dict=weights)
    tokenizer.save_pretrained(output)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    columns = {new: [row.get(old) for row in rows] for old, new in COLUMNS.items() if rows and old in rows[0]}
    pd.DataFrame(columns).to_csv(output / "training.csv", index=False)
    if (work / "snapshots").is_dir():
        shutil.copytree(work / "snapshots", output / "snapshots")


def quiet() -> None:
    """One thread, and no bars or chatter of libraries: `Progress` speaks for all of them."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bar()
