"""Orders share their prefixes, and predictions rank them as their sums say."""

from __future__ import annotations

import shutil
from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from crossdomain import evaluation, orders
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.profiles import Profile
from crossdomain.store import Store

NAMES = ["code", "math", "qa", "cw"]


def pair_table(values: dict[tuple[str, str], float]) -> pd.DataFrame:
    rows = [{"a": a, "b": b, **dict.fromkeys(orders.PREDICTORS, value)} for (a, b), value in values.items()]
    return pd.DataFrame(rows)


def ordered(lost: list[float]) -> pd.DataFrame:
    names = ["-".join(order) for order in permutations(NAMES)]
    return pd.DataFrame({"order": names, "lost": lost, "average": -np.array(lost)})


def random_pairs(seed: int) -> dict[tuple[str, str], float]:
    rng = np.random.default_rng(seed)
    return {pair: float(rng.normal()) for pair in permutations(NAMES, 2)}


def test_four_domains_have_24_orders_and_64_stages(smoke: Profile, store: Store) -> None:
    lineage = Lineage(smoke, 0, store)
    assert len(orders.orders(lineage)) == 24 and orders.orders(lineage)[0] == ("code", "math", "qa", "cw")
    names = orders.prefixes(lineage)
    assert len(names) == len(set(names)) == 64
    made: set[str] = set()
    for name in names:  # shorter ones first: every stage finds its parent
        assert lineage.stage(name).parent in {"base", *made}
        made.add(name)
    assert set(lineage.sequence[1:]) <= made


def test_orders_are_trained_only_where_they_are_asked_for(smoke: Profile, store: Store) -> None:
    profile = smoke.override({"orders_seeds": [1, 3]})
    lineages = [Lineage(profile, seed, store) for seed in (0, 1, 2)]
    assert [lineage.seed for lineage in orders.asked(lineages)] == [1]


def test_an_orders_sum_is_over_what_comes_later() -> None:
    damages = {("a", "b"): 1.0, ("a", "c"): 10.0, ("b", "c"): 100.0, ("b", "a"): 1e3, ("c", "a"): 1e4, ("c", "b"): 1e5}
    assert orders.summed(("a", "b", "c"), damages) == 111
    assert orders.summed(("c", "a", "b"), damages) == 1 + 1e4 + 1e5


def test_sums_that_are_the_loss_rank_perfectly_and_their_relabellings_do_not() -> None:
    values = random_pairs(0)
    lost = [orders.summed(order, values) for order in permutations(NAMES)]
    found = orders.foreseen(ordered(lost), pair_table(values))
    row = found["ranking"].set_index("predictor").loc["predicted"]
    assert (row["correlation"], row["with_average"]) == (pytest.approx(1), pytest.approx(1))
    assert row["p"] == pytest.approx(1 / 24)
    np.testing.assert_allclose(found["sums"]["predicted"], lost)


def test_a_prediction_with_the_wrong_sign_is_beaten_by_all_relabellings() -> None:
    values = random_pairs(1)
    lost = [-orders.summed(order, values) for order in permutations(NAMES)]
    row = orders.foreseen(ordered(lost), pair_table(values))["ranking"].iloc[0]
    assert (row["correlation"], row["p"]) == (pytest.approx(-1), pytest.approx(1))


def test_a_predictor_that_does_not_vary_has_no_rank() -> None:
    found = orders.foreseen(ordered(list(range(24))), pair_table(dict.fromkeys(permutations(NAMES, 2), 1.0)))
    assert found["ranking"][["correlation", "p"]].isna().all(axis=None)


def test_scores_of_orders_are_those_of_their_checkpoints(
    smoke: Profile, base: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store(tmp_path_factory.mktemp("orders") / "store")
    shutil.copytree(base.artifact.path, store.root / base.artifact.key)
    lineage = Lineage(smoke.override({"stages": ["qa", "cw"], "refresh": "qa", "steps.cw": 2}), 0, store)
    scores = orders.study(lineage)["scores"]
    assert len(scores) == 2 * 2 * 2  # orders, versions, domains
    last = scores[(scores["later"] == 0) & ~scores["refreshed"]]
    np.testing.assert_allclose(last["lost"], 0, atol=1e-9)
    found = scores.set_index(["order", "refreshed", "domain"]).sort_index()
    expected = evaluation.test_scores(lineage, "cw-qa-reqa", ["qa", "cw"])["qa"].mean()
    assert found.loc[("cw-qa", True, "qa"), "score"] == pytest.approx(100 * expected)
    own = evaluation.test_scores(lineage, "qa", ["qa"]).mean()
    lost = own - evaluation.test_scores(lineage, "qa-cw", ["qa", "cw"])["qa"].mean()
    assert found.loc[("qa-cw", False, "qa"), "lost"] == pytest.approx(100 * lost, abs=1e-9)
    table = orders.summary(scores.assign(seed=0)).set_index(["order", "refreshed"]).sort_index()
    assert table.loc[("qa-cw", False), "average"] == pytest.approx(found.loc[("qa-cw", False), "score"].mean())
    stages = [a for a in store.artifacts() if a.manifest["inputs"]["kind"] == "stage"]
    assert len(stages) == 4 + 2  # prefixes, refreshes
