"""Policies made without training are what their definitions say, and are chosen on development prompts."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
import torch
from torch import Tensor

from crossdomain import evaluation, training_free
from crossdomain.curvature import ParameterSpace
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.objectives import parameters
from crossdomain.profiles import Profile
from crossdomain.store import Store

CHANGES = {"stages": ["qa", "cw"], "refresh": "qa", "steps.cw": 2, "curvature_prompts": 6, "merge_scales": [0.5, 2]}


@pytest.fixture(scope="module")
def small(smoke: Profile, base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    store = Store(tmp_path_factory.mktemp("merged") / "store")
    shutil.copytree(base.artifact.path, store.root / base.artifact.key)
    return Lineage(smoke.override(CHANGES), 0, store)


def vector(lineage: Lineage, name: str) -> Tensor:
    params = parameters(lineage.checkpoint(name).model())
    return ParameterSpace(params).flatten(params)


def test_task_arithmetic_adds_scaled_updates_to_the_base(small: Lineage) -> None:
    base, qa, cw = (vector(small, name) for name in ("base", "qa", "cw"))
    found = vector(small, training_free.merged(small, training_free.ARITHMETIC, 0.5).name)
    torch.testing.assert_close(found, base + 0.5 * ((qa - base) + (cw - base)), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("method", [training_free.TIES, training_free.DARE])
def test_other_merges_move_in_proportion_to_the_scale(small: Lineage, method: str) -> None:
    base, half, double = (
        vector(small, name)
        for name in ("base", *(training_free.merged(small, method, scale).name for scale in (0.5, 2)))
    )
    torch.testing.assert_close(double - base, 4 * (half - base), atol=1e-6, rtol=1e-3)
    assert (half - base).norm() > 0


def test_a_merge_can_be_refreshed_like_any_checkpoint(small: Lineage) -> None:
    name = training_free.merged(small, training_free.TIES, 0.5).name
    refreshed = small.checkpoint(f"{name}-reqa")
    assert refreshed.artifact.manifest["inputs"]["parent"] == small.checkpoint(name).key


def test_a_rollback_of_everything_is_the_policy_before_the_later_stages(small: Lineage) -> None:
    everything = vector(small, training_free.rolled_back(small, 100.0).name)
    torch.testing.assert_close(everything, vector(small, "qa"), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("random", [False, True])
def test_a_rollback_changes_its_share_of_the_coordinates_and_no_others(small: Lineage, random: bool) -> None:
    before, after = vector(small, "qa"), vector(small, "qa-cw")
    found = vector(small, training_free.rolled_back(small, 10.0, random=random).name)
    back, left = (found - before).abs() < 1e-9, found == after
    assert (back | left).all()
    moved = before != after
    share = float((back & moved).sum() / len(moved))
    assert share <= 0.1 + 1e-3 and share > 0.05


def test_the_choice_is_the_best_on_development_prompts(small: Lineage) -> None:
    table = training_free.choices(small, training_free.ARITHMETIC)
    assert table["value"].tolist() == [0.5, 2] and table["chosen"].sum() == 1
    for row in table.itertuples():
        scores = [evaluation.dev_score(small, str(row.checkpoint), domain) for domain in ("qa", "cw")]
        assert row.score == pytest.approx(50 * sum(scores))
    best = table.sort_values("score")["checkpoint"].iloc[-1]
    assert training_free.best(small, training_free.ARITHMETIC) == best


def test_the_random_control_has_the_size_that_was_chosen(small: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = pd.DataFrame({"value": [1.0, 10.0], "checkpoint": ["a", "b"], "chosen": [False, True]})
    monkeypatch.setattr(training_free, "choices", lambda lineage, method: chosen)
    assert training_free.random_control(small) == "qa-cw+random_10"
    assert training_free.best(small, training_free.ROLLBACK) == "b"
