"""Which checkpoints the chapter needs."""

import pytest

from crossdomain import evaluation, staging
from crossdomain.lineage import Lineage
from crossdomain.profiles import load_profile
from crossdomain.store import Store


@pytest.fixture
def smoke_lineage(store: Store) -> Lineage:
    return Lineage(load_profile("smoke"), 0, store)


def test_names_of_the_sequence_its_refreshes_and_controls(
    smoke_lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "matched_snapshot", lambda lineage: "code-math@2")
    plan = staging.plan([smoke_lineage, smoke_lineage])
    assert list(plan.sequence.values())[-1] == ["code-math-qa-cw"] * 2
    assert list(plan.experts) == ["Math expert", "QA expert", "CW expert"]  # Code's expert is the first stage
    assert list(plan.refreshes) == ["refresh Math", *(f"control: refresh {d}" for d in ("Code", "QA", "CW"))]
    assert plan.refreshes["refresh Math"] == ["code-math-qa-cw-remath"] * 2
    assert plan.controls == {
        staging.UNDAMAGED: ["code-math-remath"] * 2,
        staging.ADAM_RESTART: ["code-math@2-remath"] * 2,
    }


def test_a_run_that_ends_with_the_refreshed_domain_has_nothing_to_refresh(store: Store) -> None:
    lineage = Lineage(load_profile("smoke", {"stages": "code,math"}), 0, store)
    plan = staging.plan([lineage])
    assert plan.refreshes == plan.controls == {}


def test_the_matched_snapshot_is_the_nearest_on_the_development_split(
    smoke_lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"code-math-qa-cw": 0.5, "code": 0.1, "code-math@2": 0.45, "code-math@4": 0.9}
    monkeypatch.setattr(evaluation, "dev_score", lambda lineage, name, domain: scores[name])
    monkeypatch.setattr(Lineage, "checkpoint", lambda self, name: type("C", (), {"snapshots": lambda self: [2, 4]})())
    assert staging.matched_snapshot(smoke_lineage) == "code-math@2"


def test_where_snapshots_are_far_apart_shorter_stages_are_tried_in_between(
    smoke_lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First learning passes the damaged policy's 0.4 between steps 2 and 3."""
    scores = {"code-math-qa-cw": 0.4, "code": 0.1, "code-math@4": 0.8, "code-math_2": 0.2, "code-math_3": 0.5}
    asked = []

    def dev_score(lineage: Lineage, name: str, domain: str) -> float:
        asked.append(name)
        return scores[name]

    monkeypatch.setattr(evaluation, "dev_score", dev_score)
    monkeypatch.setattr(Lineage, "checkpoint", lambda self, name: type("C", (), {"snapshots": lambda self: [4]})())
    assert staging.matched_snapshot(smoke_lineage) == "code-math_3"
    assert asked == ["code-math-qa-cw", "code", "code-math@4", "code-math_2", "code-math_3"]
    scores["code-math_2"] = 0.36  # close enough
    assert staging.matched_snapshot(smoke_lineage) == "code-math_2"
    assert smoke_lineage.stage("code-math_2-remath").parent == "code-math_2"


def test_a_score_that_first_learning_never_passes_has_the_nearest_snapshot(
    smoke_lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"code-math-qa-cw": 0.9, "code": 0.1, "code-math@4": 0.3}
    monkeypatch.setattr(evaluation, "dev_score", lambda lineage, name, domain: scores[name])
    monkeypatch.setattr(Lineage, "checkpoint", lambda self, name: type("C", (), {"snapshots": lambda self: [4]})())
    assert staging.matched_snapshot(smoke_lineage) == "code-math@4"
