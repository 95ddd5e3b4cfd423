"""Prompts from a file, and a checkpoint's own answers to them, as tokens: what a diagnosis asks a model instead of labels.

A file is JSON Lines with a `prompt` a line: a text that the model reads as it is, or a list of chat messages (`role` and
`content`), for which the tokenizer's chat template is used; a last message of the assistant is an answer to go on with.
The file's name is that of the domain.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain.generation import generate_ids
from crossdomain.progress import Progress
from crossdomain.rollouts import microbatches

FEWEST = 4  # prompts: two to choose coordinates on, two to judge the choice
AT_A_TIME = 8  # prompts that are answered together


class PromptError(ValueError):
    """A file of prompts cannot be used; the message names file and line."""


@dataclass(frozen=True)
class Prompts:
    """Prompts of one domain, as texts that the model reads."""

    name: str
    texts: Sequence[str]


@dataclass(frozen=True)
class Answers:
    """Answers that a checkpoint sampled at temperature 1, one a prompt.

    Attributes:
        prompts: token ids of each prompt.
        responses: token ids of each answer with the token that ended it, if any.
    """

    prompts: Sequence[list[int]]
    responses: Sequence[list[int]]

    def half(self, which: int) -> Answers:
        """Every second prompt, from the first (0) or the second (1) on."""
        return Answers(self.prompts[which::2], self.responses[which::2])

    def microbatches(self, size: int) -> list[dict[str, torch.Tensor]]:
        """As `rollouts.microbatches`, with so many rows at a time."""
        return microbatches(self.prompts, self.responses, size, torch.device("cpu"))


def read(path: Path, tokenizer: PreTrainedTokenizerBase, limit: int, longest: int) -> Prompts:
    """The first prompts of a file.

    Args:
        path: of the file.
        tokenizer: whose chat template is used for messages.
        limit: prompts at most.
        longest: tokens of a prompt at most.

    Raises:
        FileNotFoundError: there is no such file.
        PromptError: a line is not as it should be, a prompt is too long, or there are fewer than `FEWEST`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--prompts {path}: no such file; expected JSON Lines with a 'prompt' a line")
    texts: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip() and len(texts) < limit:
            where = f"{path}, line {number}"
            text = _text(line, tokenizer, where)
            if (length := len(tokenizer(text)["input_ids"])) > longest:
                raise PromptError(
                    f"{where}: {length} tokens, and the model reads {longest} before it answers; shorten it"
                )
            texts.append(text)
    if len(texts) < FEWEST:
        raise PromptError(f"{path}: {len(texts)} prompts, expected at least {FEWEST}; 50 or more say something")
    return Prompts(path.stem, texts)


def _text(line: str, tokenizer: PreTrainedTokenizerBase, where: str) -> str:
    expected = 'expected {"prompt": "a text"} or {"prompt": [{"role": "user", "content": "a text"}]}'
    try:
        found: Any = json.loads(line)
    except ValueError as error:
        raise PromptError(f"{where} is not JSON ({error}); {expected}") from None
    prompt = found.get("prompt") if isinstance(found, dict) else None
    if isinstance(prompt, str) and prompt:
        return prompt
    if not (isinstance(prompt, list) and prompt and all(map(_is_message, prompt))):
        raise PromptError(f"{where}: {expected}")
    if tokenizer.chat_template is None:
        raise PromptError(
            f"{where} holds chat messages, but the tokenizer has no chat template: write prompts as texts"
        )
    begun = prompt[-1]["role"] == "assistant"
    text = tokenizer.apply_chat_template(
        prompt, tokenize=False, add_generation_prompt=not begun, continue_final_message=begun
    )
    start = tokenizer.bos_token
    if start and tokenizer(str(text))["input_ids"][:2] == [tokenizer.bos_token_id] * 2:
        return str(text).removeprefix(start)  # the tokenizer adds the one that the template has already
    return str(text)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, *, max_new_tokens: int, seed: int = 0
) -> Answers:
    """The model's own answers, sampled at temperature 1 and cut off at so many tokens.

    Args:
        model: the policy.
        tokenizer: its tokenizer, padding on the left.
        prompts: what it is asked.
        max_new_tokens: where an answer is cut off.
        seed: of the sampling.
    """
    config: Any = model.generation_config
    ends = config.eos_token_id if config.eos_token_id is not None else []
    stop = sorted({tokenizer.eos_token_id, *([ends] if isinstance(ends, int) else ends)} - {None})
    responses: list[list[int]] = []
    with Progress(f"answers to {prompts.name}", len(prompts.texts)) as progress:
        for start in range(0, len(prompts.texts), AT_A_TIME):
            chunk = prompts.texts[start : start + AT_A_TIME]
            responses += generate_ids(
                model,
                tokenizer,
                chunk,
                max_new_tokens=max_new_tokens,
                stop=stop,
                temperature=1.0,
                batch_size=AT_A_TIME,
                seed=seed + start,
            )
            progress.to(len(responses))
    return Answers([tokenizer(text)["input_ids"] for text in prompts.texts], responses)
