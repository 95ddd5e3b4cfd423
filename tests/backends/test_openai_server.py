"""The server's client, against a real HTTP server on this machine: what is asked, what is read, and clear failure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain import backends
from crossdomain.backends import BackendError
from crossdomain.backends.openai_server import Server, check_health
from crossdomain.generation import generate, generate_ids
from crossdomain.profiles import Profile, load_profile
from local_server import serving

POLICY = "math-seed0.0123"
Answer = Callable[[dict[str, Any]], tuple[int, Any]]


class Patient(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait; the default of 5 resets the rest


class Endpoint:
    """A server that speaks the completions protocol; `answer` makes a reply of a request."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.models: Any = {"data": [{"id": "policy", "root": f"/store/{POLICY}"}]}
        self.answer: Answer = lambda request: (200, {"choices": [{"token_ids": [*request["prompt"], 2]}]})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = {"/v1/models": outer.models, "/health": {}}
                self._reply(*((200, found[self.path]) if self.path in found else (404, "no such path")))

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request)
                outer.headers.append(dict(self.headers))
                self._reply(*(outer.answer(request) if self.path == "/v1/completions" else (404, "no such path")))

            def _reply(self, status: int, content: Any) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = Patient(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    made = Endpoint()
    with serving(made.server, monkeypatch):
        yield made


@pytest.fixture
def server(endpoint: Endpoint) -> Iterator[Server]:
    with Server(endpoint.url, POLICY) as made:
        yield made


def test_a_policy_is_asked_for_by_the_name_of_its_directory(endpoint: Endpoint) -> None:
    for served in ({"id": POLICY}, {"id": f"runs/store/{POLICY}/"}, {"id": "a", "root": f"runs/store/{POLICY}"}):
        endpoint.models = {"data": [{"id": "other", "root": "/other"}, served]}
        with Server(endpoint.url + "/", POLICY) as made:
            made.complete([[5]], max_new_tokens=1, stop=[2], temperature=0, seeds=[0])
        assert endpoint.requests[-1]["model"] == served["id"]


def test_prompts_go_as_tokens_one_a_request_and_nothing_is_left_to_the_servers_defaults(
    endpoint: Endpoint, server: Server
) -> None:
    server.complete([[5, 6], [7]], max_new_tokens=12, stop=[2, 9], temperature=0.7, seeds=[3, 4])
    found = {tuple(request.pop("prompt")): request.pop("seed") for request in endpoint.requests}
    assert found == {(5, 6): 3, (7,): 4}
    assert endpoint.requests == 2 * [
        {
            "model": "policy",
            "max_tokens": 12,
            "temperature": 0.7,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": [2, 9],
            "ignore_eos": True,
            "return_token_ids": True,
        }
    ]


def test_responses_keep_the_order_of_their_prompts(endpoint: Endpoint, server: Server) -> None:
    prompts = [[k, k + 1] for k in range(3, 60)]
    rows = server.complete(prompts, max_new_tokens=5, stop=[2], temperature=0, seeds=[0] * len(prompts))
    assert rows == [[*prompt, 2] for prompt in prompts]


def test_the_one_function_generates_with_it(
    endpoint: Endpoint, server: Server, tokenizer: PreTrainedTokenizerBase, prompts: list[str]
) -> None:
    endpoint.answer = lambda request: (200, {"choices": [{"token_ids": [*request["prompt"][1:], 2, 7]}]})
    options: dict[str, Any] = {"max_new_tokens": 30, "stop": [2]}
    rows = generate_ids(server, tokenizer, prompts, **options)
    assert rows == [[*tokenizer(prompt)["input_ids"][1:], 2] for prompt in prompts]  # cut where it ended
    (first, second), *_ = generate(server, tokenizer, prompts, samples=2, temperature=1.0, seed=5, **options)
    assert (first.text, first.ended) == (second.text, second.ended) == (prompts[0], True)
    sampled = endpoint.requests[len(prompts) :]
    assert len({request["seed"] for request in sampled}) == 2 * len(prompts)  # no two responses share one
    seeds = {tuple(request["prompt"]): set() for request in sampled}
    for request in sampled:
        seeds[tuple(request["prompt"])].add(request["seed"])
    endpoint.requests.clear()
    generate(server, tokenizer, prompts, samples=2, temperature=1.0, seed=5, **options)
    assert all(request["seed"] in seeds[tuple(request["prompt"])] for request in endpoint.requests)


def test_the_key_is_sent_if_there_is_one(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with Server(endpoint.url, POLICY) as made:
        made.complete([[5]], max_new_tokens=1, stop=[2], temperature=0, seeds=[0])
    assert endpoint.headers[0]["Authorization"] == "Bearer secret"


def one_line(error: pytest.ExceptionInfo[BackendError], *named: str) -> None:
    message = str(error.value)
    assert "\n" not in message and not [word for word in named if word not in message], message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://127.0.0.1:1:2/v1"])
def test_no_server_is_said_in_one_line(url: str) -> None:
    with pytest.raises(BackendError, match="no generation server at") as error:
        Server(url, POLICY)
    one_line(error, url, f"vllm serve <store>/{POLICY}", "generation_server", "transformers")


@pytest.mark.parametrize("models", [{}, [], {"data": [{"name": "x"}]}, {"data": 3}])
def test_what_is_no_such_server_is_said_in_one_line(endpoint: Endpoint, models: Any) -> None:
    endpoint.models = models
    with pytest.raises(BackendError, match="no generation server at") as error:
        Server(endpoint.url, POLICY)
    one_line(error, endpoint.url, "generation_server")


def test_another_model_is_said_in_one_line(endpoint: Endpoint) -> None:
    with pytest.raises(BackendError, match="serves policy, not base-seed0") as error:
        Server(endpoint.url, "base-seed0")
    one_line(error, "vllm serve <store>/base-seed0")
    with pytest.raises(BackendError, match="a snapshot has no directory to serve"):
        Server(endpoint.url, f"{POLICY}@00005")


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ((500, "overloaded"), ["refused", "500", "overloaded"]),
        ((200, {"choices": [{"text": "6"}]}), ["no token ids", "return_token_ids"]),
        ((200, {"choices": []}), ["no token ids"]),
        ((200, {"choices": [{"token_ids": []}]}), ["empty response"]),
    ],
)
def test_a_prompt_without_a_response_is_an_error(
    endpoint: Endpoint, server: Server, reply: tuple[int, Any], named: list[str]
) -> None:
    endpoint.answer = lambda request: reply
    with pytest.raises(BackendError) as error:
        server.complete([[5], [6]], max_new_tokens=1, stop=[2], temperature=0, seeds=[0, 1])
    one_line(error, *named, "generation_backend")


def test_a_profile_opens_it(endpoint: Endpoint, model: PreTrainedModel, profile: Profile) -> None:
    changed = profile.override({"generation_backend": "server", "generation_server": endpoint.url})

    def directory() -> Path:
        raise AssertionError("a server needs no directory")

    with backends.opened(changed, lambda: model, POLICY, directory, lambda: 30) as policy:
        assert isinstance(policy, Server)


def test_a_server_for_rollouts_is_looked_for_before_training(endpoint: Endpoint) -> None:
    check_health(endpoint.url.removesuffix("/v1"))
    with pytest.raises(BackendError, match="rollouts: no server at") as error:
        check_health("http://127.0.0.1:1")
    one_line(error, "trl vllm-serve", "rollout_server", "transformers")


def test_a_server_must_be_named() -> None:
    for backend, server in (("generation_backend", "generation_server"), ("rollouts", "rollout_server")):
        with pytest.raises(ValueError, match=f"{server}: {backend} is server, so say where"):
            load_profile("smoke", {backend: "server"})
        with pytest.raises(ValueError, match=server):
            load_profile("smoke", {backend: "server", server: "localhost:8000"})
        assert load_profile("smoke", {backend: "server", server: "http://localhost:8000"})
