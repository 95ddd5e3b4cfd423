"""Names of checkpoints, what they are kept under, and what a run refers to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdomain.domains import Item
from crossdomain.domains.writing import Writing
from crossdomain.lineage import Checkpoint, Lineage, Stage
from crossdomain.profiles import Profile, load_profile
from crossdomain.store import Artifact, Store


@pytest.fixture
def names(tmp_path: Path) -> Lineage:
    """A lineage to read names with, and to train nothing."""
    return Lineage(load_profile("smoke", "refresh_learning_rate=1e-5 refresh_steps=3"), 0, Store(tmp_path / "empty"))


# --- Names ---


def test_the_sequence_is_named_after_the_stages_so_far(names: Lineage) -> None:
    assert names.sequence == ["base", "code", "code-math", "code-math-qa", "code-math-qa-cw"]


def test_the_last_domain_of_a_name_is_its_stage(names: Lineage) -> None:
    assert names.stage("code-math-qa-cw") == Stage(
        name="code-math-qa-cw",
        parent="code-math-qa",
        domain="cw",
        steps=4,
        learning_rate=names.profile.learning_rate["cw"],
        snapshot_every=2,
        seed=0,
    )


def test_a_first_stage_starts_from_the_base(names: Lineage) -> None:
    assert names.stage("qa").parent == "base"


def test_a_refresh_has_its_own_steps_rate_and_snapshots(names: Lineage) -> None:
    assert names.stage("code-math-qa-cw-remath") == Stage(
        name="code-math-qa-cw-remath",
        parent="code-math-qa-cw",
        domain="math",
        steps=3,
        learning_rate=1e-5,
        snapshot_every=1,
        seed=0,
    )


def test_a_refresh_without_a_rate_of_its_own_has_that_of_the_domain(tmp_path: Path) -> None:
    lineage = Lineage(load_profile("smoke", "refresh_learning_rate=null"), 0, Store(tmp_path))
    assert lineage.stage("code-remath").learning_rate == lineage.profile.learning_rate["math"]


@pytest.mark.parametrize(
    ("name", "parent", "steps"),
    [("math_50", "base", 50), ("code-math_7-cw_9", "code-math_7", 9), ("code-remath_12", "code", 12)],
)
def test_a_number_after_the_domain_is_its_steps(names: Lineage, name: str, parent: str, steps: int) -> None:
    stage = names.stage(name)
    assert (stage.parent, stage.steps) == (parent, steps)


def test_a_stage_can_start_from_a_snapshot(names: Lineage) -> None:
    assert names.stage("code@2-math").parent == "code@2"


def test_a_domain_whose_name_begins_like_a_refresh_is_itself(tmp_path: Path) -> None:
    stages = [*load_profile("smoke").stages, "reading"]
    changes = {"stages": stages, "domains.reading": "facts", "steps.reading": 5, "learning_rate.reading": 1e-4}
    lineage = Lineage(load_profile("smoke", changes), 0, Store(tmp_path))
    assert (lineage.stage("code-reading").domain, lineage.stage("code-reading").steps) == ("reading", 5)
    assert (lineage.stage("code-rereading").domain, lineage.stage("code-rereading").steps) == ("reading", 2)


@pytest.mark.parametrize("name", ["poetry", "code-poetry", "code-repoetry", "poetry-code", "base_3", "code-poetry@2"])
def test_an_unknown_domain_is_named_with_those_there_are(
    names: Lineage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_base", lambda: pytest.fail("trained a base for a name that cannot be read"))
    with pytest.raises(ValueError, match=r"no domain '(poetry|base)'.*code, math, qa, cw") as caught:
        names.checkpoint(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "Math", "code math", "code--math", "code-", "math_", "math_x", "math_0", "math_1_2", "@2", "../math"]
)
def test_a_name_that_cannot_be_read_is_refused(names: Lineage, name: str) -> None:
    with pytest.raises(ValueError, match=r"checkpoint '.*': cannot read '.*'; expected a domain of code, math, qa, cw"):
        names.checkpoint(name)


@pytest.mark.parametrize("name", ["base@", "base@x", "base@2@", "base@²"])
def test_a_snapshot_that_cannot_be_read_is_refused(lineage: Lineage, name: str) -> None:
    with pytest.raises(ValueError, match=r"checkpoint 'base@.*': cannot read '.*'; expected a "):
        lineage.checkpoint(name)


def test_a_negative_seed_is_refused(smoke: Profile) -> None:
    with pytest.raises(ValueError, match=r"seed = -1.*0 or more"):
        Lineage(smoke, -1)


# --- Checkpoints ---


def test_a_checkpoint_is_read_from_the_store_and_not_trained_again(
    cw: Checkpoint, lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossdomain.training.train_stage", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("crossdomain.pretraining.pretrain_base", lambda *_, **__: pytest.fail("trained again"))
    assert Lineage(lineage.profile, 0, lineage.store).checkpoint("cw") == cw


def test_a_shorter_stage_takes_the_first_steps_of_the_stage(cw: Checkpoint, lineage: Lineage) -> None:
    short, whole = lineage.checkpoint("cw_4"), lineage.checkpoint("cw@4")
    for one, other in zip(short.model().parameters(), whole.model().parameters(), strict=True):
        assert torch.equal(one, other)


def test_snapshots_are_the_policy_inside_its_stage(cw: Checkpoint, lineage: Lineage) -> None:
    assert cw.snapshots() == list(range(2, 24, 2))
    early, late = lineage.checkpoint("cw@2"), lineage.checkpoint("cw@22")
    assert early.artifact == late.artifact == cw.artifact
    assert len({early.key, late.key, cw.key}) == 3
    weights = [checkpoint.model().lm_head.weight for checkpoint in (lineage.checkpoint("base"), early, late, cw)]
    moved = [float((after - weights[0]).detach().norm()) for after in weights]
    assert moved == sorted(set(moved))


def test_a_snapshot_that_was_not_kept_names_those_that_were(cw: Checkpoint, lineage: Lineage) -> None:
    with pytest.raises(ValueError, match=r"'cw@3': no snapshot at step 3; kept are \[2, 4, .*, 22\]"):
        lineage.checkpoint("cw@3")


def test_the_base_keeps_no_snapshots(base: Checkpoint, lineage: Lineage) -> None:
    with pytest.raises(ValueError, match=r"'base@2': no snapshot at step 2; kept are \[\]"):
        lineage.checkpoint("base@2")


def test_the_training_log_is_read(cw: Checkpoint) -> None:
    assert cw.training_log()["step"].tolist() == list(range(1, 25))


# --- Keys ---


class Recorder(Store):
    """Makes nothing: every artifact is the base, under the key it would have."""

    def __init__(self, base: Artifact) -> None:
        super().__init__(base.path.parent)
        self.base = base

    def get(self, name: str, inputs: dict[str, Any], make: Callable[[Path, Path], None]) -> Artifact:
        return Artifact(self.key(name, inputs), self.base.path, self.base.manifest)


@pytest.fixture
def key(base: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The key a checkpoint would be kept under."""

    def found(name: str = "cw", overrides: Any = None, seed: int = 0) -> str:
        hashed = Lineage(load_profile("smoke", overrides), seed, Recorder(base.artifact)).checkpoint(name).key
        return hashed.rpartition(".")[2]

    return found


@pytest.mark.parametrize(
    "overrides",
    [
        "learning_rate.cw=1e-3",
        "steps.cw=5",
        "snapshot_every=3",
        "batch_size=16",
        "generations=8",
        "temperature=0.9",
        "clip_epsilon=0.3",
        "kl_beta=0.1",
        "adam_beta2=0.99",
        "max_grad_norm=0.5",
        "warmup_steps=2",
        "precision=bf16-autocast",
        "prompt_template='{prompt}!'",
        "domains.cw=facts",
        "layers=1",
        "base_learning_rate=1e-3",
        "base_max_steps=100",
        "base_batch.qa=3",
        "label_noise.qa=0.5",
    ],
)
def test_what_changes_a_stage_changes_its_key(key: Callable[..., str], overrides: str) -> None:
    assert key(overrides=overrides) != key()


@pytest.mark.parametrize(
    "overrides",
    [
        "save_every=7",
        "bootstrap=9",
        "test_prompts=9",
        "curve_prompts=9",
        "samples=9",
        "scale=toy",
        "stages=code,math,cw",
        "steps.math=9",
        "learning_rate.math=1e-3",
        "refresh=qa",
        "refresh_steps=9",
        "refresh_learning_rate=1e-3",
        "refresh_snapshot_every=2",
    ],
)
def test_what_does_not_change_a_stage_leaves_its_key(key: Callable[..., str], overrides: str) -> None:
    assert key(overrides=overrides) == key()


def test_the_key_depends_on_seed_parent_and_base(key: Callable[..., str]) -> None:
    keys = [key("cw"), key("cw", seed=1), key("cw", seed=100), key("code-cw"), key("code_3-cw"), key("code-math-cw")]
    assert len(set(keys)) == len(keys)


def test_rl_seeds_share_the_base_of_their_hundred(key: Callable[..., str]) -> None:
    assert key("base", seed=0) == key("base", seed=1) != key("base", seed=100)


def test_a_named_number_of_steps_is_the_same_stage_as_a_setting_of_it(key: Callable[..., str]) -> None:
    assert key("code-cw_9") == key("code-cw", "steps.cw=9")
    assert key("code-cw_4") == key("code-cw")


@pytest.mark.parametrize("overrides", ["steps.cw=9", "learning_rate.cw=1e-3", "batch_size=16", "save_every=9"])
def test_reinforcement_learning_does_not_change_the_key_of_the_base(key: Callable[..., str], overrides: str) -> None:
    assert key("base", overrides) == key("base")


OWN = """
from crossdomain.domains.writing import Writing

class Own(Writing):
    worth = 1.0

    def score(self, response, target):
        return self.worth * super().score(response, target)
"""


def test_the_code_of_a_domain_is_part_of_the_key(
    key: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_writing.py"
    module.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    before = key(overrides={"domains.cw": "own_writing:Own"})
    module.write_text(OWN.replace("class", "# A comment.\nclass"))
    assert key(overrides={"domains.cw": "own_writing:Own"}) == before
    module.write_text(OWN.replace("1.0", "0.5"))
    assert key(overrides={"domains.cw": "own_writing:Own"}) != before


# --- References ---


def test_a_run_refers_to_what_it_uses(lineage: Lineage, cw: Checkpoint, base: Checkpoint, runs: Path) -> None:
    Lineage(lineage.profile, 0, lineage.store).checkpoint("cw@4")
    uses = runs / lineage.profile.label / "seed-0" / "uses"
    assert {path.name: path.read_text().strip() for path in uses.iterdir()} == {
        "base": base.artifact.key,
        "cw": cw.artifact.key,
        "cw@4": cw.artifact.key,
    }


# --- Training from the store ---


def test_a_stage_from_a_snapshot_starts_from_its_weights(
    cw: Checkpoint, lineage: Lineage, store: Store, runs: Path
) -> None:
    """With a tiny learning rate the stage ends where it started: at the snapshot, not at the end of the stage."""
    for artifact in (lineage.checkpoint("base").artifact, cw.artifact):
        shutil.copytree(artifact.path, store.root / artifact.key)
    profile = load_profile("smoke", {"steps.cw": 24, "learning_rate.math": 1e-12})
    own = Lineage(profile, 0, store)
    started, ended = own.checkpoint("cw@4").model(), own.checkpoint("cw@4-math_2").model()
    for name, weights in ended.state_dict().items():
        torch.testing.assert_close(weights, started.state_dict()[name], rtol=0, atol=1e-9)
    assert own.checkpoint("cw@4-math_2").snapshots() == []
    assert re.fullmatch(r".*@00004", own.checkpoint("cw@4").key)


class Umlauts(Writing):
    def items(self, split: str) -> list[Item]:
        return [Item("ü:", "gud,ag")]


def test_a_domain_that_the_policy_cannot_spell_is_noticed_before_training(
    lineage: Lineage, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossdomain.training.train_stage", lambda *_, **__: pytest.fail("trained"))
    own = Lineage(lineage.profile, 0, lineage.store)
    own.domains["cw"] = Umlauts()
    with pytest.raises(ValueError, match=r"domain 'cw'.*'ü'"):
        own.checkpoint("cw_3")
