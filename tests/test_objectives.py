"""Losses against the chain rule computed token by token, and against sums over all responses there can be."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from crossdomain.domains import Item, load_domain
from crossdomain.domains.arithmetic import Arithmetic
from crossdomain.generation import expected_reward
from crossdomain.models import tiny_model, tiny_tokenizer
from crossdomain.objectives import (
    Estimate,
    Objective,
    exact_reward,
    importance_weighted,
    kl,
    negative_log_likelihood,
    parameters,
)
from crossdomain.profiles import Profile, load_profile
from crossdomain.rollouts import Rollouts

VOCABULARY = 77
TINY = {"hidden_size": 16, "layers": 2, "intermediate_size": 24, "head_dim": 8}


class Stopping(Arithmetic):
    """Sums whose responses also end at a comma or a blank."""

    stop = (",", " ")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("smoke", TINY)


def policy(profile: Profile, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """Random weights, large enough for predictions that depend on the prompt."""
    model = tiny_model(profile, tokenizer, seed).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def model(profile: Profile, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The policy that rollouts come from, π_A."""
    return policy(profile, tokenizer, 0)


@pytest.fixture(scope="module")
def other(profile: Profile, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Another policy near it, π."""
    model = policy(profile, tokenizer, 0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    """Of different lengths, two a prompt."""
    prompts = [[1, 5, 6], [1, 7, 8, 9, 10, 11], [1]]
    responses = [[20, 21, 2], [22, 2], [30], [31, 32, 33, 34], [40, 2], [2]]
    return Rollouts("Math", "train", prompts, responses, torch.tensor([[1.0, 0.0], [0.25, 0.75], [1.0, 1.0]]))


def every_response(reward: Tensor) -> Rollouts:
    """All pairs of responses of one token to one prompt: a prompt a pair."""
    tokens = range(VOCABULARY)
    pairs = [(first, second) for first in tokens for second in tokens]
    rewards = torch.stack([reward[list(pair)] for pair in pairs])
    return Rollouts("Math", "train", [[1, 5, 6]] * len(pairs), [[t] for pair in pairs for t in pair], rewards)


def log_probabilities(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """Next-token log-probabilities along one response, without batch or padding; shape (tokens, vocabulary), float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].double()
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


def log_probability(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    return log_probabilities(model, prompt, response)[range(len(response)), list(response)].sum()


def pairs(rollouts: Rollouts) -> list[tuple[list[int], list[int]]]:
    samples = rollouts.rewards.shape[1]
    prompts = [prompt for prompt in rollouts.prompts for _ in range(samples)]
    return list(zip(prompts, rollouts.responses, strict=True))


def assert_equal(found: Tensor, expected: Tensor, rtol: float = 1e-5, atol: float = 1e-7) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=rtol, atol=atol)


# --- Exact reward ---


@pytest.mark.parametrize("name", ["arithmetic", "facts"])
def test_the_exact_reward_is_minus_the_expected_reward_of_each_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile, name: str
) -> None:
    domain = load_domain(name)
    items = domain.items("dev")[:9]
    objective = exact_reward(model, tokenizer, profile, domain, items, split="dev", batch_size=4)
    with torch.no_grad():
        expected = -expected_reward(model, tokenizer, profile, domain, items)
    assert_equal(objective.per_prompt(parameters(model)), expected, atol=0)


def test_several_stop_tokens_template_and_prefill_are_those_of_the_expected_reward(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    profile = load_profile("smoke", {**TINY, "prompt_template": "say: {prompt} {prefill}"})
    items = [Item("1+1=", "2", prefill="so"), Item("11+1=", "210"), Item("7", "")]
    objective = exact_reward(model, tokenizer, profile, Stopping(), items, split="dev")
    with torch.no_grad():
        expected = -expected_reward(model, tokenizer, profile, Stopping(), items)
        one_stop = -expected_reward(model, tokenizer, profile, Arithmetic(), items)
    assert_equal(objective.per_prompt(parameters(model)), expected, atol=0)
    assert (expected < 1.5 * one_stop).all()


def test_a_domain_of_many_answers_has_no_exact_reward(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile
) -> None:
    domain = load_domain("writing")
    with pytest.raises(ValueError, match=r"Writing rewards several responses.*importance_weighted"):
        exact_reward(model, tokenizer, profile, domain, domain.items("dev")[:2], split="dev")


# --- Losses on rollouts ---


def test_importance_weights_are_ratios_of_probabilities_computed_by_hand(
    model: PreTrainedModel, other: PreTrainedModel, rollouts: Rollouts
) -> None:
    objective = importance_weighted(model, rollouts, batch_size=4)
    ratios = torch.stack([(log_probability(other, *p) - log_probability(model, *p)).exp() for p in pairs(rollouts)])
    baseline = rollouts.rewards.mean(1, keepdim=True)
    expected = -((rollouts.rewards - baseline) * ratios.view(3, 2)).mean(1)
    assert_equal(objective.per_prompt(parameters(other)), expected)
    assert expected.abs().max() > 1e-3
    assert_equal(objective.per_prompt(parameters(model)), torch.zeros(3))


def test_the_importance_weighted_loss_is_on_average_half_the_change_of_reward_with_two_rollouts(
    model: PreTrainedModel, other: PreTrainedModel
) -> None:
    """(n − 1)/n of it with n; the average is over all pairs of responses, each as likely as π_A samples it."""
    reward = torch.linspace(0, 1, VOCABULARY).square()
    objective = importance_weighted(model, every_response(reward), batch_size=4096)
    before, after = (log_probabilities(m, [1, 5, 6], [0])[0].exp() for m in (model, other))
    found = (before[:, None] * before).flatten() @ objective.per_prompt(parameters(other))
    change = after @ reward.double() - before @ reward.double()
    assert change.abs() > 1e-3
    assert_equal(found, -change / 2, atol=1e-6)


def test_the_importance_weighted_gradient_is_the_score_function_gradient(
    model: PreTrainedModel, rollouts: Rollouts
) -> None:
    objective = importance_weighted(model, rollouts, batch_size=3)
    weights = list(model.parameters())
    leaves = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    loss = sum((objective.loss(leaves, batch) for batch in objective.microbatches), torch.zeros(()))
    found = torch.autograd.grad(loss, list(leaves.values()))
    advantages = (rollouts.rewards - rollouts.rewards.mean(1, keepdim=True)).flatten()
    scored = torch.zeros(())
    for advantage, (prompt, response) in zip(advantages, pairs(rollouts), strict=True):
        logp = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        scored = scored - advantage * logp[range(len(response)), response].sum() / len(rollouts.responses)
    expected = torch.autograd.grad(scored, weights)
    for (name, _), one, two in zip(model.named_parameters(), found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6, msg=name)


def test_one_rollout_a_prompt_has_no_baseline(model: PreTrainedModel, rollouts: Rollouts) -> None:
    single = replace(rollouts, responses=rollouts.responses[:3], rewards=torch.ones(3, 1))
    with pytest.raises(ValueError, match="at least 2 rollouts"):
        importance_weighted(model, single)


def test_kl_is_the_sum_of_next_token_divergences_computed_by_hand(
    model: PreTrainedModel, other: PreTrainedModel, rollouts: Rollouts
) -> None:
    model, other = (copy.deepcopy(policy).double() for policy in (model, other))  # small differences of large numbers
    objective = kl(model, rollouts, batch_size=4)
    by_hand = []
    for pair in pairs(rollouts):
        expected, found = log_probabilities(model, *pair), log_probabilities(other, *pair)
        by_hand.append((expected.exp() * (expected - found)).sum())
    assert_equal(objective.per_prompt(parameters(other)), torch.stack(by_hand).view(3, 2).mean(1))
    assert min(by_hand) > 1e-3
    assert_equal(objective.per_prompt(parameters(model)), torch.zeros(3))


def test_kl_on_rollouts_is_on_average_the_divergence_between_whole_responses(
    model: PreTrainedModel, other: PreTrainedModel
) -> None:
    """Of two tokens; the average is over all first tokens, each as likely as π_A samples it."""
    prompt, tokens = [1, 5, 6], range(VOCABULARY)
    joint = []
    for policy in (model, other):
        first = log_probabilities(policy, prompt, [0])[0]
        second = torch.stack([log_probabilities(policy, [*prompt, token], [0])[0] for token in tokens])
        joint.append(first[:, None] + second)
    expected = (joint[0].exp() * (joint[0] - joint[1])).sum()
    every = Rollouts("Math", "train", [prompt] * VOCABULARY, [[t, 0] for t in tokens], torch.zeros(VOCABULARY, 1))
    found = kl(model, every).per_prompt(parameters(other)) @ log_probabilities(model, prompt, [0])[0].exp()
    assert_equal(found, expected)


def test_the_reference_of_kl_does_not_follow_the_model(
    profile: Profile, tokenizer: PreTrainedTokenizerBase, rollouts: Rollouts
) -> None:
    model = policy(profile, tokenizer, 0)
    objective = kl(model, rollouts)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.1
    assert objective.value(parameters(model)).value > 1e-4


def test_the_negative_log_likelihood_is_that_of_whole_responses(model: PreTrainedModel, rollouts: Rollouts) -> None:
    objective = negative_log_likelihood(model, rollouts, batch_size=4)
    expected = -torch.stack([log_probability(model, *pair) for pair in pairs(rollouts)])
    assert_equal(objective.per_prompt(parameters(model)), expected.view(3, 2).mean(1))


# --- All of them ---


def objectives(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile, rollouts: Rollouts, size: int
) -> list[Objective]:
    domain = load_domain("arithmetic")
    items = domain.items("train")[:5]
    return [
        exact_reward(model, tokenizer, profile, domain, items, split="train", batch_size=size),
        importance_weighted(model, rollouts, batch_size=size),
        kl(model, rollouts, batch_size=size),
        negative_log_likelihood(model, rollouts, batch_size=size),
    ]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_size_of_microbatches_does_not_change_the_losses(
    model: PreTrainedModel,
    other: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    rollouts: Rollouts,
    size: int,
) -> None:
    params = parameters(other)
    for found, expected in zip(
        objectives(model, tokenizer, profile, rollouts, size),
        objectives(model, tokenizer, profile, rollouts, 256),
        strict=True,
    ):
        assert len(found.microbatches) > len(expected.microbatches) == 1
        assert_equal(found.per_prompt(params), expected.per_prompt(params), atol=1e-6)  # float32 terms that cancel
        total = sum(float(found.loss(params, batch)) for batch in found.microbatches)
        assert total == pytest.approx(expected.value(params).value, rel=1e-5, abs=1e-6)


def test_float32_agrees_with_float64(
    model: PreTrainedModel,
    other: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    rollouts: Rollouts,
) -> None:
    double = {name: parameter.double() for name, parameter in parameters(other).items()}
    for objective in objectives(model, tokenizer, profile, rollouts, 256):
        expected, found = objective.per_prompt(double), objective.per_prompt(parameters(other))
        assert_equal(found, expected, rtol=1e-4, atol=1e-6)


def test_tied_embeddings_are_one_parameter_that_both_uses_follow(
    model: PreTrainedModel, other: PreTrainedModel, rollouts: Rollouts
) -> None:
    """The loss of given parameters is that of the model that has them."""
    names = list(parameters(model))
    assert names == [name for name, _ in model.named_parameters()]
    assert not any("lm_head" in name for name in names)
    assert_equal(
        negative_log_likelihood(model, rollouts).per_prompt(parameters(other)),
        negative_log_likelihood(other, rollouts).per_prompt(parameters(other)),
        rtol=0,
        atol=0,
    )


def test_another_architecture_with_untied_embeddings_gives_its_own_probabilities(
    tokenizer: PreTrainedTokenizerBase, profile: Profile, rollouts: Rollouts
) -> None:
    torch.manual_seed(0)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=False,
        )
    ).eval()
    llama.set_attn_implementation("eager")
    assert "lm_head.weight" in parameters(llama)
    expected = -torch.stack([log_probability(llama, *pair) for pair in pairs(rollouts)])
    found = negative_log_likelihood(llama, rollouts).per_prompt(parameters(llama))
    assert_equal(found, expected.view(3, 2).mean(1))


def test_the_padding_token_has_derivatives_like_any_other(model: PreTrainedModel) -> None:
    """It may be sampled, and in some models it ends a turn; embeddings give it no gradient by default."""
    padding, name = model.config.pad_token_id, "model.embed_tokens.weight"
    rollouts = Rollouts("Math", "train", [[1, padding, 6]], [[5, padding, 7]], torch.zeros(1, 1))
    (batch,) = (objective := negative_log_likelihood(model, rollouts)).microbatches
    step = torch.zeros_like(parameters(model)[name])
    step[padding, 0] = 1e-2
    leaf = parameters(model)[name].clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective.loss({**parameters(model), name: leaf}, batch), leaf)
    losses = [objective.value({**parameters(model), name: leaf + sign * step}).value for sign in (1, -1)]
    difference = (losses[0] - losses[1]) / 2e-2
    assert abs(difference) > 1e-2
    assert slope[padding, 0].item() == pytest.approx(difference, rel=1e-2)
    assert model.get_input_embeddings().padding_idx == padding


def test_the_value_is_the_mean_over_prompts_with_its_standard_error(model: PreTrainedModel, rollouts: Rollouts) -> None:
    objective = negative_log_likelihood(model, rollouts)
    losses = objective.per_prompt(parameters(model)).numpy()
    assert losses.shape == (3,)
    assert objective.value(parameters(model)) == pytest.approx((losses.mean(), losses.std(ddof=1) / np.sqrt(3)))


def test_one_value_has_no_standard_error() -> None:
    found = Estimate.of(torch.tensor([2.0]))
    assert found.value == 2
    assert np.isnan(found.standard_error)


def test_objectives_say_what_they_measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile, rollouts: Rollouts
) -> None:
    assert [objective.describe() for objective in objectives(model, tokenizer, profile, rollouts, 256)] == [
        "exact reward of Math on 5 train prompts",
        "importance-weighted reward of Math on 3 train prompts with 2 rollouts each",
        "KL divergence of Math on 3 train prompts with 2 rollouts each",
        "negative log-likelihood of Math on 3 train prompts with 2 rollouts each",
    ]


def test_attention_without_double_backward_and_dropout_are_refused(
    profile: Profile, tokenizer: PreTrainedTokenizerBase, rollouts: Rollouts
) -> None:
    model = tiny_model(profile, tokenizer, 0).eval()
    with pytest.raises(ValueError, match=r"'sdpa'.*set_attn_implementation\('eager'\)"):
        kl(model, rollouts)
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match=r"training mode.*model.eval\(\)"):
        kl(model.train(), rollouts)


def test_no_rows_and_incomplete_groups_are_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile, rollouts: Rollouts
) -> None:
    with pytest.raises(ValueError, match="no prompts"):
        exact_reward(model, tokenizer, profile, Arithmetic(), [], split="train")
    with pytest.raises(ValueError, match="found 0 in all"):
        replace(kl(model, rollouts), microbatches=[])
    with pytest.raises(ValueError, match="expected 4 rows for each prompt, found 6"):
        replace(kl(model, rollouts), samples=4)


def test_losses_that_are_not_finite_are_refused(model: PreTrainedModel, rollouts: Rollouts) -> None:
    broken = {name: torch.full_like(parameter, torch.nan) for name, parameter in parameters(model).items()}
    with pytest.raises(FloatingPointError, match="6 of 6 losses are not finite"):
        kl(model, rollouts).value(broken)
