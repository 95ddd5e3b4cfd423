"""GRPO gradients: TRL's own loss as an oracle, parts that add up, work that is not done twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trl.trainer.grpo_trainer import GRPOTrainer

from crossdomain import curvature, gradients, objectives
from crossdomain.lineage import Checkpoint
from crossdomain.profiles import Profile
from crossdomain.rollouts import Rollouts, sample_rollouts
from crossdomain.training import ended_reward, grpo_config, prompt_order


@pytest.fixture(scope="module")
def sampled(base: Checkpoint, smoke: Profile) -> Rollouts:
    domain = smoke.load_domains()["cw"]
    model = base.model(attn_implementation="eager")
    return sample_rollouts(
        model, base.tokenizer(), smoke, domain, domain.items("train")[:8], split="train", samples=4, seed=3
    )


def by_trl(base: Checkpoint, smoke: Profile, rollouts: Rollouts, work: Path) -> dict[str, torch.Tensor]:
    """The gradient of TRL's loss on the same responses."""
    domain = smoke.load_domains()["cw"]
    tokenizer, model = base.tokenizer(), base.model()
    trainer = GRPOTrainer(
        model=model,
        args=grpo_config(smoke, domain, 1, 1e-4, 0, work),
        reward_funcs=[ended_reward(domain, [tokenizer.eos_token_id])],
        train_dataset=prompt_order(smoke, domain, 1, 0),
        processing_class=tokenizer,
    )
    samples = rollouts.rewards.shape[1]
    prompts = [torch.tensor(prompt).flip(0) for prompt in rollouts.prompts for _ in range(samples)]
    pad = torch.nn.utils.rnn.pad_sequence
    prompt_ids = pad(prompts, batch_first=True, padding_value=-1).flip(1)  # on the left
    completion_ids = pad([torch.tensor(r) for r in rollouts.responses], batch_first=True, padding_value=-1)
    rewards = rollouts.rewards
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    masks = {name: (ids >= 0).long() for name, ids in (("prompt", prompt_ids), ("completion", completion_ids))}
    inputs = {
        "prompt_ids": prompt_ids.clamp(min=0),
        "prompt_mask": masks["prompt"],
        "completion_ids": completion_ids.clamp(min=0),
        "completion_mask": masks["completion"],
        "advantages": advantages.flatten(),
        "num_items_in_batch": masks["completion"].sum(),
    }
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    trainer._compute_loss(model, inputs).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_the_gradient_is_that_of_trls_loss(base: Checkpoint, smoke: Profile, sampled: Rollouts, tmp_path: Path) -> None:
    model = base.model(attn_implementation="eager")
    params = objectives.parameters(model)
    found = curvature.ParameterSpace(params).unflatten(
        curvature.gradient(objectives.grpo(model, sampled, batch_size=7), params)
    )
    expected = by_trl(base, smoke, sampled, tmp_path)
    scale = max(float(g.abs().max()) for g in expected.values())
    assert scale > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * scale)


def test_prompts_without_an_advantage_change_nothing_but_the_number_of_tokens(
    base: Checkpoint, sampled: Rollouts
) -> None:
    model = base.model(attn_implementation="eager")
    params = objectives.parameters(model)
    rewards = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(len(sampled.prompts), 1)
    rewards[2:] = 1
    differing = Rollouts("CW", "train", sampled.prompts, sampled.responses, rewards)
    alone, whole = objectives.grpo(model, differing.part(0, 2)), objectives.grpo(model, differing)
    assert alone.rows == whole.rows == 8
    tokens = [sum(map(len, part.responses)) for part in (differing.part(0, 2), differing)]
    expected = curvature.gradient(alone, params) * tokens[0] / tokens[1]
    torch.testing.assert_close(
        curvature.gradient(whole, params), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )
    silent = Rollouts("CW", "train", sampled.prompts, sampled.responses, torch.ones_like(rewards))
    assert not curvature.gradient(objectives.grpo(model, silent), params).any()


def test_one_response_a_prompt_is_no_group(base: Checkpoint, sampled: Rollouts) -> None:
    alone = Rollouts("CW", "train", sampled.prompts, sampled.responses[::4], sampled.rewards[:, :1])
    with pytest.raises(ValueError, match="at least 2 rollouts"):
        objectives.grpo(base.model(attn_implementation="eager"), alone)


def test_parts_are_kept_by_domain_and_their_mean_beside_them(base: Checkpoint, smoke: Profile, tmp_path: Path) -> None:
    domains = {name: smoke.load_domains()[name] for name in ("qa", "cw")}
    model = base.model(attn_implementation="eager")
    files = gradients.save(model, base.tokenizer(), smoke, domains, tmp_path, seed=0)
    assert list(files["parts"]) == [f"{d}/{k}" for d in ("qa", "cw") for k in range(smoke.gradient_splits)]
    parts = [load_file(file) for label, file in files["parts"].items() if label.startswith("cw/")]
    mean = load_file(files["means"]["cw"])
    for name, value in mean.items():
        torch.testing.assert_close(value, torch.stack([part[name] for part in parts]).mean(0), rtol=1e-4, atol=1e-8)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    gradients.save(model, base.tokenizer(), smoke, domains, tmp_path, seed=0)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


def test_more_prompts_than_there_are_is_refused(base: Checkpoint, smoke: Profile, tmp_path: Path) -> None:
    greedy = smoke.override({"gradient_prompts": 4000})
    with pytest.raises(ValueError, match="code has only"):
        gradients.save(base.model(), base.tokenizer(), greedy, {"code": smoke.load_domains()["code"]}, tmp_path, seed=0)
