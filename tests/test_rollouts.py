"""Sampled tokens against the texts that generation samples from the same seed."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain.domains import load_domain
from crossdomain.domains.arithmetic import Arithmetic
from crossdomain.generation import generate
from crossdomain.models import stop_token_ids, tiny_model, tiny_tokenizer
from crossdomain.profiles import Profile, load_profile
from crossdomain.rollouts import Rollouts, microbatches, sample_rollouts


class Generous(Arithmetic):
    """Pays by length, so that an untrained policy earns something; responses also end at a digit."""

    max_new_tokens = 6
    stop = tuple("0123456789")

    def score(self, response: str, target: str) -> float:
        return len(response) / 10


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("smoke", {"evaluation_batch": 7})


@pytest.fixture(scope="module")
def model(profile: Profile, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return tiny_model(profile, tokenizer, 0).eval()


def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile, samples: int = 3, seed: int = 0
) -> Rollouts:
    items = load_domain("facts").items("train")[:5]
    return sample_rollouts(model, tokenizer, profile, Generous(), items, split="train", samples=samples, seed=seed)


def test_rollouts_are_the_responses_that_generation_samples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile
) -> None:
    rollouts = sample(model, tokenizer, profile)
    stop = stop_token_ids(tokenizer, Generous.stop)
    prompts = [item.prompt for item in load_domain("facts").items("train")[:5]]
    responses = generate(
        model, tokenizer, prompts, max_new_tokens=6, stop=stop, samples=3, temperature=1.0, batch_size=7, seed=0
    )
    texts = tokenizer.batch_decode(rollouts.responses, skip_special_tokens=True)
    expected = [response for group in responses for response in group]
    assert texts == [response.text for response in expected]
    assert [ids[-1] in stop for ids in rollouts.responses] == [response.ended for response in expected]
    assert rollouts.prompts == tokenizer(prompts)["input_ids"]


def test_a_response_holds_one_stop_token_at_its_end_unless_it_was_cut_off(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile
) -> None:
    stop = stop_token_ids(tokenizer, Generous.stop)
    responses = sample(model, tokenizer, profile, samples=8).responses
    ended = [ids for ids in responses if ids[-1] in stop]
    cut_off = [ids for ids in responses if ids[-1] not in stop]
    assert ended
    assert cut_off
    assert all(token not in stop for ids in ended for token in ids[:-1])
    assert all(len(ids) == 6 and not set(ids) & set(stop) for ids in cut_off)


def test_rewards_are_the_scores_of_the_texts_and_0_for_what_was_cut_off(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile
) -> None:
    rollouts = sample(model, tokenizer, profile, samples=8)
    stop = stop_token_ids(tokenizer, Generous.stop)
    texts = tokenizer.batch_decode(rollouts.responses, skip_special_tokens=True)
    expected = [len(text) / 10 if ids[-1] in stop else 0 for ids, text in zip(rollouts.responses, texts, strict=True)]
    assert rollouts.rewards.shape == (5, 8)
    assert rollouts.rewards.flatten().tolist() == pytest.approx(expected)
    assert rollouts.rewards.any()
    assert rollouts.data == "Math on 5 train prompts with 8 rollouts each"


def test_rollouts_depend_on_the_seed_alone_and_leave_the_random_state(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile
) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sample(model, tokenizer, profile)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert sample(model, tokenizer, profile).responses == first.responses
    assert sample(model, tokenizer, profile, seed=1).responses != first.responses


def test_microbatches_hold_every_sequence_and_mark_its_response() -> None:
    prompts, responses = [[1, 5], [1, 5, 6, 7], [1]], [[8, 9], [2], [3, 4, 5]]
    batches = microbatches(prompts, responses, 2, torch.device("cpu"), weight=torch.tensor([0.5, 1.5, 2.5]))
    assert [batch["weight"].tolist() for batch in batches] == [[0.5, 1.5], [2.5]]
    assert batches[0]["ids"].tolist() == [[1, 5, 8, 9], [1, 5, 6, 7]]
    assert batches[0]["targets"].tolist() == [[8, 9, 0], [6, 7, 2]]  # of the last three positions
    assert batches[0]["mask"].tolist() == [[True, True, False], [False, False, True]]
    assert batches[1]["ids"].tolist() == [[1, 3, 4]]
    assert batches[1]["targets"].tolist() == [[3, 4, 5]]
    assert batches[1]["mask"].all()


def test_no_prompts_are_refused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, profile: Profile) -> None:
    with pytest.raises(ValueError, match="no prompts"):
        sample_rollouts(model, tokenizer, profile, Generous(), [], split="train", samples=2, seed=0)
