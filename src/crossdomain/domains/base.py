"""What a domain is: prompts, a reward, and a way to show an item to a person.

A domain is one class in one file. To make a fifth one, copy `arithmetic.py`, change it, and name it in a profile as
`package.module:Class`: it is then trained, evaluated and drawn like the others.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One task: what the policy reads, and what the reward needs to judge the response.

    Attributes:
        prompt: the question.
        target: what a response is judged against: the right answer itself or a specification of it.
        prefill: the beginning of the response, given to the policy (real language models only).
    """

    prompt: str
    target: str
    prefill: str = ""


class Domain(ABC):
    """A task family with a verifiable reward in [0, 1].

    Class attributes:
        title: what figures and tables call the domain.
        max_new_tokens: the longest response, its end included; what is longer is cut off and earns nothing.
        stop: a response ends with the first token holding one of these strings (besides end-of-sequence).
    """

    title: ClassVar[str]
    max_new_tokens: ClassVar[int]
    stop: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def items(self, split: str) -> Sequence[Item]:
        """The items of a split, always in the same order.

        Every domain has `train`, `dev` (choices are made on it) and `test` (only reported); no two share a prompt.
        Further test sets are named in `extra_tests`.

        Raises:
            KeyError: there is no such split.
        """

    @abstractmethod
    def score(self, response: str, target: str) -> float:
        """The reward in [0, 1] of a response that has ended. Total: any string gets one."""

    def reward(
        self, prompts: Sequence[str], completions: Sequence[str], target: Sequence[str], **_: Any
    ) -> list[float]:
        """`score` in the signature TRL's trainers call: one reward a completion."""
        return [self.score(completion, wanted) for completion, wanted in zip(completions, target, strict=True)]

    def answer(self, item: Item) -> str | None:
        """The one response that is rewarded, or None where several are.

        Where there is one, the expected reward of a policy is the probability it gives this response (and its end):
        exact, differentiable, free of sampling noise (`evaluation.expected_reward`).
        """
        return None

    def demonstration(self, item: Item, rng: np.random.Generator) -> str:
        """A response to imitate while a base model is pre-trained; by default the one right answer.

        Raises:
            NotImplementedError: several responses are right, and the domain does not say which to show.
        """
        answer = self.answer(item)
        if answer is None:
            raise NotImplementedError(f"{type(self).__name__} has no single answer: define demonstration().")
        return answer

    def pretraining_items(self) -> Sequence[Item]:
        """Items a base model is pre-trained on; by default the training split. Never a `dev` or `test` prompt."""
        return self.items("train")

    @property
    def extra_tests(self) -> tuple[str, ...]:
        """Names of test splits beside `test`."""
        return ()

    def render(self, item: Item, response: str) -> str:
        """The item, a response and its reward as a person would read them."""
        return f"{item.prompt} {item.prefill}→ {response}   (reward {self.score(response, item.target):g})"


def shuffled(things: Sequence[T], name: str) -> list[T]:
    """The things in an order that depends on `name` alone: the same on every machine and in every run."""
    order = np.random.default_rng(zlib.crc32(name.encode())).permutation(len(things))
    return [things[i] for i in order]
