"""Pre-training of the tiny base model on demonstrations, stopped where it is undertrained.

Reinforcement learning can only be seen to add skill to a base that lacks some, and skills appear suddenly, at steps that
depend on the seed. So every domain has a target, the probability of its demonstrations on the development split: while it
is reached, the domain's demonstrations are left out of the loss. Once all domains have reached theirs, the learning rate
decays to zero and the base is done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
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
from crossdomain.generation import response_probability
from crossdomain.models import check_vocabulary, tiny_model, tiny_tokenizer
from crossdomain.profiles import Profile
from crossdomain.progress import Progress, ProgressCallback
from crossdomain.resume import SealCallback
from crossdomain.training import common_arguments, quiet, run, save


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
    gate = Gate(profile, domains, tokenizer)
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
            gate=gate,
            model=model,
            args=arguments,
            train_dataset=Demonstrations(profile, domains, seed),
            data_collator=_batched(tokenizer),
            processing_class=tokenizer,
            optimizers=(optimizer, LambdaLR(optimizer, gate.rate)),
            callbacks=[gate, SealCallback(), ProgressCallback(progress, "loss")],
        )
        run(trainer, work)
    save(trainer, output, work)
    history: list[dict[str, Any]] = trainer.state.log_history
    rows = [{"step": row["step"], **row["dev"]} for row in history if "dev" in row]
    pd.DataFrame(rows, columns=["step", *gate.domains]).to_csv(output / "stopping.csv", index=False)


class Example(NamedTuple):
    """A demonstration of a domain."""

    domain: str
    prompt: str
    response: str


class Demonstrations(Dataset[Example]):
    """Prompts with a response to imitate: example i depends on the seed and i alone, whatever process asks."""

    def __init__(self, profile: Profile, domains: dict[str, Domain], seed: int) -> None:
        self.seed, self.profile = seed, profile
        self.slots = [name for name, count in profile.base_batch.items() for _ in range(count)]
        self.domains = {name: domains[name] for name in {*self.slots}}
        self.items = {name: domain.pretraining_items() for name, domain in self.domains.items()}

    def __len__(self) -> int:
        return len(self.slots) * self.profile.base_max_steps

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng([self.seed, index])
        name = self.slots[index % len(self.slots)]
        domain, items = self.domains[name], self.items[name]
        item = items[int(rng.integers(len(items)))]
        noisy = rng.random() < self.profile.label_noise.get(name, 0.0)
        shown = items[int(rng.integers(len(items)))] if noisy else item  # a noisy label is the answer to another prompt
        return Example(name, self.profile.prompt(item.prompt, item.prefill), domain.demonstration(shown, rng))


class Gate(TrainerCallback):
    """Which domains are trained on, and when the base is done, by their scores on the development split.

    All it knows is recomputed from the trainer's log, so a resumed run goes on as an uninterrupted one would.
    """

    def __init__(self, profile: Profile, domains: dict[str, Domain], tokenizer: PreTrainedTokenizerBase) -> None:
        self.profile, self.tokenizer = profile, tokenizer
        self.domains = {name: domains[name] for name in profile.base_stop_score}
        self.closed: set[str] = set()  # domains left out at present
        self.reached: set[str] = set()  # domains that have reached their target
        self.decay_from = profile.base_max_steps - profile.base_decay_steps

    def rate(self, step: int) -> float:
        """Factor of the learning rate at a step: warm-up, then constant or a cosine, then linear decay."""
        profile = self.profile
        if step < profile.base_warmup_steps:
            return (step + 1) / profile.base_warmup_steps
        if profile.base_schedule == "cosine":
            return float(0.5 * (1 + np.cos(np.pi * step / profile.base_max_steps)))
        return float(np.clip(1 - (step - self.decay_from) / max(1, profile.base_decay_steps), 0, 1))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called by the trainer before its first step, resumed or not."""
        history: list[dict[str, Any]] = state.log_history
        for row in history:
            if "dev" in row:
                self._consider(row["dev"], row["step"])

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
        if self.domains and model is not None and step % profile.base_check_every == 0:
            found = {name: self._likelihood(model, domain) for name, domain in self.domains.items()}
            row: dict[str, Any] = {"step": step, "dev": found}
            state.log_history.append(row)
            self._consider(found, step)
        if profile.base_schedule == "constant" and step >= self.decay_from + profile.base_decay_steps:
            control.should_training_stop = True

    def _consider(self, found: dict[str, float], step: int) -> None:
        self.closed = {name for name, score in found.items() if score >= self.profile.base_stop_score[name]}
        self.reached |= self.closed
        if self.reached == set(self.domains):
            self.decay_from = min(self.decay_from, step)

    def _likelihood(self, model: PreTrainedModel, domain: Domain) -> float:
        """Mean probability of the demonstrations of development items: the expected reward where one answer is right."""
        items, rng = domain.items("dev")[:200], np.random.default_rng(0)
        demonstrations = [domain.demonstration(item, rng) for item in items]
        model.eval()
        with torch.no_grad():
            found = response_probability(model, self.tokenizer, self.profile, domain, items, demonstrations)
        model.train()
        return float(found.mean())


class PretrainingTrainer(Trainer):
    """The trainer, reading examples in their order and leaving out the domains that the gate has closed."""

    def __init__(self, *args: Any, gate: Gate, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = gate

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        dataset: Any = self.train_dataset
        return SequentialSampler(dataset)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """The usual loss, with the labels of closed domains hidden."""
        open_rows = torch.tensor([domain not in self.gate.closed for domain in inputs.pop("domains")])
        labels = inputs["labels"]
        inputs["labels"] = labels.masked_fill(~open_rows[:, None].to(labels.device), -100)
        return super().compute_loss(model, inputs, *args, **options)


def _batched(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Example]], dict[str, Any]]:
    """A collator: padded on the right, with the loss on the response and its end alone."""

    def collate(examples: list[Example]) -> dict[str, Any]:
        prompts = tokenizer([example.prompt for example in examples])["input_ids"]
        responses = tokenizer([example.response for example in examples], add_special_tokens=False)["input_ids"]
        rows = [
            (prompt, [*response, tokenizer.eos_token_id]) for prompt, response in zip(prompts, responses, strict=True)
        ]
        width = max(len(prompt) + len(response) for prompt, response in rows)

        def pad(row: list[int], value: int) -> list[int]:
            return row + [value] * (width - len(row))

        return {
            "domains": [example.domain for example in examples],
            "input_ids": torch.tensor([pad(prompt + response, tokenizer.pad_token_id) for prompt, response in rows]),
            "attention_mask": torch.tensor([pad([1] * len(prompt + response), 0) for prompt, response in rows]),
            "labels": torch.tensor([pad([-100] * len(prompt) + response, -100) for prompt, response in rows]),
        }

    return collate
