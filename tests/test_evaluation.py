"""Scores of the tiny base: kept response by response, exact where that is possible, and read the second time."""

import pandas as pd
import pytest
import torch

from crossdomain import evaluation, generation
from crossdomain.evaluation import GREEDY, TEMPERATURE_1
from crossdomain.lineage import Checkpoint, Lineage


@pytest.fixture(scope="module")
def found(lineage: Lineage, base: Checkpoint) -> pd.DataFrame:
    del base  # trained once a session
    return evaluation.scores(lineage, "base")


def test_every_response_has_a_row(found: pd.DataFrame, lineage: Lineage) -> None:
    prompts, samples = lineage.profile.test_prompts, lineage.profile.samples
    counts = found.groupby(["domain", "split", "decoding"]).size()
    assert counts["math", "test", TEMPERATURE_1] == prompts  # exact: one probability a prompt
    assert counts["cw", "test", TEMPERATURE_1] == prompts * samples
    assert counts["cw", "test", GREEDY] == prompts
    assert ("qa", "test_unseen", GREEDY) in counts
    assert set(found["domain"]) == set(lineage.domains)
    assert found["score"].between(0, 1).all()


def test_exact_scores_are_the_probabilities_of_the_answers(found: pd.DataFrame, lineage: Lineage) -> None:
    checkpoint, domain = lineage.checkpoint("base"), lineage.domains["math"]
    items = domain.items("test")[: lineage.profile.test_prompts]
    with torch.no_grad():
        expected = generation.expected_reward(
            checkpoint.model(), checkpoint.tokenizer(), lineage.profile, domain, items
        )
    rows = found.query("domain == 'math' and decoding == 'T=1'")
    assert set(rows["estimate"]) == {"exact"}
    assert rows["score"].to_numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_greedy_scores_follow_from_the_kept_responses(found: pd.DataFrame, lineage: Lineage) -> None:
    domain = lineage.domains["cw"]
    rows = found.query("domain == 'cw' and decoding == 'greedy'")
    again = [domain.score(r, i.target) for r, i in zip(rows["response"], domain.items("test"), strict=False)]
    assert (rows["score"].to_numpy() <= again).all()  # equal, or 0 where the response was cut off
    assert (rows["score"].to_numpy() == again).mean() > 0.5


def test_a_second_evaluation_reads_the_first(
    found: pd.DataFrame, lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_split_scores", None)  # would fail if it were called
    pd.testing.assert_frame_equal(evaluation.scores(lineage, "base"), found)


def test_the_curve_begins_at_the_parent_and_ends_at_the_stage(lineage: Lineage, cw: Checkpoint) -> None:
    curve = evaluation.curve(lineage, "cw")
    assert sorted(set(curve["step"])) == [0, *cw.snapshots(), lineage.stage("cw").steps]
    assert set(curve["domain"]) == set(lineage.domains)


def test_summary_gives_points_with_intervals(found: pd.DataFrame, lineage: Lineage) -> None:
    table = evaluation.summary([lineage], {"base": ["base"]})
    row = table.query("domain == 'cw' and decoding == 'greedy' and split == 'test'").iloc[0]
    assert row["score"] == pytest.approx(100 * found.query("domain == 'cw' and decoding == 'greedy'")["score"].mean())
    assert row["low"] <= row["score"] <= row["high"]


def test_development_scores_do_not_touch_the_test_split(lineage: Lineage, base: Checkpoint) -> None:
    domain = lineage.domains["math"]
    with torch.no_grad():
        expected = generation.expected_reward(
            base.model(), base.tokenizer(), lineage.profile, domain, domain.items("dev")[:500]
        )
    assert evaluation.dev_score(lineage, "base", "math") == pytest.approx(float(expected.mean()), abs=1e-6)
