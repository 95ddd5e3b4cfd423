"""Later stages by method: they start where the sequence's do, see what they should, and resume to the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from crossdomain import continual, regularised
from crossdomain.continual import Regulariser
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.profiles import Profile
from crossdomain.second_order import update
from crossdomain.store import Store

CHANGES = {
    "stages": ["qa", "cw"],
    "refresh": "qa",
    "steps.cw": 4,
    "curvature_prompts": 6,
    "generations": 2,
    "batch_size": 16,
    "learning_rate.cw": 1e-3,
}


@pytest.fixture(scope="module")
def small(smoke: Profile, base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    store = Store(tmp_path_factory.mktemp("continual") / "store")
    shutil.copytree(base.artifact.path, store.root / base.artifact.key)
    return Lineage(smoke.override(CHANGES), 0, store)


def moved(lineage: Lineage, name: str) -> Tensor:
    return update(lineage, "qa", name)


def test_a_method_goes_along_the_later_stages_with_the_earlier_ones_where_they_ended(
    smoke: Profile, base: Checkpoint, store: Store
) -> None:
    calls = []

    def train(parent: str, domain: str, earlier: continual.Earlier) -> Checkpoint:
        calls.append((parent, domain, dict(earlier)))
        return Checkpoint(f"{parent}+{domain}_x", base.artifact)

    last = continual.along(Lineage(smoke, 0, store), train)
    assert calls == [
        ("code-math", "qa", {"code": "code", "math": "code-math"}),
        ("code-math+qa_x", "cw", {"code": "code", "math": "code-math", "qa": "code-math+qa_x"}),
    ]
    assert last == "code-math+qa_x+cw_x"


def test_a_domain_is_not_protected_from_itself(smoke: Profile, base: Checkpoint, store: Store) -> None:
    seen = []

    def train(parent: str, domain: str, earlier: continual.Earlier) -> Checkpoint:
        seen.append((domain, dict(earlier)))
        return Checkpoint(f"{parent}+{domain}_x", base.artifact)

    profile = smoke.override({"stages": ["qa", "cw", "qa"], "refresh": "qa"})
    continual.along(Lineage(profile, 0, store), train)
    assert seen == [("cw", {"qa": "qa"}), ("qa", {"cw": "qa+cw_x"})]


def test_replay_has_the_share_of_earlier_domains(small: Lineage) -> None:
    name = continual.replay(small, 0.25)
    inputs = small.checkpoint(name).artifact.manifest["inputs"]
    assert dict(inputs["schedule"][1]) == {"cw": 0.75, "qa": 0.25}
    assert (inputs["steps"], inputs["learning_rate"]) == (4, 1e-3)
    assert inputs["parent"] == small.checkpoint("qa").key


def test_the_penalty_is_the_divergence_from_the_stages_start(small: Lineage) -> None:
    # The first step has a rate of 0. At the second the policy is still where it started, so that the penalty has no
    # gradient there, however strong it is; at later ones it has.
    for steps, alike in ((2, True), (4, False)):
        lineage = Lineage(small.profile.override({"stage_kl_beta": 100, "steps.cw": steps}), 0, small.store)
        plain, penalised = moved(lineage, "qa-cw"), moved(lineage, continual.divergence(lineage))
        apart = float((penalised - plain).norm() / plain.norm())
        assert (apart < 0.02) if alike else (apart > 0.1), (steps, apart)


def test_ewc_keeps_the_policy_nearer_by_its_own_measure(small: Lineage) -> None:
    anchor = continual._anchor(small, "qa", "qa")
    lineage = Lineage(small.profile.override({"elastic_strength": 1e5}), 0, small.store)
    plain, kept = moved(small, "qa-cw"), moved(lineage, continual.elastic(lineage))
    assert float(anchor.fisher @ kept**2) < 0.7 * float(anchor.fisher @ plain**2)
    assert small.checkpoint(continual.elastic(small)).key != lineage.checkpoint("qa+cw_ewc").key  # another strength


def test_projected_stages_are_made_once(small: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []  # a step: whether nothing conflicted, so that its gradient stayed as it was
    project = regularised.projected

    def watched(gradient: Tensor, protected: Sequence[Tensor]) -> Tensor:
        made = project(gradient, protected)
        kept.append(torch.equal(made, gradient))
        return made

    monkeypatch.setattr(regularised, "projected", watched)
    name = continual.projection(small)
    found = moved(small, name)
    assert kept and found.isfinite().all() and torch.equal(found, moved(small, "qa-cw")) == all(kept)
    fresh = Lineage(small.profile, 0, small.store)
    before = {path.name for path in small.store.root.iterdir()}
    assert fresh.checkpoint(continual.projection(fresh)).key == small.checkpoint(name).key
    assert {path.name for path in small.store.root.iterdir()} == before


def test_an_interrupted_stage_resumes_to_the_same_bits(small: Lineage, tmp_path: Path) -> None:
    halving = Regulariser({"qa": "qa"}, lambda: lambda gradient, params: gradient / 2)
    whole = continual._trained(small, "qa", "cw", "halved", halving)
    calls = []

    def interrupted() -> regularised.Change:
        def change(gradient: Tensor, params: object) -> Tensor:
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return gradient / 2

        return change

    store = Store(tmp_path / "again")
    for name in ("base", "qa"):
        artifact = small.checkpoint(name).artifact
        shutil.copytree(artifact.path, store.root / artifact.key)
    again = Lineage(small.profile, 0, store)
    with pytest.raises(KeyboardInterrupt):
        continual._trained(again, "qa", "cw", "halved", Regulariser({"qa": "qa"}, interrupted))
    resumed = continual._trained(again, "qa", "cw", "halved", halving)
    assert resumed.key == whole.key
    sums = [c.artifact.manifest["files"]["model.safetensors"]["sha256"] for c in (whole, resumed)]
    assert sums[0] == sums[1]
    np.testing.assert_array_equal(resumed.training_log()["step"], [1, 2, 3, 4])
