"""GRPO without the completions that have no advantage, and with prompts read once; TRL's own trainer as an oracle."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase
from trl.trainer.grpo_trainer import GRPOTrainer

from crossdomain.grpo import FrugalGRPOTrainer, reading_prompts_once, with_advantage
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.profiles import Profile
from crossdomain.store import Store
from crossdomain.training import ended_reward, grpo_config, prompt_order


def test_rows_without_an_advantage_are_left_out_and_values_of_the_batch_kept() -> None:
    inputs = {
        "advantages": torch.tensor([0.0, 1.0, 0.0, -1.0]),
        "completion_ids": torch.arange(8).view(4, 2),
        "num_items_in_batch": torch.tensor(8),
        "num_images": None,
    }
    found = with_advantage(inputs)
    assert found["advantages"].tolist() == [1.0, -1.0]
    assert found["completion_ids"].tolist() == [[2, 3], [6, 7]]
    assert found["num_items_in_batch"] == 8 and found["num_images"] is None


def test_a_batch_without_any_advantage_keeps_one_row() -> None:
    inputs = {"advantages": torch.zeros(3), "completion_ids": torch.arange(6).view(3, 2)}
    assert with_advantage(inputs)["completion_ids"].tolist() == [[0, 1]]
    assert inputs["advantages"].shape == (3,)


def test_a_stage_whose_groups_are_all_silent_leaves_the_policy_as_it_was(
    smoke: Profile, base: Checkpoint, store_with_base: Store
) -> None:
    changes = {"skip_silent_groups": True, "steps.code": 2, "domains.code": "crossdomain.domains.programs:Programs"}
    lineage = Lineage(smoke.override(changes), 0, store_with_base)
    after = lineage.checkpoint("code")
    assert after.training_log()["reward"].tolist() == [0.0, 0.0], "expected a base that never solves a program"
    before = base.model().state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.model().state_dict().items())


def test_prompts_read_once_give_trls_log_probabilities_and_gradients(smoke: Profile, base: Checkpoint) -> None:
    domain, tokenizer = smoke.load_domains()["cw"], base.tokenizer()
    prompts = [item.prompt for item in domain.items("train")[:3]]
    found = [
        gradient_of(kind, smoke, base, *completed(tokenizer, prompts)) for kind in (GRPOTrainer, FrugalGRPOTrainer)
    ]
    (logps, entropies, expected), (again, entropies_again, gradients) = found
    torch.testing.assert_close(again, logps, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(entropies_again, entropies, rtol=1e-4, atol=1e-4)
    scale = max(float(g.abs().max()) for g in expected.values())
    assert scale > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5 * scale)


def test_generation_reads_equal_prompts_once_and_answers_alike(base: Checkpoint, smoke: Profile) -> None:
    model, tokenizer, read = base.model(), base.tokenizer(), list[int]()
    domain = smoke.load_domains()["math"]
    prompts = [item.prompt for item in domain.items("train")[:3] for _ in range(4)]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    config = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    expected = model.generate(**inputs, generation_config=config)
    model.base_model.register_forward_pre_hook(
        lambda _, arguments, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    with reading_prompts_once(model):
        found = model.generate(**inputs, generation_config=config)
    assert torch.equal(found, expected)
    width = inputs["input_ids"].shape[1]
    assert read[0] == 3 * (width - 1) and set(read[1:]) == {12}
    assert "generate" not in vars(model)


def completed(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Prompts, each with four completions of several lengths: ids, mask and the longest completion."""
    rows = tokenizer([prompt for prompt in prompts for _ in range(4)], return_tensors="pt", padding=True)
    generator = torch.Generator().manual_seed(0)
    completions = torch.randint(5, len(tokenizer), (len(rows["input_ids"]), 5), generator=generator)
    mask = (torch.arange(5) < torch.randint(1, 6, (len(completions), 1), generator=generator)).long()
    ids = torch.cat([rows["input_ids"], completions * mask + tokenizer.pad_token_id * (1 - mask)], 1)
    return ids, torch.cat([rows["attention_mask"], mask], 1), 5


def gradient_of(
    kind: type[GRPOTrainer], smoke: Profile, base: Checkpoint, ids: torch.Tensor, mask: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Log-probabilities and entropies of a trainer, and the gradient of a weighted sum of both."""
    domain, model = smoke.load_domains()["cw"], base.model()
    with tempfile.TemporaryDirectory() as work:
        trainer = kind(
            model=model,
            args=grpo_config(smoke, domain, 1, 1e-4, 0, Path(work)),
            reward_funcs=[ended_reward(domain, [base.tokenizer().eos_token_id])],
            train_dataset=prompt_order(smoke, domain, 1, 0),
            processing_class=base.tokenizer(),
        )
        logps, entropies, _ = trainer._get_per_token_logps_and_entropies(model, ids, mask, length, compute_entropy=True)
    kept = mask[:, -length:]
    ((logps * kept).sin().sum() / kept.sum()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return (logps * kept).detach(), (entropies * kept).detach(), gradients
