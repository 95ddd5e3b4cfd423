"""Pre-training of the tiny base model on demonstrations, stopped where it is undertrained.

Reinforcement learning can only be seen to add skill to a base that lacks some. The base is trained until its score on the
development split of one domain reaches the profile's `base_stop_score`, then its learning rate decays to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from crossdomain.domains import Domain
from crossdomain.generation import expected_reward
from crossdomain.models import check_vocabulary, tiny_model, tiny_tokenizer
from crossdomain.profiles import Profile
from crossdomain.progress import Progress, ProgressCallback
from crossdomain.resume import SealCallback
from crossdomain.training import common_arguments, quiet, run, save

Tokens = dict[str, list[int]]


def pretrain_base(profile: Profile, domains: dict[str, Domain], *, seed: int, output: Path, work: Path) -> None:
    """Train the tiny base of a profile from scratch and leave it in `output`.

    Raises:
        ValueError: a domain's items cannot be spelled with the tiny model's characters.
    """
    quiet()
    tokenizer = tiny_tokenizer()
    for name, domain in domains.items():
        check_vocabulary(name, domain, tokenizer)
    model = tiny_model(profile, tokenizer, seed)
    stopping = StopAtScore(profile, domains, tokenizer)
    arguments = TrainingArguments(
        **common_arguments(profile, profile.base_max_steps, seed, work),
        per_device_train_batch_size=sum(profile.base_batch.values()),
        max_grad_norm=profile.max_grad_norm,
    )
    optimizer = AdamW(
        model.parameters(),
        lr=profile.base_learning_rate,
        betas=(0.9, 0.98),
        weight_decay=profile.base_weight_decay,
    )
    with Progress(f"base, seed {seed}", profile.base_max_steps) as progress:
        trainer = PretrainingTrainer(
            model=model,
            args=arguments,
            train_dataset=Demonstrations(profile, domains, tokenizer, seed),
            data_collator=_padded(tokenizer),
            processing_class=tokenizer,
            optimizers=(optimizer, LambdaLR(optimizer, stopping.rate)),
            callbacks=[stopping, SealCallback(), ProgressCallback(progress, "loss", "dev_score")],
        )
        run(trainer, work)
    save(trainer, output, work)
    history = [row for row in trainer.state.log_history if "dev_score" in row]
    np.savetxt(
        output / "stopping.csv",
        [[row["step"], row["dev_score"]] for row in history],
        delimiter=",",
        header="step,dev_score",
        comments="",
        fmt=["%d", "%.6f"],
    )


class Demonstrations(Dataset[Tokens]):
    """Tokenised demonstrations, the same for every process: example i depends on the seed and i alone."""

    def __init__(
        self, profile: Profile, domains: dict[str, Domain], tokenizer: PreTrainedTokenizerBase, seed: int
    ) -> None:
        self.tokenizer, self.seed, self.profile = tokenizer, seed, profile
        self.slots = [name for name, count in profile.base_batch.items() for _ in range(count)]
        self.domains = {name: domains[name] for name in {*self.slots}}
        self.items = {name: domain.pretraining_items() for name, domain in self.domains.items()}

    def __len__(self) -> int:
        return len(self.slots) * self.profile.base_max_steps

    def __getitem__(self, index: int) -> Tokens:
        rng = np.random.default_rng([self.seed, index])
        name = self.slots[index % len(self.slots)]
        domain, items = self.domains[name], self.items[name]
        item = items[rng.integers(len(items))]
        noisy = rng.random() < self.profile.label_noise.get(name, 0.0)
        shown = items[rng.integers(len(items))] if noisy else item  # a noisy label is the answer to another prompt
        prompt = self.tokenizer(self.profile.prompt(item.prompt, item.prefill))["input_ids"]
        response = self.tokenizer(domain.demonstration(shown, rng), add_special_tokens=False)["input_ids"]
        response = [*response, self.tokenizer.eos_token_id]
        return {"input_ids": prompt + response, "labels": [-100] * len(prompt) + response}


class PretrainingTrainer(Trainer):
    """The trainer, reading examples in their order."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)


class StopAtScore(TrainerCallback):
    """Ends training at a development score: from there the rate decays linearly to zero.

    All it knows is recomputed from the trainer's log, so a resumed run stops at the same step.
    """

    def __init__(self, profile: Profile, domains: dict[str, Domain], tokenizer: PreTrainedTokenizerBase) -> None:
        self.profile, self.tokenizer = profile, tokenizer
        self.domain = domains[profile.base_stop_domain] if profile.base_stop_domain else None
        self.decay_from = profile.base_max_steps - profile.base_decay_steps

    def rate(self, step: int) -> float:
        """Factor of the learning rate at a step: warm-up, then constant or a cosine, then linear decay."""
        profile = self.profile
        if step < profile.base_warmup_steps:
            return (step + 1) / profile.base_warmup_steps
        if profile.base_schedule == "cosine":
            return float(0.5 * (1 + np.cos(np.pi * step / profile.base_max_steps)))
        return float(np.clip(1 - (step - self.decay_from) / max(1, profile.base_decay_steps), 0, 1))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by the trainer before its first step, resumed or not."""
        for row in state.log_history:
            self._consider(row.get("dev_score", 0.0), row["step"])

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> None:
        """Called by the trainer after every optimizer step."""
        step, profile = state.global_step, self.profile
        if self.domain is not None and model is not None and step % profile.base_check_every == 0:
            score = self._dev_score(model)
            state.log_history.append({"step": step, "dev_score": score})
            self._consider(score, step)
        if profile.base_schedule == "constant" and step >= self.decay_from + profile.base_decay_steps:
            control.should_training_stop = True

    def _consider(self, score: float, step: int) -> None:
        if score >= self.profile.base_stop_score and self.domain is not None:
            self.decay_from = min(self.decay_from, step)

    def _dev_score(self, model: PreTrainedModel) -> float:
        assert self.domain is not None
        model.eval()
        with torch.no_grad():
            scores = expected_reward(model, self.tokenizer, self.profile, self.domain, self.domain.items("dev"))
        model.train()
        return float(scores.mean())


def _padded(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Tokens]], dict[str, torch.Tensor]]:
    """A collator that pads on the right and hides the padding from attention and loss."""

    def collate(examples: list[Tokens]) -> dict[str, torch.Tensor]:
        width = max(len(example["input_ids"]) for example in examples)

        def pad(key: str, value: int) -> torch.Tensor:
            return torch.tensor([example[key] + [value] * (width - len(example[key])) for example in examples])

        ids = pad("input_ids", int(tokenizer.pad_token_id))
        return {"input_ids": ids, "labels": pad("labels", -100), "attention_mask": (ids != tokenizer.pad_token_id).long()}

    return collate
