"""What a policy answers: sampled or greedy responses, and the exact probability of a given one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from crossdomain.backends.base import Engine
from crossdomain.domains import Domain, Item
from crossdomain.models import stop_token_ids
from crossdomain.profiles import Profile
from crossdomain.shared_prompts import read_prompts


@dataclass(frozen=True)
class Response:
    """A response's text, and whether it ended by itself within its length."""

    text: str
    ended: bool


def generate(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    samples: int = 1,
    **options: Any,
) -> list[list[Response]]:
    """Responses to each prompt, `samples` a prompt; the other options are those of `generate_ids`."""
    rows = generate_ids(model, tokenizer, prompts, samples=samples, **options)
    ends = frozenset(options["stop"])
    responses = [Response(str(tokenizer.decode(ids, skip_special_tokens=True)), ids[-1] in ends) for ids in rows]
    return [responses[start : start + samples] for start in range(0, len(responses), samples)]


def rewards(domain: Domain, responses: Sequence[Response], targets: Sequence[str]) -> list[float]:
    """The domain's reward of each response, all judged at once; 0 for one that was cut off."""
    ended = [i for i, response in enumerate(responses) if response.ended]
    judged = domain.reward([""] * len(ended), [responses[i].text for i in ended], [targets[i] for i in ended])
    scores = dict(zip(ended, judged, strict=True))
    return [scores.get(i, 0.0) for i in range(len(responses))]


def generate_ids(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    stop: Sequence[int],
    samples: int = 1,
    temperature: float = 0.0,
    batch_size: int = 512,
    seed: int = 0,
) -> list[list[int]]:
    """Responses as the tokens that were chosen, each with the token that ended it, if any; those of a prompt in a row.

    Args:
        model: the policy: a transformers model, or an engine that has it.
        tokenizer: its tokenizer, padding on the left.
        prompts: as the policy reads them.
        max_new_tokens: where a response is cut off.
        stop: ids of the tokens that end a response.
        samples: responses a prompt.
        temperature: 0 is greedy.
        batch_size: sequences at a time; an engine knows its own.
        seed: of the sampling; the global random state is left as it was. Backends draw different responses from a seed.

    Raises:
        ValueError: several greedy responses are asked for.
        BackendError: an engine fails.
    """
    if temperature == 0 and samples != 1:
        raise ValueError(f"samples={samples}: greedy decoding gives one response a prompt, use samples=1")
    ends = frozenset(stop)
    if isinstance(model, Engine):
        ids = tokenizer(list(prompts))["input_ids"]
        repeated = [prompt for prompt in ids for _ in range(samples)]
        seeds = np.random.SeedSequence(seed).generate_state(len(repeated)).tolist()
        found = model.complete(repeated, max_new_tokens=max_new_tokens, stop=stop, temperature=temperature, seeds=seeds)
        return [_ended(row, ends) for row in found]
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=list(stop), pad_token_id=tokenizer.pad_token_id, **sampling
    )
    rows: list[list[int]] = []
    size = max(1, batch_size // samples)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), size):
            chunk = [prompt for prompt in prompts[start : start + size] for _ in range(samples)]
            inputs = tokenizer(chunk, return_tensors="pt", padding=True).to(model.device)
            if samples > 1:
                inputs["past_key_values"] = read_prompts(model, inputs["input_ids"], inputs["attention_mask"])
            output: Any = model.generate(**inputs, generation_config=config)  # type: ignore[operator]
            rows += [_ended(row, ends) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]
    return rows


def _ended(ids: list[int], ends: frozenset[int]) -> list[int]:
    end = next((i for i, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: end + 1]


def expected_reward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    domain: Domain,
    items: Sequence[Item],
) -> Tensor:
    """The exact expected reward at temperature 1 of items with one right answer: its probability, end included.

    Differentiable in the model's parameters (theory, objective 1).

    Returns:
        Probabilities, one an item, shape `(len(items),)`.

    Raises:
        ValueError: the domain rewards several responses, so that no single probability is the expected reward.
    """
    answers = [answer for item in items if (answer := domain.answer(item)) is not None]
    if len(answers) != len(items):
        raise ValueError(f"{type(domain).__name__} rewards several responses: estimate by sampling instead")
    return response_probability(model, tokenizer, profile, domain, items, answers)


def response_probability(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    domain: Domain,
    items: Sequence[Item],
    responses: Sequence[str],
) -> Tensor:
    """Probability that the policy gives each item that response and ends there, at temperature 1; shape (len(items),)."""
    stop = stop_token_ids(tokenizer, domain.stop)
    prompts = tokenizer([profile.prompt(item.prompt, item.prefill) for item in items])["input_ids"]
    targets = tokenizer(list(responses), add_special_tokens=False)["input_ids"]
    size = profile.evaluation_batch
    return torch.cat(
        [
            _probabilities(model, tokenizer, prompts[start : start + size], targets[start : start + size], stop)
            for start in range(0, len(items), size)
        ]
    )


def _probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    targets: list[list[int]],
    stop: list[int],
) -> Tensor:
    """Probability of each target followed by a stop token, given its prompt; shape (batch,)."""
    sequences = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
    width = max(map(len, sequences))
    pad = int(tokenizer.pad_token_id)
    ids = torch.tensor([s + [pad] * (width - len(s)) for s in sequences], device=model.device)  # (batch, position)
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences], device=model.device)
    start = min(map(len, prompts)) - 1  # the first position whose next token is of a target
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=width - start).logits
    logp = F.log_softmax(logits.float(), dim=-1)  # (batch, position from start on, vocab)
    following = logp[:, :-1].gather(2, ids[:, start + 1 :, None]).squeeze(2)  # log-probability of the token after each
    position = torch.arange(start + 1, width, device=model.device)
    first = torch.tensor([len(prompt) for prompt in prompts], device=model.device)[:, None]
    length = torch.tensor([len(s) for s in sequences], device=model.device)
    answer = following.masked_fill((position < first) | (position >= length[:, None]), 0).sum(1)
    ending = logp[torch.arange(len(sequences), device=model.device), length - 1 - start][:, stop].logsumexp(1)
    return (answer + ending).exp()
