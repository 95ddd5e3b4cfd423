"""A running OpenAI-compatible server that serves the policy, as `vllm serve <checkpoint's directory>` does.

Prompts go as token ids and responses come back as token ids, which the completions endpoint of vLLM can do: a text may be
spelled by other tokens than those that were sampled. `OPENAI_API_KEY` is sent if it is set.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from crossdomain.backends.base import BackendError, Engine, one_line

SIDE_BY_SIDE = 64  # requests at a time
TIMEOUT = httpx.Timeout(3600.0, connect=10.0)  # seconds: a long response waits for others


class Server(Engine):
    """The completions endpoint of a server.

    Args:
        url: up to and with its version: `http://localhost:8000/v1`.
        policy: what it must serve: a model whose name, or the last part of its path, is this.

    Raises:
        BackendError: it cannot be reached, or serves another model.
    """

    def __init__(self, url: str, policy: str) -> None:
        self.url, self.policy = url.rstrip("/"), policy
        key = os.environ.get("OPENAI_API_KEY")
        limits = httpx.Limits(max_connections=SIDE_BY_SIDE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(timeout=TIMEOUT, limits=limits, headers=headers)
        try:
            self._model = self._served()
        except BackendError:
            self.close()
            raise

    def complete(
        self,
        prompts: Sequence[list[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        temperature: float,
        seeds: Sequence[int],
    ) -> list[list[int]]:
        """As `Engine.complete`; several are asked for at a time."""
        shared = {
            "model": self._model,
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            # The server's own defaults may be the model's recommended sampling.
            **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
            "stop_token_ids": list(stop),
            "ignore_eos": True,
            "return_token_ids": True,
        }
        requests = [shared | {"prompt": prompt, "seed": int(seed)} for prompt, seed in zip(prompts, seeds, strict=True)]
        pool = ThreadPoolExecutor(SIDE_BY_SIDE)
        try:
            return list(pool.map(self._completed, requests))
        finally:
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _served(self) -> str:
        """The name under which the policy is served."""
        try:
            reply = self._client.get(f"{self.url}/models")
            reply.raise_for_status()
            models = [(str(model["id"]), str(model.get("root") or model["id"])) for model in reply.json()["data"]]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError(f"no generation server at {self.url} ({one_line(error)}); {self._way_out}") from error
        for name, root in models:
            if self.policy in (name.rstrip("/").rpartition("/")[2], root.rstrip("/").rpartition("/")[2]):
                return name
        raise BackendError(
            f"the generation server at {self.url} serves {', '.join(name for name, _ in models)}, not {self.policy}; "
            f"{self._way_out}"
        )

    def _completed(self, request: dict[str, Any]) -> list[int]:
        try:
            reply = self._client.post(f"{self.url}/completions", json=request)
        except httpx.HTTPError as error:
            raise BackendError(
                f"the generation server at {self.url} gave no reply ({one_line(error)}); {self._way_out}"
            ) from error
        if reply.status_code != httpx.codes.OK:
            raise BackendError(
                f"the generation server at {self.url} refused: status {reply.status_code}, "
                f"{' '.join(reply.text[:300].split())!r}; {self._way_out}"
            )
        try:
            ids = [int(token) for token in reply.json()["choices"][0]["token_ids"]]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise BackendError(
                f"the generation server at {self.url} returned no token ids; expected vLLM's server, which does so when "
                f"asked by return_token_ids; {self._way_out}"
            ) from error
        if not ids:
            raise BackendError(f"the generation server at {self.url} returned an empty response; {self._way_out}")
        return ids

    @property
    def _way_out(self) -> str:
        if "@" in self.policy:
            return "a snapshot has no directory to serve: set generation_backend to vllm or transformers"
        return (
            f"run `vllm serve <store>/{self.policy}` there, name another endpoint in generation_server, or set "
            "generation_backend to vllm or transformers"
        )


def check_health(url: str) -> None:
    """Make sure that TRL's server for rollouts is up.

    Raises:
        BackendError: it is not.
    """
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=10.0).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BackendError(
            f"rollouts: no server at {url} ({one_line(error)}); run `trl vllm-serve --model <model>` there, on GPUs "
            "that do not train, name another one in rollout_server, or set rollouts to vllm or transformers"
        ) from error
