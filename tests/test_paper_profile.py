"""The profile `paper` from end to end on small local stand-ins: a tiny Qwen3, and files in its data sets' exact columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import hub_standins
from crossdomain import evaluation
from crossdomain.domains import HUB
from crossdomain.lineage import Lineage, domain_inputs
from crossdomain.profiles import Profile, load_profile
from crossdomain.sandbox import Sandbox
from crossdomain.store import Store

STAGES = ("code", "math", "qa", "cw")
LAST = "code-math-qa-cw-remath"


@pytest.fixture(scope="module")
def standins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is small about the run: the model, the data and all counts. Everything else is the profile's."""
    folder = tmp_path_factory.mktemp("standins")
    small = {
        "model": str(hub_standins.thinking_model(folder / "model")),
        "hub.folder": str(hub_standins.mirror(folder / "hub")),
        "hub.train_prompts": 8,
        "hub.held_out_prompts": 4,
        "hub.prompt_tokens": 400,
        "hub.completion_tokens": 12,
        "hub.writing_reward": "similarity",
        "generation_backend": "transformers",
        "rollouts": "transformers",
        "accelerate": "",
        "batch_size": 16,
        "generations": 4,
        "refresh_steps": 2,
        "refresh_snapshot_every": 100,
    }
    return small | {f"steps.{stage}": 2 for stage in STAGES} | {f"learning_rate.{stage}": 1e-2 for stage in STAGES}


@pytest.fixture(scope="module")
def lineage(standins: dict[str, Any], sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    """The whole sequence and the refresh, trained."""
    made = Lineage(load_profile("paper", standins), 0, Store(tmp_path_factory.mktemp("paper") / "store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSDOMAIN_RUNS", str(tmp_path_factory.mktemp("runs")))
        made.checkpoint(LAST)
    return made


def test_the_profile_loads_and_validates_where_no_hub_is() -> None:
    profile = load_profile("paper")
    assert profile.scale == "paper" and profile.stages == list(STAGES) and profile.refresh_steps == 3
    assert set(profile.domains.values()) == set(HUB)
    assert {domain.title for domain in profile.load_domains().values()} == {"Code", "Math", "QA", "CW"}
    assert profile.hub is not None and (profile.hub.train_prompts, profile.hub.prompt_tokens) == (5120, 2048)


def test_each_stage_takes_every_prompt_once_at_the_papers_number_of_prompts() -> None:
    profile: Profile = load_profile("paper")
    assert profile.hub is not None
    for stage in STAGES:
        assert profile.steps[stage] * profile.batch_size // profile.generations == profile.hub.train_prompts


@pytest.mark.parametrize("stage", range(1, 5))
def test_a_stage_is_trained_on_its_domain_and_earns_rewards(stage: int, lineage: Lineage) -> None:
    before, after = (lineage.checkpoint(lineage.sequence[i]) for i in (stage - 1, stage))
    log = after.training_log()
    assert log["step"].tolist() == [1, 2]
    assert log["reward"].between(0, 1).all() and log["reward"].max() > 0
    old, new = before.model().state_dict(), after.model().state_dict()
    assert any(not torch.equal(old[name], new[name]) for name in old)
    assert after.tokenizer().chat_template == hub_standins.CHAT_TEMPLATE


def test_the_policy_is_kept_in_float32_as_the_profile_says(lineage: Lineage) -> None:
    assert {parameter.dtype for parameter in lineage.checkpoint(LAST).model().parameters()} == {torch.float32}


def test_checkpoints_are_scored_on_all_test_sets(lineage: Lineage) -> None:
    found = evaluation.scores(lineage, LAST)
    counts = found[found["decoding"] == "greedy"].groupby(["domain", "split"], sort=False).size()
    assert counts.to_dict() == {(stage, "test"): 4 for stage in STAGES} | {("qa", "mmlupro"): 4}
    assert found["score"].between(0, 1).all()
    sampled = found[found["decoding"] == "T=1"]
    assert set(sampled["estimate"]) == {"sampled"}
    assert isinstance(evaluation.dev_score(lineage, LAST, "math"), float)


def test_other_data_are_another_checkpoint(lineage: Lineage, standins: dict[str, Any], tmp_path: Path) -> None:
    same = load_profile("paper", standins).load_domains()
    for stage in STAGES:
        assert domain_inputs(same[stage]) == domain_inputs(lineage.domains[stage])
    other = hub_standins.mirror(tmp_path / "hub")
    rows = [hub_standins.qa_row(i, answer_letter="C") for i in range(40)]
    hub_standins.write(other, "m-a-p/SuperGPQA", rows, file="SuperGPQA-all.jsonl")
    changed = load_profile("paper", {**standins, "hub.folder": str(other)}).load_domains()
    differ = [stage for stage in STAGES if domain_inputs(changed[stage]) != domain_inputs(lineage.domains[stage])]
    assert differ == ["qa"]


def test_a_table_of_scores_can_be_made(lineage: Lineage) -> None:
    table = evaluation.summary([lineage], {"refreshed": [LAST]}, resamples=50)
    assert isinstance(table, pd.DataFrame) and set(table["domain"]) == set(STAGES)
