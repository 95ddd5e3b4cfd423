"""GRPO without the completions that have no advantage."""

from __future__ import annotations

import torch

from crossdomain.grpo import with_advantage
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.profiles import Profile
from crossdomain.store import Store


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
