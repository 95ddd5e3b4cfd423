"""Scores of checkpoints on held-out prompts: at temperature 1 and greedy, kept prompt by prompt.

At temperature 1 the expected reward is exact where one answer is right (its probability); elsewhere it is estimated from
sampled responses, all of whose scores are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain import backends, generation, provenance, stats
from crossdomain.backends import Engine
from crossdomain.domains import Domain
from crossdomain.lineage import Lineage, domain_inputs
from crossdomain.models import arithmetic, sampling_attention, sampling_dtype, stop_token_ids
from crossdomain.profiles import Profile
from crossdomain.training import quiet

SAMPLING_SEED = 7
TEMPERATURE_1, GREEDY = "T=1", "greedy"


@dataclass(frozen=True)
class Protocol:
    """What an evaluation covers: splits of each domain, prompts of a split at most, sampled responses a prompt."""

    purpose: str
    splits: dict[str, list[str]]
    prompts: int
    samples: int
    greedy: bool = False


def test_splits(domain: Domain) -> list[str]:
    """The splits a domain is reported on."""
    return ["test", *domain.extra_tests]


def scores(lineage: Lineage, name: str) -> pd.DataFrame:
    """Scores of a checkpoint on every domain's test splits; evaluated once, then read.

    Returns:
        A row a response: `domain`, `split`, `decoding` (T=1 or greedy), `estimate` (exact or sampled), `item`, `sample`,
        `score` in [0, 1], `response` (greedy only).
    """
    profile = lineage.profile
    splits = {domain_name: test_splits(domain) for domain_name, domain in lineage.domains.items()}
    return _evaluated(lineage, name, Protocol("test", splits, profile.test_prompts, profile.samples, greedy=True))


def dev_score(lineage: Lineage, name: str, domain: str) -> float:
    """Mean score at temperature 1 on one domain's development split, for choices that must not see the test split."""
    protocol = Protocol(f"dev-{domain}", {domain: ["dev"]}, 500, lineage.profile.samples)
    found = _evaluated(lineage, name, protocol)
    return float(found["score"].mean())


def test_scores(lineage: Lineage, name: str, domains: Sequence[str]) -> pd.Series:
    """Scores at temperature 1 of a checkpoint on the test prompts of some domains, without the rest of `scores`.

    Returns:
        The mean score of each prompt in [0, 1], indexed by `domain` and `item`.
    """
    profile = lineage.profile
    protocol = Protocol(
        "test-" + "-".join(domains), {d: ["test"] for d in domains}, profile.test_prompts, profile.samples
    )
    return _evaluated(lineage, name, protocol).groupby(["domain", "item"], sort=False)["score"].mean()


def curve(lineage: Lineage, name: str) -> pd.DataFrame:
    """Mean scores at temperature 1 on every domain along a stage: its start, its snapshots and its end.

    Returns:
        A row a point: `step`, `domain`, `score` (on the first `curve_prompts` test prompts, one sample each).
    """
    stage = lineage.stage(name)
    points = [(0, stage.parent)]
    points += [(step, f"{name}@{step}") for step in lineage.checkpoint(name).snapshots()]
    points += [(stage.steps, name)]
    splits = {domain: ["test"] for domain in lineage.domains}
    protocol = Protocol("curve", splits, lineage.profile.curve_prompts, samples=1)
    rows = []
    for step, point in points:
        found = _evaluated(lineage, point, protocol)
        rows.append(found.groupby("domain", sort=False)["score"].mean().reset_index().assign(step=step))
    return pd.concat(rows, ignore_index=True)[["step", "domain", "score"]]


def summary(
    lineages: Sequence[Lineage], roles: dict[str, Sequence[str]], *, resamples: int | None = None
) -> pd.DataFrame:
    """Means with 95 % intervals of checkpoints on every domain, over prompts for each seed.

    Args:
        lineages: one a seed.
        roles: what each checkpoint is called, and its name in each lineage.
        resamples: of the bootstrap; by default the profile's.

    Returns:
        A row a role, seed, domain, split and decoding: `score`, `low`, `high` in points (0 to 100), `prompts`.
    """
    rows = []
    for role, names in roles.items():
        for lineage, name in zip(lineages, names, strict=True):
            found = by_prompt(scores(lineage, name))
            for keys, values in grouped(found):
                interval = stats.bootstrap_mean(100 * values.to_numpy(), resamples or lineage.profile.bootstrap)
                rows.append(
                    {
                        "role": role,
                        "checkpoint": name,
                        "seed": lineage.seed,
                        **dict(zip(("domain", "split", "decoding"), keys, strict=True)),
                        "score": interval.value,
                        "low": interval.low,
                        "high": interval.high,
                        "prompts": len(values),
                    }
                )
    return pd.DataFrame(rows)


def by_prompt(found: pd.DataFrame) -> pd.Series:
    """Mean score of each prompt, indexed by domain, split, decoding and item."""
    return found.groupby(["domain", "split", "decoding", "item"], sort=False)["score"].mean()


def grouped(scores: pd.Series) -> Iterator[tuple[tuple[str, str, str], pd.Series]]:
    """Scores by prompt, a group a domain, split and decoding."""
    for keys, values in scores.groupby(level=["domain", "split", "decoding"], sort=False):
        domain, split, decoding = cast(tuple[str, str, str], keys)
        yield (domain, split, decoding), values


def _evaluated(lineage: Lineage, name: str, protocol: Protocol) -> pd.DataFrame:
    profile, checkpoint = lineage.profile, lineage.checkpoint(name)
    inputs = {
        "kind": "evaluation",
        "checkpoint": checkpoint.key,
        "domains": {domain: domain_inputs(lineage.domains[domain]) for domain in protocol.splits},
        "protocol": asdict(protocol),
        "settings": profile.subset("prompt_template", "evaluation_batch", "precision"),
        **backends.inputs(profile, profile.generation_backend),
        "versions": provenance.versions(("torch", "transformers", "tokenizers")),
        "code": provenance.code_fingerprint(generation, sys.modules[__name__]),
    }

    def make(output: Path, work: Path) -> None:
        quiet()
        exact, tokenizer = checkpoint.model(), checkpoint.tokenizer()  # a probability needs all its digits
        parts = [(domain, split) for domain, splits in protocol.splits.items() for split in splits]

        def sampler() -> PreTrainedModel:
            dtype, attention = sampling_dtype(profile.precision), sampling_attention(profile.precision)
            return exact if dtype == exact.dtype else checkpoint.model(dtype=dtype, **attention)

        def directory() -> Path:
            if checkpoint.weights is None:
                return checkpoint.path
            exact.save_pretrained(work / "policy")  # a snapshot is weights alone
            tokenizer.save_pretrained(work / "policy")
            return work / "policy"

        def longest() -> int:
            return max(
                _longest(tokenizer, profile, lineage.domains[domain], split, protocol) for domain, split in parts
            )

        with backends.opened(profile, sampler, checkpoint.key, directory, longest) as policy:
            frames = [
                _split_scores(policy, exact, tokenizer, profile, lineage.domains[domain], split, protocol).assign(
                    domain=domain, split=split
                )
                for domain, split in parts
            ]
        columns = ["domain", "split", "decoding", "estimate", "item", "sample", "score", "response"]
        pd.concat(frames, ignore_index=True)[columns].to_csv(output / "scores.csv", index=False)

    artifact = lineage.store.get(f"evaluation-{protocol.purpose}-{name}-seed{lineage.seed}", inputs, make)
    lineage.refer(f"evaluation-{protocol.purpose}-{name}", artifact)
    return pd.read_csv(artifact.path / "scores.csv", dtype={"response": str}, keep_default_na=False)


def _longest(
    tokenizer: PreTrainedTokenizerBase, profile: Profile, domain: Domain, split: str, protocol: Protocol
) -> int:
    """Tokens of the longest prompt with its response."""
    items = domain.items(split)[: protocol.prompts]
    prompts = tokenizer([profile.prompt(item.prompt, item.prefill) for item in items])["input_ids"]
    return max(map(len, prompts)) + domain.max_new_tokens


def _split_scores(
    policy: PreTrainedModel | Engine,
    exact: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    domain: Domain,
    split: str,
    protocol: Protocol,
) -> pd.DataFrame:
    items = domain.items(split)[: protocol.prompts]
    options: dict[str, Any] = {
        "prompts": [profile.prompt(item.prompt, item.prefill) for item in items],
        "max_new_tokens": domain.max_new_tokens,
        "stop": stop_token_ids(tokenizer, domain.stop),
        "batch_size": profile.evaluation_batch,
    }
    rows: list[dict[str, Any]] = []
    if domain.answer(items[0]) is not None:
        with torch.inference_mode(), arithmetic(profile.precision, exact.device.type):
            expected = generation.expected_reward(exact, tokenizer, profile, domain, items).tolist()
        rows += [
            {"decoding": TEMPERATURE_1, "estimate": "exact", "item": i, "sample": 0, "score": score, "response": ""}
            for i, score in enumerate(expected)
        ]
    else:
        sampled = generation.generate(
            policy, tokenizer, **options, samples=protocol.samples, temperature=1.0, seed=SAMPLING_SEED
        )
        responses = [response for of_item in sampled for response in of_item]
        targets = [item.target for item in items for _ in range(protocol.samples)]
        rows += [
            {
                "decoding": TEMPERATURE_1,
                "estimate": "sampled",
                "item": i // protocol.samples,
                "sample": i % protocol.samples,
                "score": score,
                "response": "",
            }
            for i, score in enumerate(generation.rewards(domain, responses, targets))
        ]
    if protocol.greedy:
        responses = [response for (response,) in generation.generate(policy, tokenizer, **options)]
        rewards = generation.rewards(domain, responses, [item.target for item in items])
        for i, (response, score) in enumerate(zip(responses, rewards, strict=True)):
            row = {"decoding": GREEDY, "estimate": "greedy", "item": i, "sample": 0, "score": score}
            rows.append({**row, "response": response.text})
    return pd.DataFrame(rows)
