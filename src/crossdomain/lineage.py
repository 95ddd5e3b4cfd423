"""The checkpoints of a run: each has a name that says how it is made, and is trained when first asked for.

base                    the base model
code                    the base after the Code stage (Code's expert)
code-math-qa-cw         the whole sequence
code-math-qa-cw-remath  and a refresh of Math
code-math_50            a Math stage of 50 steps after Code
code-math@25            Math's stage after 25 of its steps (a snapshot it kept)
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from crossdomain import (
    backends,
    bfloat16_products,
    generation,
    grpo,
    launch,
    models,
    paths,
    pretraining,
    provenance,
    shared_prompts,
    training,
)
from crossdomain.domains import Domain
from crossdomain.domains.hub import HubDomain
from crossdomain.profiles import Profile
from crossdomain.store import Artifact, Store, sha256

BASE = "base"
TOKEN = re.compile(r"(?P<refresh>re)?(?P<domain>[a-z0-9]+?)(?:_(?P<steps>[1-9][0-9]*))?")

MODEL_SETTINGS = ("hidden_size", "layers", "intermediate_size", "attention_heads", "key_value_heads", "head_dim")
BASE_SETTINGS = (
    *("prompt_template", "precision", "max_grad_norm", "base_batch", "label_noise", "base_learning_rate"),
    *("base_schedule", "base_max_steps", "base_warmup_steps", "base_decay_steps", "base_stop_score"),
    *("base_check_every", "base_weight_decay", "evaluation_batch"),
)
RL_SETTINGS = (
    *("prompt_template", "precision", "weights", "batch_size", "generations", "warmup_steps", "temperature"),
    *("clip_epsilon", "kl_beta", "adam_beta2", "max_grad_norm", "microbatch", "gradient_checkpointing"),
    *("skip_silent_groups", "rollouts"),
)


@dataclass(frozen=True)
class Stage:
    """One stage of reinforcement learning: what it starts from, and what it does."""

    name: str
    parent: str
    domain: str
    steps: int
    learning_rate: float
    snapshot_every: int
    seed: int


@dataclass(frozen=True)
class Checkpoint:
    """A trained policy of a run. `weights` is set where it is a snapshot inside the stage that `artifact` holds."""

    name: str
    artifact: Artifact
    weights: Path | None = None

    @property
    def key(self) -> str:
        """What identifies the weights."""
        return self.artifact.key + (f"@{self.weights.stem}" if self.weights else "")

    @property
    def path(self) -> Path:
        """Where its weights are: a directory, or the file of a snapshot."""
        whole = self.artifact.whole()
        return self.weights or whole

    def model(self, **options: Any) -> PreTrainedModel:
        """The policy, in float32 and evaluation mode; `options` go to `models.load_model`."""
        return models.load_model(self.artifact.whole(), self.weights, **options)

    def config(self) -> PretrainedConfig:
        """Its configuration, without its weights."""
        config: PretrainedConfig = AutoConfig.from_pretrained(self.artifact.path, local_files_only=True)
        return config

    def parameter_count(self) -> int:
        """How many parameters it has, tied ones once, told from its configuration."""
        with torch.device("meta"):
            return int(AutoModelForCausalLM.from_config(self.config()).num_parameters())

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return models.load_tokenizer(self.artifact.path)

    def training_log(self) -> pd.DataFrame:
        """Reward, entropy, completion length, clipping, time and more, a row a step of its stage."""
        return pd.read_csv(self.artifact.path / "training.csv")

    def snapshots(self) -> list[int]:
        """Steps of its stage at which weights were kept."""
        files = map(Path, self.artifact.described)
        return sorted(int(file.stem) for file in files if file.parent.name == "snapshots")


class Lineage:
    """The checkpoints of one profile and seed."""

    def __init__(self, profile: Profile, seed: int, store: Store | None = None, run: str | None = None) -> None:
        if seed < 0:
            raise ValueError(f"seed = {seed}: expected an integer of 0 or more")
        self.profile, self.seed, self.run = profile, seed, run or profile.label
        self.domains: dict[str, Domain] = profile.load_domains()
        bfloat16_products.prepare(profile.precision)
        self.store = store or Store(paths.store())
        self._found: dict[str, Checkpoint] = {}

    def variant(self, changes: Mapping[str, Any]) -> Lineage:
        """The same lineage under other settings, such as `{"learning_rate.math": 1e-6}`, as a part of this run.

        Raises:
            ProfileError: a setting cannot be used.
        """
        return Lineage(self.profile.override(changes), self.seed, self.store, self.run)

    @property
    def sequence(self) -> list[str]:
        """Names of the checkpoints after each stage, in order, beginning with the base."""
        stages = self.profile.stages
        return [BASE, *("-".join(stages[: i + 1]) for i in range(len(stages)))]

    def stage(self, name: str) -> Stage:
        """The stage that makes the checkpoint of that name.

        Raises:
            ValueError: the name is not made of this run's domains.
        """
        parent, _, token = name.rpartition("-")
        match = TOKEN.fullmatch(token)
        known = ", ".join(self.domains)
        if match is None:
            raise ValueError(
                f"checkpoint {name!r}: cannot read {token!r}; expected a domain of {known}, as in 'code-math'"
            )
        domain, refresh = match["domain"], match["refresh"] is not None
        if refresh and "re" + domain in self.domains:
            domain, refresh = "re" + domain, False
        if domain not in self.domains:
            raise ValueError(f"checkpoint {name!r}: no domain {domain!r} in this profile; expected one of {known}")
        profile = self.profile
        rate = profile.learning_rate[domain]
        return Stage(
            name=name,
            parent=parent or BASE,
            domain=domain,
            steps=int(match["steps"] or (profile.refresh_steps if refresh else profile.steps[domain])),
            learning_rate=(profile.refresh_learning_rate or rate) if refresh else rate,
            snapshot_every=profile.refresh_snapshot_every if refresh else profile.snapshot_every,
            seed=self.seed,
        )

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint of that name, trained (with all it descends from) if it is not in the store.

        Raises:
            ValueError: the name cannot be read, or asks for a snapshot that was not kept.
        """
        if name not in self._found:
            stage, snapshot, step = name.rpartition("@")
            if snapshot and "-" not in step:  # what follows a dash is a stage that starts from a snapshot
                self._found[name] = self._snapshot(name, stage, step)
            else:
                self._found[name] = Checkpoint(name, self._base() if name == BASE else self._trained(self.stage(name)))
            self.refer(name, self._found[name].artifact)
        return self._found[name]

    def adopt(self, checkpoint: Checkpoint) -> Checkpoint:
        """Know a checkpoint that was trained elsewhere by its name, so that it can be evaluated like the others.

        Raises:
            ValueError: its name is that of a stage, such as `code-math`.
        """
        name = checkpoint.name
        if name == BASE or TOKEN.fullmatch(name.rpartition("-")[2]):
            raise ValueError(f"checkpoint {name!r}: that names a stage; expected another name, as in 'code-math+mixed'")
        self._found[name] = checkpoint
        self.refer(name, checkpoint.artifact)
        return checkpoint

    def _snapshot(self, name: str, stage: str, step: str) -> Checkpoint:
        if not (step.isascii() and step.isdecimal()):
            raise ValueError(
                f"checkpoint {name!r}: cannot read {step!r}; expected a step after '@', as in 'code-math@25'"
            )
        made = self.stage(stage) if stage != BASE else None
        kept = range(made.snapshot_every, made.steps, made.snapshot_every) if made else range(0)
        if int(step) not in kept:  # said before the stage is trained
            raise ValueError(f"checkpoint {name!r}: no snapshot at step {step}; kept are {list(kept)}")
        artifact = self.checkpoint(stage).artifact
        weights = artifact.path / "snapshots" / f"{int(step):05d}.safetensors"
        return Checkpoint(name, artifact, weights)

    def _base(self) -> Artifact:
        profile = self.profile
        if profile.model != "tiny":
            return import_pretrained(self.store, profile.model)
        seed = profile.base_seed(self.seed)
        inputs = {
            "kind": "base",
            "settings": profile.subset(*MODEL_SETTINGS, *BASE_SETTINGS),
            "seed": seed,
            "mixture": list(profile.base_batch.items()),  # its order is that of the examples in a batch
            "domains": {n: domain_inputs(self.domains[n]) for n in {**profile.base_batch, **profile.base_stop_score}},
            **environment(pretraining, training, generation, models),
        }
        return self.store.get(
            f"base-seed{seed}",
            inputs,
            lambda output, work: pretraining.pretrain_base(profile, self.domains, seed=seed, output=output, work=work),
        )

    def _trained(self, stage: Stage) -> Artifact:
        parent = self.checkpoint(stage.parent)
        domain = self.domains[stage.domain]
        models.check_vocabulary(stage.domain, domain, parent.tokenizer())
        inputs = {
            "kind": "stage",
            "settings": self.profile.subset(*RL_SETTINGS),
            "parent": parent.key,
            "domain": domain_inputs(domain),
            "steps": stage.steps,
            "learning_rate": stage.learning_rate,
            "snapshot_every": stage.snapshot_every,
            "seed": stage.seed,
            **training_environment(self.profile),
        }
        return self.store.get(
            f"{stage.name}-seed{stage.seed}",
            inputs,
            lambda output, work: launch.train_stage(
                self.profile,
                domain,
                parent=parent.artifact.whole(),
                weights=parent.weights,
                steps=stage.steps,
                learning_rate=stage.learning_rate,
                seed=stage.seed,
                snapshot_every=stage.snapshot_every,
                output=output,
                work=work,
                label=f"{stage.name}, seed {stage.seed}",
            ),
        )

    def refer(self, name: str, artifact: Artifact) -> None:
        """Note that this run uses an artifact under a name, so that pruning the store keeps it."""
        references = paths.run(self.run, [self.seed]) / "uses"
        references.mkdir(parents=True, exist_ok=True)
        if self.run != self.profile.label:
            name += f"[{self.profile.label}]"
        draft = references / f".{name}.{os.getpid()}"
        draft.write_text(artifact.key + "\n")
        draft.replace(references / name)


def import_pretrained(store: Store, source: str) -> Artifact:
    """A pretrained model, converted once into the store."""
    location, _ = models.locate(source)
    files = [file for kind in ("safetensors", "gguf") for file in sorted(Path(location).glob(f"*.{kind}"))]
    inputs = {
        "kind": "pretrained",
        "source": source,
        "files": {file.name: sha256(file) for file in files},
        "versions": provenance.versions(("transformers", "gguf")),
        "code": provenance.code_fingerprint(models),
    }
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(source).name)

    def convert(output: Path, work: Path) -> None:
        training.quiet()
        with contextlib.redirect_stderr(io.StringIO()):  # reading a GGUF file draws a bar that no setting turns off
            models.import_pretrained(source, output)

    return store.get(f"{BASE}-{name}", inputs, convert)


def domain_inputs(domain: Domain) -> dict[str, Any]:
    """What of a domain determines training: its class, the code of it and its bases, and the data it reads."""
    modules = sorted({cls.__module__ for cls in type(domain).__mro__ if issubclass(cls, Domain)})
    inputs = {"class": type(domain).__qualname__, "code": provenance.code_fingerprint(*modules)}
    return inputs | (domain.determinants() if isinstance(domain, HubDomain) else {})


def training_environment(profile: Profile, *modules: ModuleType) -> dict[str, Any]:
    """What, beside its settings and data, determines what a stage of RL makes: rollouts, processes, code, versions."""
    trainer = [grpo, shared_prompts] if profile.skip_silent_groups else []
    return {
        **backends.inputs(profile, profile.rollouts),
        **launch.inputs(profile),
        **environment(training, models, *trainer, *modules),
    }


def environment(*modules: ModuleType) -> dict[str, Any]:
    """What else determines trained weights: library versions, the modules that train and the kind of device."""
    return {
        "versions": provenance.versions(provenance.DECISIVE),
        "code": provenance.code_fingerprint(*modules),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
