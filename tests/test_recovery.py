"""Chapter 5's studies on the smallest lineage: what they report is what the checkpoints give."""

import numpy as np
import pandas as pd
import pytest

from crossdomain import curvature, evaluation, recovery, refresh_variants, second_order
from crossdomain.lineage import Lineage


@pytest.fixture(scope="module")
def small(lineage: Lineage) -> Lineage:
    """QA, then CW: the refreshed domain has one right answer, and a refresh has steps after its warm-up."""
    changes = {
        "stages": ["qa", "cw"],
        "refresh": "qa",
        "refresh_steps": 4,
        "refresh_snapshot_every": 2,
        "descent_steps": 2,
        "curvature_prompts": 12,
        "test_prompts": 20,
    }
    return lineage.variant(changes)


@pytest.fixture(scope="module")
def tables(small: Lineage) -> dict[str, pd.DataFrame]:
    return recovery.refreshes(small)


def test_a_descent_starts_at_the_damaged_policy_and_ends_where_its_losses_say(
    small: Lineage, tables: dict[str, pd.DataFrame]
) -> None:
    descent = tables["descent"]
    before, after = (second_order.point(small, name) for name in ("qa", "qa-cw"))
    for split, column in (("train", "train_loss"), ("test", "test_loss")):
        loss = second_order.loss_of(small, "qa", before, "qa", split)
        starts = descent.loc[descent["step"] == 0, column]
        np.testing.assert_allclose(starts, loss.value(after.params).value, rtol=1e-5)
    assert descent["undamaged"].unique() == pytest.approx(loss.value(before.params).value)
    shortest = descent[descent["multiple"] == min(recovery.MULTIPLES)]
    assert shortest["train_loss"].is_monotonic_decreasing
    top = tables["curvature"].set_index("at").loc["before", "top_eigenvalue"]
    np.testing.assert_allclose(descent["alpha"] * top, descent["multiple"], rtol=1e-6)


def test_distances_are_taken_from_the_checkpoint_before_the_damage(
    small: Lineage, tables: dict[str, pd.DataFrame]
) -> None:
    delta = second_order.update(small, "qa", "qa-cw")
    own = tables["grpo"].query("own and step == 4 and space == 'all parameters'")
    end = second_order.update(small, "qa", "qa-cw-reqa")
    np.testing.assert_allclose(np.hypot(own["inside"], own["outside"]), end.norm(), rtol=1e-4)
    for name in ("contraction", "grpo"):
        start = tables[name][tables[name]["step"] == 0]
        np.testing.assert_allclose(np.hypot(start["inside"], start["outside"]), delta.norm(), rtol=1e-4)
        np.testing.assert_allclose(start[["share", "along"]], 1, rtol=1e-6)


def test_constants_and_the_bound_hold_on_leading_directions(tables: dict[str, pd.DataFrame]) -> None:
    constants = tables["constants"].set_index(["space", "k"])
    assert (constants.loc[["all parameters", "route"], "mu"] > 0).all()
    whole = constants.loc["all parameters"]
    assert (whole["kappa"] < 0.1 * whole["L"]).all()  # they are nearly eigenvectors
    assert (constants.loc["route", "kappa"] > whole["kappa"]).all()
    assert set(tables["contraction"]["space"]) == {recovery.WHOLE, recovery.ROUTE, recovery.RANDOM}
    bounded = tables["contraction"].dropna(subset=["bound"])
    assert (bounded["inside"] <= bounded["bound"] * (1 + 1e-4)).all() and len(bounded)
    beyond = tables["contraction"].query("multiple == 2.5 and space == 'all parameters'")
    assert beyond["bound"].isna().all()  # α > 2/L


def test_collateral_is_of_the_other_domain_where_the_refresh_starts(
    small: Lineage, tables: dict[str, pd.DataFrame]
) -> None:
    found = tables["collateral"].set_index("displacement")
    assert found["domain"].eq("cw").all() and list(found.index) == [
        recovery.DESCENT,
        recovery.GRPO,
        recovery.ANYWHERE,
    ]
    moved = second_order.update(small, "qa-cw", "qa-cw-reqa").norm().item()
    assert found.loc[[recovery.GRPO, recovery.ANYWHERE], "norm"].tolist() == pytest.approx([moved, moved], rel=1e-4)
    fewer = small.variant({"curvature_prompts": 3})
    at = second_order.point(small, "qa-cw")
    loss = second_order.loss_of(fewer, "qa-cw", at, "cw", "test")
    norm = curvature.gradient(loss, at.params).norm().item()
    np.testing.assert_allclose(found["gradient_norm"], norm, rtol=1e-4)


def test_scores_along_descents_are_those_of_the_curves_prompts(small: Lineage, tables: dict[str, pd.DataFrame]) -> None:
    start = tables["domains"].query("step == 0 and domain == 'qa'")["score"]
    curve = evaluation.curve(small, "qa-cw-reqa").query("step == 0 and domain == 'qa'")["score"]
    np.testing.assert_allclose(start, 100 * curve.iloc[0], rtol=1e-4)
    assert sorted(tables["domains"]["step"].unique()) == [0, 2]


def test_variants_start_from_the_same_policy_and_the_profiles_own_is_chapter_ones(small: Lineage) -> None:
    made = refresh_variants.variants(small)
    own, *others = made
    assert own.own and not any(variant.own for variant in others)
    assert {(v.rate, v.batch) for v in made} == {(5e-5, 16), (5e-5, 32), (1e-4, 16), (1e-4, 32)}
    assert own.lineage.checkpoint(own.name).key == small.checkpoint("qa-cw-reqa").key
    damaged = small.checkpoint("qa-cw").key
    for variant in others:
        inputs = variant.lineage.checkpoint(variant.name).artifact.manifest["inputs"]
        assert inputs["parent"] == damaged
        assert (inputs["learning_rate"], inputs["settings"]["batch_size"]) == (variant.rate, variant.batch)
    assert len({variant.lineage.checkpoint(variant.name).key for variant in made}) == 4
    assert own.points() == {0: "qa-cw", 2: "qa-cw-reqa@2", 4: "qa-cw-reqa"}


def test_batches_are_whole_groups(small: Lineage) -> None:
    odd = small.variant({"refresh_batches": [0.01, 0.3], "refresh_rates": [1]})
    assert [variant.batch for variant in refresh_variants.variants(odd)] == [32, 4, 8]


def test_the_budget_counts_from_the_damaged_score(small: Lineage) -> None:
    found = refresh_variants.budget([small])
    own = found[found["own"]].set_index("step")
    curve = evaluation.curve(small, "qa-cw-reqa").query("domain == 'qa'").set_index("step")["score"]
    assert own.loc[4, "gained"] == pytest.approx(100 * (curve[4] - curve[0]))
    assert found["completions"].tolist() == (found["step"] * found["batch"]).tolist()
    assert found.groupby(["rate", "batch"])["step"].apply(list).tolist() == [[2, 4]] * 4


@pytest.mark.parametrize(
    ("start", "reached", "steps", "bound"),
    [(0.2, 0.5, 15.0, False), (0.25, 0.95, 22.5, True), (0.5, 0.4, np.nan, False), (0.05, 0.5, np.nan, False)],
)
def test_first_learning_is_read_off_its_curve(start: float, reached: float, steps: float, bound: bool) -> None:
    learning = pd.DataFrame({"step": [0, 10, 20, 30], "score": [0.1, 0.3, 0.5, 0.9]})
    needed, at_least = refresh_variants._first_learning(learning, start, reached)
    assert (needed, at_least) == (pytest.approx(steps, nan_ok=True), bound)
