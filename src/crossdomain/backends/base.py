"""What a generation engine is, and the error of one that is missing or fails."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Self


class BackendError(RuntimeError):
    """A generation backend is missing, fails or does not generate as the policy would; the message says what to do."""


class Engine(ABC):
    """A policy that generates outside of transformers. Leaving its context gives back what it holds."""

    @abstractmethod
    def complete(
        self,
        prompts: Sequence[list[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        temperature: float,
        seeds: Sequence[int],
    ) -> list[list[int]]:
        """A response to each prompt, as token ids with the token that ended it, if any.

        Args:
            prompts: token ids.
            max_new_tokens: where a response is cut off.
            stop: ids of the tokens that end a response, and no others do.
            temperature: 0 is greedy.
            seeds: of the sampling, one a prompt.

        Raises:
            BackendError: a prompt got no response.
        """

    def close(self) -> None:  # noqa: B027  # most engines hold nothing
        """Give back what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_vllm(setting: str) -> None:
    """Make sure vLLM is installed.

    Raises:
        BackendError: it is not; `setting` is the profile's setting that needs it.
    """
    if find_spec("vllm") is None:
        raise BackendError(
            f"{setting}: vllm is not installed; run `pip install -e '.[vllm]'` (without a GPU: "
            f"`pip install --no-deps -r requirements-vllm.lock`), or set {setting}: transformers"
        )


def one_line(error: BaseException) -> str:
    """An error's kind and message on one line, not too long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
