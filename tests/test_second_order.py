"""Chapter 4's studies on the smallest lineage: what they report is what the checkpoints give."""

import numpy as np
import pandas as pd
import pytest
import torch

from crossdomain import concentration, curvature, damage, evaluation, measurements, pairs, predictions, second_order
from crossdomain.lineage import Lineage


@pytest.fixture(scope="module")
def small(lineage: Lineage) -> Lineage:
    """QA, then CW: the refreshed domain has one right answer, the later one several."""
    changes = {"stages": ["qa", "cw"], "refresh": "qa", "pair_steps": 4, "curvature_prompts": 12}
    return lineage.variant(changes)


def test_the_main_case_is_the_refreshed_domain_after_its_own_stage(small: Lineage) -> None:
    assert second_order.main_case(small) == ("qa", "qa", "qa-cw")


def test_the_exact_loss_is_minus_the_score_that_evaluation_reports(small: Lineage) -> None:
    at = second_order.point(small, "qa")
    loss = second_order.loss_of(small, "qa", at, "qa", "test")
    assert loss.describe() == "exact reward of QA on 12 test prompts"
    scores = evaluation.test_scores(small, "qa", ["qa", "cw"])["qa"].to_numpy()[:12]
    np.testing.assert_allclose(-loss.per_prompt(at.params).numpy(), scores, atol=1e-6)


def test_a_domain_with_several_right_answers_has_the_importance_weighted_loss(small: Lineage) -> None:
    at = second_order.point(small, "cw")
    loss = second_order.loss_of(small, "cw", at, "cw", "train")
    assert loss.describe().startswith("importance-weighted reward of CW on 12 train prompts with 4 rollouts")
    assert loss.value(at.params).value == pytest.approx(0, abs=1e-6)


def test_the_path_is_the_damage_of_moving_along_the_later_stages(small: Lineage) -> None:
    tables = second_order.path(small)
    path = tables["path"].set_index(["objective", "t"])
    before, after = (second_order.point(small, name) for name in ("qa", "qa-cw"))
    loss = second_order.loss_of(small, "qa", before, "qa", "test")
    moved = loss.value(after.params).value - loss.value(before.params).value
    assert path.loc[("exact reward", 1.0), "actual"] == pytest.approx(moved, rel=1e-3, abs=1e-7)
    assert abs(path.loc[("KL divergence", 1.0), "first"]) < 1e-3 * path.loc[("KL divergence", 1.0), "second"]
    cross = tables["cross"]["value"].sum()
    assert cross == pytest.approx(path.loc[("exact reward", 1.0), "second"], rel=1e-3, abs=1e-8)
    assert (tables["controls"]["direction"] == "random, same norms").sum() == second_order.CONTROLS


@pytest.mark.parametrize("make", [second_order._random, second_order._shuffled])
def test_random_updates_keep_the_norm_of_every_tensor(make) -> None:  # type: ignore[no-untyped-def]
    space = curvature.ParameterSpace({"a": torch.zeros(3, 4), "b": torch.zeros(5)})
    delta = torch.cat([torch.arange(12.0), torch.tensor([0, 0, 3, 0, 4.0])])
    found = space.unflatten(second_order.like(space, delta, make, seed=1))
    for name, part in space.unflatten(delta).items():
        assert found[name].norm().item() == pytest.approx(part.norm().item(), rel=1e-6)
        assert not torch.equal(found[name], part)


def test_an_update_that_is_zero_somewhere_stays_zero_there() -> None:
    space = curvature.ParameterSpace({"a": torch.zeros(2), "b": torch.zeros(3)})
    found = second_order.like(space, torch.tensor([0.0, 0, 1, 2, 3]), second_order._random, seed=0)
    assert found[:2].tolist() == [0.0, 0.0]


def test_stationarity_is_taken_at_the_end_and_further(small: Lineage) -> None:
    found = second_order.stationarity(small)
    assert found["checkpoint"].tolist()[-2:] == ["qa", "qa-reqa"] and found["step"].is_monotonic_increasing
    assert (found["gradient_norm"] > 0).all()


def test_concentration_covers_all_spaces_and_controls(small: Lineage) -> None:
    tables = concentration.concentration(small)
    captured = tables["captured"]
    case = second_order.main_case(small)
    masks = concentration.spaces(small, case, second_order.point(small, case.before))
    assert tuple(masks) == concentration.SPACES
    spaces = {space for space, mask in masks.items() if mask is None or mask.any()}  # two domains can share no head
    assert {*spaces, "route", "random", "coordinates by |δ|"} <= set(captured["subspace"])
    whole = captured[captured["subspace"] == "all parameters"]
    assert whole["norm_share"].is_monotonic_increasing and whole["norm_share"].between(0, 1).all()
    summary = tables["summary"].set_index("space")
    assert summary.loc["all parameters", "norm_share"] == pytest.approx(1)
    assert set(summary.index) == spaces
    parts = summary.index.intersection(["route, MLP", "route, attention"])
    both = summary.loc[parts, ["parameters", "norm_share"]].sum()
    np.testing.assert_allclose(summary.loc["route", ["parameters", "norm_share"]].astype(float), both, rtol=1e-5)
    spectrum = tables["spectrum"]
    assert all(part["eigenvalue"].is_monotonic_decreasing for _, part in spectrum.groupby("space"))


def test_predictions_use_the_experts_alone(small: Lineage) -> None:
    tables = predictions.predictions(small)
    row = tables["pairs"].set_index(["a", "b"]).loc[("qa", "cw")]
    at = second_order.point(small, "qa")
    delta = second_order.update(small, "base", pairs.alone(small, "cw"))
    terms = damage.Local(second_order.loss_of(small, "qa", at, "qa", "train"), at.params).expansion(delta)
    assert row["second"] == pytest.approx(terms.second, rel=1e-4, abs=1e-9)
    assert row["predicted"] == pytest.approx(row["first"] + row["second"])
    assert sorted(tables["lengths"]["t"].unique()) == list(predictions.LENGTHS)


def test_ranking_is_perfect_where_the_model_is_exact() -> None:
    lengths = pd.DataFrame(
        {"seed": 0, "t": 1.0, "predicted": [1.0, 2, 3, 4], "actual": [1.0, 2, 3, 4], "remainder": 0.0}
    )
    found = predictions.ranking_by_length(lengths).iloc[0]
    assert (found["correlation"], found["error"]) == (pytest.approx(1), 0)
    worse = lengths.assign(actual=[4.0, 3, 2, 1], remainder=[3.0, 1, -1, -3])
    assert predictions.ranking_by_length(worse).iloc[0]["correlation"] == pytest.approx(-1)


def test_studies_of_several_seeds_are_stacked(small: Lineage) -> None:
    other = Lineage(small.profile, 1, small.store)
    found = measurements.stacked([small, other], lambda x: {"t": pd.DataFrame({"x": [x.seed]})})
    assert found["t"].to_numpy().tolist() == [[0, 0], [1, 1]]


def test_the_fisher_is_of_the_checkpoints_own_answers_whatever_their_reward(small: Lineage, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    at = second_order.point(small, "qa")
    diagonal = second_order.fisher_of(small, "qa", at, "qa")
    assert diagonal.shape == (at.space.size,) and (diagonal >= 0).all() and diagonal.any()
    monkeypatch.setattr(type(small.domains["qa"]), "score", lambda *_: 0.0)
    assert torch.equal(second_order.fisher_of(small, "qa", at, "qa"), diagonal)
