"""The comparison of methods: equal steps for all, each stage counted once, every method made on the smallest lineage."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
import torch

from crossdomain import alternatives, evaluation, training_free
from crossdomain.alternatives import MIXED, MORE, SEQUENCE
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.objectives import parameters
from crossdomain.profiles import Profile
from crossdomain.store import Store

CHANGES = {
    "stages": ["qa", "cw"],
    "refresh": "qa",
    "steps.cw": 2,
    "steps.qa": 3,
    "curvature_prompts": 6,
    "generations": 2,
    "batch_size": 16,
    "merge_scales": [1],
}


@pytest.fixture(scope="module")
def small(smoke: Profile, base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    store = Store(tmp_path_factory.mktemp("alternatives") / "store")
    shutil.copytree(base.artifact.path, store.root / base.artifact.key)
    return Lineage(smoke.override(CHANGES), 0, store)


@pytest.fixture(scope="module")
def tables(small: Lineage) -> dict[str, pd.DataFrame]:
    return alternatives.study(small)


def test_every_method_is_made_in_both_versions_and_scored_on_every_domain(
    small: Lineage, tables: dict[str, pd.DataFrame]
) -> None:
    counted = tables["scores"].groupby(["method", "longer"])["domain"].agg(list)
    assert set(counted.index) == {
        (key, longer) for key in alternatives.methods(small.profile) for longer in (False, True)
    }
    assert all(domains == ["qa", "cw"] for domains in counted)
    row = tables["scores"].set_index(["method", "longer", "domain"]).loc[(SEQUENCE, True, "qa")]
    assert row["checkpoint"] == "qa-cw-reqa"
    assert row["score"] == pytest.approx(100 * evaluation.test_scores(small, "qa-cw-reqa", ["qa", "cw"])["qa"].mean())


def test_all_methods_have_the_same_steps(tables: dict[str, pd.DataFrame]) -> None:
    steps = tables["costs"].groupby("longer")["steps"].unique()
    assert steps[False].tolist() == [5] and steps[True].tolist() == [7]
    assert (tables["costs"]["seconds"] > 0).all()


def test_what_a_merge_descends_from_are_its_experts(small: Lineage, tables: dict[str, pd.DataFrame]) -> None:
    seconds = {name: small.checkpoint(name).artifact.manifest["core_seconds"] for name in ("qa", "cw", "qa-cw")}
    costs = tables["costs"].set_index(["method", "longer"])["seconds"]
    assert costs[training_free.TIES, False] == pytest.approx(seconds["qa"] + seconds["cw"])
    # The rollback is made of the sequence and of a checkpoint that the sequence descends from: that counts once.
    assert costs[training_free.ROLLBACK, False] == pytest.approx(seconds["qa"] + seconds["qa-cw"])


def test_mixed_training_goes_on_from_where_the_shorter_version_ended(small: Lineage) -> None:
    shorter, longer = (small.checkpoint(name) for name in alternatives.mixed(small))
    assert shorter.key == f"{longer.key}@00005"
    first, second = (parameters(c.model()) for c in (shorter, longer))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    shares = dict(longer.artifact.manifest["inputs"]["schedule"][1])
    assert shares == {"qa": pytest.approx(3 / 5), "cw": pytest.approx(2 / 5)}


def test_the_control_goes_on_with_the_last_domain(small: Lineage, tables: dict[str, pd.DataFrame]) -> None:
    names = tables["scores"].drop_duplicates(["method", "longer"]).set_index(["method", "longer"])["checkpoint"]
    assert names[MORE, True] == "qa-cw-recw" and names[MORE, False] == names[SEQUENCE, False] == "qa-cw"
    assert names[MIXED, False].startswith("base+mixed")


def scores() -> pd.DataFrame:
    rows = [
        {"seed": seed, "method": method, "longer": longer, "domain": domain, "score": value + 10 * seed}
        for method, longer, values in ((SEQUENCE, True, (60, 40)), (SEQUENCE, False, (50, 30)), ("kl", True, (55, 49)))
        for domain, value in zip(("qa", "cw"), values, strict=True)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_a_summary_has_the_mean_and_the_lowest_of_the_domains() -> None:
    keys = scores()[["seed", "method", "longer"]].drop_duplicates()
    table = alternatives.summary(scores(), keys.assign(steps=5, seconds=1.5))
    row = table.set_index(["seed", "method", "longer"]).loc[(1, "kl", True)]
    assert (row["average"], row["worst"], row["seconds"]) == (62, 59, 1.5)


def test_differences_are_taken_seed_by_seed() -> None:
    keys = scores()[["seed", "method", "longer"]].drop_duplicates()
    table = alternatives.summary(scores(), keys.assign(steps=5, seconds=1.5))
    longer = alternatives.against(table, "average").query("longer").groupby("method")["difference"].agg(list)
    assert longer.to_dict() == {SEQUENCE: [0, 0], "kl": [2, 2]}
    shorter = alternatives.against(table, "worst", longer=False).query("longer")
    assert shorter.loc[shorter["method"] == "kl", "difference"].tolist() == [19, 19]


def test_a_cost_that_cannot_be_traced_is_said(small: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    small.checkpoint("qa-cw")
    monkeypatch.setattr(Store, "find", lambda self, key: None)
    with pytest.raises(FileNotFoundError, match="run the chapter again"):
        alternatives.cost(small, "qa-cw")
