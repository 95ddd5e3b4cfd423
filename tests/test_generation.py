"""Responses against a hand-written loop, and exact probabilities against that loop and against sampling."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain.domains import Domain, Item, load_domain
from crossdomain.domains.arithmetic import Arithmetic
from crossdomain.generation import Response, expected_reward, generate, generate_ids, response_probability, rewards
from crossdomain.lineage import Checkpoint
from crossdomain.models import stop_token_ids
from crossdomain.profiles import Profile, load_profile

PROMPTS = ["71+95=", "1>13,2>19:", "gud,ag:", "tud.q:su,ba,pi,sa?", "9"]  # of different lengths


class Stopping(Arithmetic):
    """Sums whose responses also end at a comma or a blank."""

    stop = (",", " ")


@pytest.fixture(scope="module")
def model(cw: Checkpoint) -> PreTrainedModel:
    return cw.model()


@pytest.fixture(scope="module")
def tokenizer(cw: Checkpoint) -> PreTrainedTokenizerBase:
    return cw.tokenizer()


@pytest.fixture(scope="module")
def stop(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return stop_token_ids(tokenizer, ())


def next_token_log_probabilities(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """Of one sequence, without batch or padding; shape (vocabulary,)."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)])).logits[0, -1].double().log_softmax(0)


def greedy_by_hand(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, length: int, stop: Sequence[int]
) -> Response:
    ids = tokenizer(prompt)["input_ids"]
    new: list[int] = []
    while len(new) < length and not (new and new[-1] in stop):
        new.append(int(next_token_log_probabilities(model, ids + new).argmax()))
    return Response(tokenizer.decode(new, skip_special_tokens=True), new[-1] in stop)


def probability_by_hand(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, response: str, stop: Sequence[int]
) -> float:
    """The chain rule, token by token; then any of the tokens that end a response."""
    ids = tokenizer(prompt)["input_ids"]
    total = torch.zeros((), dtype=torch.float64)
    for token in tokenizer(response, add_special_tokens=False)["input_ids"]:
        total += next_token_log_probabilities(model, ids)[token]
        ids = [*ids, token]
    return float(total.exp() * next_token_log_probabilities(model, ids)[list(stop)].exp().sum())


# --- Responses ---


@pytest.mark.parametrize("length", [1, 3, 24])
def test_greedy_responses_are_those_of_a_loop_by_hand(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: list[int], length: int
) -> None:
    responses = generate(model, tokenizer, PROMPTS, max_new_tokens=length, stop=stop)
    assert responses == [[greedy_by_hand(model, tokenizer, prompt, length, stop)] for prompt in PROMPTS]


def test_greedy_responses_end_at_every_stop_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    stop = stop_token_ids(tokenizer, Stopping.stop)
    responses = generate(model, tokenizer, PROMPTS, max_new_tokens=24, stop=stop)
    assert responses == [[greedy_by_hand(model, tokenizer, prompt, 24, stop)] for prompt in PROMPTS]
    assert responses != generate(model, tokenizer, PROMPTS, max_new_tokens=24, stop=stop_token_ids(tokenizer, ()))


def test_a_response_that_is_cut_off_has_not_ended(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    everything = range(len(tokenizer))
    cut = generate(model, tokenizer, PROMPTS, max_new_tokens=2, stop=[tokenizer.bos_token_id])
    ended = generate(model, tokenizer, PROMPTS, max_new_tokens=2, stop=everything)
    ids = generate_ids(model, tokenizer, PROMPTS, max_new_tokens=2, stop=[tokenizer.bos_token_id])
    assert [len(row) for row in ids] == [2] * len(PROMPTS)  # a text is shorter where a token is special
    assert not any(response.ended for (response,) in cut)
    assert all(response.ended and len(response.text) <= 1 for (response,) in ended)


def test_responses_are_judged_at_once_and_earn_nothing_if_they_were_cut_off() -> None:
    asked: list[list[str]] = []

    class Listening(Arithmetic):
        def reward(self, prompts: Sequence[str], completions: Sequence[str], *args: Any, **columns: Any) -> list[float]:
            asked.append(list(completions))
            return super().reward(prompts, completions, *args, **columns)

    responses = [Response("200", True), Response("200", False), Response("100", True)]
    assert rewards(Listening(), responses, ["200"] * 3) == [1.0, 0.0, 0.0]
    assert asked == [["200", "100"]]


@pytest.mark.parametrize("batch_size", [1, 2, 512])
def test_the_batch_size_does_not_change_greedy_responses(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: list[int], batch_size: int
) -> None:
    items = load_domain("facts").items("dev")[:20]
    prompts = [*PROMPTS, *(item.prompt for item in items)]
    found = generate(model, tokenizer, prompts, max_new_tokens=8, stop=stop, batch_size=batch_size)
    assert found == generate(model, tokenizer, prompts, max_new_tokens=8, stop=stop, batch_size=7)


def test_samples_depend_on_the_seed_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: list[int]
) -> None:
    def sample(seed: int) -> list[list[Response]]:
        return generate(model, tokenizer, PROMPTS, max_new_tokens=6, stop=stop, samples=3, temperature=1.0, seed=seed)

    torch.manual_seed(1)
    first = sample(0)
    torch.manual_seed(2)
    assert sample(0) == first
    assert sample(1) != first
    assert [len(responses) for responses in first] == [3] * len(PROMPTS)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_global_random_state_is_left_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: list[int], temperature: float
) -> None:
    before = torch.get_rng_state()
    generate(model, tokenizer, PROMPTS, max_new_tokens=4, stop=stop, temperature=temperature)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_low_temperature_is_nearly_greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: list[int]
) -> None:
    greedy = generate(model, tokenizer, PROMPTS, max_new_tokens=6, stop=stop)
    cold = generate(model, tokenizer, PROMPTS, max_new_tokens=6, stop=stop, temperature=1e-4)
    warm = generate(model, tokenizer, PROMPTS, max_new_tokens=6, stop=stop, temperature=1.0)
    assert cold == greedy != warm


def test_several_greedy_responses_are_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"samples=2.*samples=1"):
        generate(model, tokenizer, PROMPTS, max_new_tokens=2, stop=stop, samples=2)


# --- Exact probabilities ---


@pytest.mark.parametrize("name", ["arithmetic", "facts"])
def test_the_expected_reward_is_the_chain_rule_computed_by_hand(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: list[int], smoke: Profile, name: str
) -> None:
    domain = load_domain(name)
    items = domain.items("dev")[:8]
    with torch.no_grad():
        found = expected_reward(model, tokenizer, smoke, domain, items)
    by_hand = [probability_by_hand(model, tokenizer, item.prompt, item.target, stop) for item in items]
    assert found.shape == (8,)
    torch.testing.assert_close(found.double(), torch.tensor(by_hand, dtype=torch.float64), rtol=1e-5, atol=0)


def test_responses_of_different_lengths_and_several_ends_are_summed_by_the_chain_rule(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, smoke: Profile
) -> None:
    domain = Stopping()
    stop = stop_token_ids(tokenizer, domain.stop)
    items = [Item(prompt, "") for prompt in PROMPTS]
    responses = ["pem gud sol tag", "6", "", "6*x+7", "pi"]
    with torch.no_grad():
        model = copy.deepcopy(model)
        model.lm_head.weight *= 0.1  # flatter: float32 has no digits left for what a sharp policy never says
        found = response_probability(model, tokenizer, smoke, domain, items, responses)
    by_hand = [probability_by_hand(model, tokenizer, *pair, stop) for pair in zip(PROMPTS, responses, strict=True)]
    torch.testing.assert_close(found.double(), torch.tensor(by_hand, dtype=torch.float64), rtol=1e-5, atol=0)


def test_template_and_prefill_are_part_of_the_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: list[int]
) -> None:
    profile = load_profile("smoke", {"prompt_template": "say: {prompt} {prefill}"})
    with torch.no_grad():
        found = expected_reward(model, tokenizer, profile, Arithmetic(), [Item("1+1=", "2", prefill="so")])
    by_hand = probability_by_hand(model, tokenizer, "say: 1+1= so", "2", stop)
    assert float(found) == pytest.approx(by_hand, rel=1e-5)


def test_the_expected_reward_is_the_frequency_of_the_response_among_samples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: list[int], smoke: Profile
) -> None:
    """The response is the likeliest one, so that it occurs often enough."""
    domain, samples = Arithmetic(), 4_000
    prompts = ["tud.q:su,ba,pi,sa?", "71+95="]
    greedy = [response.text for (response,) in generate(model, tokenizer, prompts, max_new_tokens=8, stop=stop)]
    items = [Item(prompt, text) for prompt, text in zip(prompts, greedy, strict=True)]
    with torch.no_grad():
        exact = expected_reward(model, tokenizer, smoke, domain, items).tolist()
    sampled = generate(
        model, tokenizer, prompts, max_new_tokens=8, stop=stop, samples=samples, temperature=1.0, batch_size=samples
    )
    for text, probability, responses in zip(greedy, exact, sampled, strict=True):
        frequency = sum(response == Response(text, True) for response in responses) / samples
        standard_error = (probability * (1 - probability) / samples) ** 0.5
        assert probability > 0.01
        assert abs(frequency - probability) < 4 * standard_error


@pytest.mark.parametrize("batch", [1, 3, 512])
def test_the_batch_size_does_not_change_the_expected_reward(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int
) -> None:
    domain = load_domain("facts")
    items = domain.items("dev")[:10]
    with torch.no_grad():
        found, other = (
            expected_reward(model, tokenizer, load_profile("smoke", {"evaluation_batch": size}), domain, items)
            for size in (batch, 4)
        )
    torch.testing.assert_close(found, other, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["writing", "programs"])
def test_a_domain_of_many_answers_has_no_exact_expected_reward(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, smoke: Profile, name: str
) -> None:
    domain: Domain = load_domain(name)
    with pytest.raises(ValueError, match=rf"{type(domain).__name__} rewards several responses.*sampling"):
        expected_reward(model, tokenizer, smoke, domain, domain.items("dev")[:2])


def test_a_step_along_the_gradient_raises_the_expected_reward(
    cw: Checkpoint, tokenizer: PreTrainedTokenizerBase, smoke: Profile
) -> None:
    model, domain = cw.model(), load_domain("facts")
    items = domain.items("dev")[:10]
    parameters = list(model.parameters())
    before = expected_reward(model, tokenizer, smoke, domain, items).mean()
    gradients = torch.autograd.grad(before, parameters)
    assert all(torch.isfinite(gradient).all() and gradient.any() for gradient in gradients)
    step = 1e-3 / sum(gradient.square().sum() for gradient in gradients).sqrt()
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter += step * gradient
        after = expected_reward(model, tokenizer, smoke, domain, items).mean()
    assert after > before.detach()
