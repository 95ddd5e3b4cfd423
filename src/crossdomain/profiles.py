"""Profiles: every number that shapes a run, typed, checked, loaded from YAML and overridable one by one.

A profile is a flat YAML file (`profiles/cpu.yaml`); `extends: cpu` starts from another one. Values given per domain are
mappings; one entry of a mapping is addressed with a dot, as in `steps.math=50`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from crossdomain import chat, paths, processes
from crossdomain.domains import Domain, load_domain
from crossdomain.domains.hub import HubSettings

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Url = Annotated[str, Field(pattern=r"^https?://[^/\s]+")]
CHAT = "chat"  # a prompt template: that of the model's tokenizer


class ProfileError(ValueError):
    """A profile or an override that cannot be used; the message names key, value and what is allowed."""


class Profile(BaseModel):
    """Settings of one scale. The YAML files say what each value is for; the constraints are here."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    overridden: dict[str, Any] = {}
    scale: Literal["machinery", "toy", "small", "paper"]

    domains: dict[str, str]
    stages: Annotated[list[str], Field(min_length=1)]
    refresh: str
    refresh_steps: NonNegative
    base_seeds: Count

    model: str
    hidden_size: Count
    layers: Count
    intermediate_size: Count
    attention_heads: Count
    key_value_heads: Count
    head_dim: Count
    prompt_template: str
    hub: HubSettings | None
    precision: Literal["float32", "bf16-autocast"]
    weights: Literal["float32", "bfloat16"]

    generation_backend: Literal["transformers", "vllm", "server"]
    generation_server: Url | None
    rollouts: Literal["transformers", "vllm", "server"]
    rollout_server: Url | None
    vllm_memory: Rate

    base_batch: dict[str, NonNegative]
    label_noise: dict[str, Share]
    base_learning_rate: Rate
    base_schedule: Literal["constant", "cosine"]
    base_max_steps: Count
    base_warmup_steps: NonNegative
    base_decay_steps: NonNegative
    base_stop_score: dict[str, Share]
    base_check_every: Count
    base_weight_decay: Annotated[float, Field(ge=0)]

    steps: dict[str, Count]
    learning_rate: dict[str, Rate]
    refresh_learning_rate: Rate | None
    batch_size: Count
    microbatch: Count | None
    gradient_checkpointing: bool
    skip_silent_groups: bool
    accelerate: str
    generations: Annotated[int, Field(ge=2)]
    warmup_steps: NonNegative
    temperature: Annotated[float, Field(gt=0)]
    clip_epsilon: Rate
    kl_beta: Annotated[float, Field(ge=0)]
    adam_beta2: Rate
    max_grad_norm: Annotated[float, Field(gt=0)]
    save_every: Count
    snapshot_every: Count
    refresh_snapshot_every: Count

    pair_steps: Count
    precision_rates: Annotated[list[Rate], Field(min_length=1)]
    precision_steps: Count
    gradient_prompts: Count
    gradient_splits: Annotated[int, Field(ge=2, multiple_of=2)]
    route_prompts: Annotated[int, Field(ge=2)]
    curvature_prompts: Annotated[int, Field(ge=2)]
    curvature_rollouts: Annotated[int, Field(ge=2)] | None
    derivative_batch: Count
    curvature_directions: Count

    descent_steps: Count
    refresh_rates: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    refresh_batches: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]

    rollback_percents: Annotated[list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=1)]
    rollback_points: Annotated[list[float], Field(min_length=1)]
    rollback_shares: Annotated[list[float], Field(min_length=1)]
    rollback_draws: Count
    rollback_batch: Count
    rollback_products: Count

    alternating_cycles: Count

    replay_shares: Annotated[list[Rate], Field(min_length=1)]
    stage_kl_beta: Annotated[float, Field(gt=0)]
    elastic_strength: Annotated[float, Field(gt=0)]
    merge_scales: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    merge_density: Annotated[float, Field(gt=0, le=1)]
    orders_seeds: list[NonNegative]

    test_prompts: Count
    curve_prompts: Count
    samples: Count
    evaluation_batch: Count
    bootstrap: Count

    @field_validator("stages", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.replace(",", " ").split() if isinstance(value, str) else value

    @field_validator("domains")
    @classmethod
    def _domain_names(cls, value: dict[str, str]) -> dict[str, str]:
        bad = [name for name in value if name == "base" or not (name.isascii() and name.isalnum() and name.islower())]
        if bad:
            raise ValueError(f"{bad} cannot name checkpoints: use lower-case letters and digits, and not 'base'")
        return value

    @field_validator("prompt_template")
    @classmethod
    def _template(cls, value: str) -> str:
        if "{prompt}" not in value and value != CHAT:
            raise ValueError(f"must contain {{prompt}}, and may contain {{prefill}}; or be {CHAT!r}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        known = f"one of {', '.join(self.domains)}"
        named = {"stages": self.stages, "refresh": [self.refresh]}
        per_domain = ("steps", "learning_rate", "base_batch", "base_stop_score", "label_noise")
        named |= {key: list(getattr(self, key)) for key in per_domain}
        for key, domains in named.items():
            for domain in domains:
                if domain not in self.domains:
                    raise ValueError(f"{key}: no domain {domain!r}, expected {known}")
        for stage in {*self.stages, self.refresh}:
            for key in ("steps", "learning_rate"):
                if stage not in getattr(self, key):
                    raise ValueError(f"{key}: no value for the stage {stage!r}; add {key}.{stage}")
        if len(self.stages) > 1 and self.refresh not in self.stages:
            raise ValueError(f"refresh: {self.refresh!r} is not a stage of this run ({', '.join(self.stages)})")
        if self.batch_size % self.generations:
            raise ValueError(
                f"batch_size: {self.batch_size} completions cannot be split into groups of generations="
                f"{self.generations}; use a multiple of {self.generations}"
            )
        if self.microbatch and self.batch_size % self.microbatch:
            raise ValueError(
                f"batch_size: {self.batch_size} completions cannot be split into passes of microbatch={self.microbatch}; "
                f"use a multiple of {self.microbatch}"
            )
        self._check_processes()
        if self.gradient_prompts % self.gradient_splits:
            raise ValueError(
                f"gradient_prompts: {self.gradient_prompts} prompts cannot be split into gradient_splits="
                f"{self.gradient_splits} equal parts; use a multiple of {self.gradient_splits}"
            )
        if self.attention_heads % self.key_value_heads:
            raise ValueError(
                f"attention_heads: {self.attention_heads} is not a multiple of key_value_heads={self.key_value_heads}"
            )
        if missing := [percent for percent in self.rollback_points if percent not in self.rollback_percents]:
            raise ValueError(f"rollback_points: {missing} are not among rollback_percents={self.rollback_percents}")
        if 1 not in self.rollback_shares:
            raise ValueError(
                f"rollback_shares: {self.rollback_shares} must contain 1, the whole of the chosen coordinates"
            )
        for backend, server in (("generation_backend", "generation_server"), ("rollouts", "rollout_server")):
            if getattr(self, backend) == "server" and getattr(self, server) is None:
                raise ValueError(f"{server}: {backend} is server, so say where it runs, as in http://localhost:8000")
        if self.model == "tiny" and (self.hub is not None or self.prompt_template == CHAT):
            raise ValueError("model: data sets and chat templates need a pretrained model, in a folder or on the hub")
        if self.model == "tiny" and not any(self.base_batch.values()):
            raise ValueError("base_batch: the tiny model is pre-trained here, so at least one domain needs examples")
        return self

    def _check_processes(self) -> None:
        if not self.accelerate:
            return
        try:
            found = processes.configuration(self.accelerate)
        except ValueError as error:
            raise ValueError(f"accelerate: {error}") from None
        split = "microbatch" if self.microbatch else "batch_size"
        if (self.microbatch or self.batch_size) % found.processes:
            raise ValueError(
                f"{split}: {self.microbatch or self.batch_size} completions cannot be split over the {found.processes} "
                f"processes of accelerate={self.accelerate}; use a multiple of {found.processes}"
            )
        if self.skip_silent_groups and found.processes > 1:
            raise ValueError(
                f"skip_silent_groups: the {found.processes} processes of accelerate={self.accelerate} exchange tables with "
                "a row a completion, which would differ in length; use skip_silent_groups=false"
            )
        if found.kind == "DEEPSPEED" and (self.weights, self.precision) == ("float32", "bf16-autocast"):
            raise ValueError(
                f"accelerate: {self.accelerate} returns the weights it trained in the precision of its arithmetic, "
                "bfloat16, where weights=float32 are expected; say weights=bfloat16 or precision=float32, or use FSDP"
            )

    @property
    def processes(self) -> int:
        """How many train a stage together."""
        return processes.configuration(self.accelerate).processes if self.accelerate else 1

    @property
    def label(self) -> str:
        """Name of the run's directory: the profile, and what was overridden, so that no run overwrites another."""
        changes = ",".join(f"{key}={value}" for key, value in sorted(self.overridden.items()))
        label = f"{self.name}+{changes}" if changes else self.name
        safe = re.sub(r"[^A-Za-z0-9._=,+-]+", "_", label)[:120]
        return safe if safe == label else f"{safe[:111]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"

    @property
    def interferes(self) -> bool:
        """Whether stages follow the refreshed domain's own, so that there is something to recover from."""
        return self.refresh in self.stages[:-1] and self.refresh_steps > 0

    def override(self, changes: Mapping[str, Any]) -> Profile:
        """This profile with some settings changed, named as in `load_profile`.

        Raises:
            ProfileError: as `load_profile`.
        """
        return _validated(self.model_dump(), changes)

    def load_domains(self) -> dict[str, Domain]:
        """The domains of this run by name: those that its base is pre-trained on, and those that it trains."""
        loaded = {name: self.load_domain(path) for name, path in self.domains.items()}
        used = {*self.base_batch, *self.base_stop_score, *self.stages, self.refresh}
        return {name: domain for name, domain in loaded.items() if name in used}

    def load_domain(self, path: str) -> Domain:
        """One domain by its built-in name or `package.module:Class`, under this profile's settings."""
        return load_domain(path, self.hub, self.model)

    def check_rewards(self) -> None:
        """Have every domain judge no responses, so that one that cannot judge here says so before anything is trained.

        Raises:
            ProfileError: a domain cannot; the message is its own.
        """
        for name, domain in self.load_domains().items():
            try:
                domain.reward([], [], [])
            except RuntimeError as error:
                raise ProfileError(f"domain {name}: {error}") from error

    def base_seed(self, seed: int) -> int:
        """The seed of the base model under RL seed `seed`: two RL seeds share a base.

        Each hundred of seeds has its own: seeds from 100 on, on which settings are chosen, share none with the first.
        """
        return seed - seed % 100 + seed % 100 // 2 % self.base_seeds

    def subset(self, *keys: str) -> dict[str, Any]:
        """Some settings as plain data, to key what they determine."""
        return {key: getattr(self, key) for key in keys}

    def prompt(self, prompt: str, prefill: str = "") -> str:
        """A question as the policy reads it."""
        if self.prompt_template == CHAT:
            return chat.rendered(self.model, prompt) + prefill
        return self.prompt_template.replace("{prompt}", prompt).replace("{prefill}", prefill)


SETTINGS = [key for key in Profile.model_fields if key not in ("name", "overridden")]


def load_profile(name: str | Path, overrides: Mapping[str, Any] | str | None = None) -> Profile:
    """The profile of that name (or YAML file), with overrides such as `{"steps.math": 50}` or `"steps.math=50"`.

    Raises:
        ProfileError: no such profile, an unknown key, a wrong type, a value out of range or values that do not fit.
    """
    values = _read(Path(name) if str(name).endswith((".yaml", ".yml")) else paths.root() / "profiles" / f"{name}.yaml")
    return _validated({**values, "overridden": {}}, parse_overrides(overrides))


def _validated(values: dict[str, Any], changes: Mapping[str, Any]) -> Profile:
    """A profile of those values with some changed."""
    for key, value in changes.items():
        _override(values, key, value)
    name = values["name"]
    try:
        profile = Profile.model_validate({**values, "overridden": {**values["overridden"], **changes}})
        profile.load_domains()
    except ValidationError as error:
        raise ProfileError(_explain(name, error)) from None
    except ValueError as error:
        raise ProfileError(f"profile {name}: domains: {error}") from None
    return profile


def _read(path: Path, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    if path.stem in heirs:
        raise ProfileError(f"profile {path}: extends itself ({' extends '.join((*heirs, path.stem))})")
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ProfileError(f"no profile {path.stem!r} ({path} is missing): expected one of {there}, or a YAML file")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ProfileError(f"profile {path}: not valid YAML: {_on_one_line(error)}") from None
    if not isinstance(values, dict):
        raise ProfileError(f"profile {path}: expected 'key: value' lines, found {type(values).__name__}")
    parent = values.pop("extends", None)
    inherited = _read(path.parent / f"{parent}.yaml", (*heirs, path.stem)) if parent else {}
    return {**inherited, **values, "name": path.stem}


def parse_overrides(overrides: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Overrides as a mapping; text is read as `key=value` pairs separated by blanks, values as YAML.

    Raises:
        ProfileError: the text is not of that form.
    """
    if overrides is None:
        return {}
    if isinstance(overrides, Mapping):
        return dict(overrides)
    parsed = {}
    for pair in filter(None, re.split(r"\s+(?=[a-z_][a-z0-9_.]*=)", overrides.strip())):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ProfileError(f"override {pair!r}: expected key=value")
        try:
            parsed[key] = parse_value(value)
        except yaml.YAMLError as error:
            raise ProfileError(f"override {pair!r}: the value is not valid YAML: {_on_one_line(error)}") from None
    return parsed


def parse_value(text: str) -> Any:
    """A value as YAML reads it, but with `5e-5` a number (YAML 1.1 wants `5.0e-5`)."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _override(values: dict[str, Any], key: str, value: Any) -> None:
    head, dot, entry = key.partition(".")
    if head not in SETTINGS:
        raise ProfileError(f"no profile setting {key!r} (value {value!r}); {_hint(head)}")
    if dot and isinstance(values.get(head), dict):
        values[head] = {**values[head], entry: value}
    elif dot and values.get(head) is None:
        raise ProfileError(
            f"override {key!r}: {head} is null in this profile; give it whole, or choose another profile"
        )
    elif dot:
        raise ProfileError(f"override {key!r}: {head} is a single value, not one per domain; use {head}={value}")
    else:
        values[head] = value


def _on_one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


def _hint(key: str) -> str:
    close = difflib.get_close_matches(key, SETTINGS, 3, 0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(SETTINGS)}"


def _explain(name: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        given = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"no such setting; {_hint(key)}"
        lines.append(f"{key}{given}: {message}" if key else message)
    return f"profile {name}: " + "; ".join(lines)
