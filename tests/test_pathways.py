"""Chapter 3's study on the smallest lineage."""

import numpy as np
import pandas as pd
import pytest
import torch

from crossdomain import directions, objectives, pairs, pathways
from crossdomain.lineage import Lineage


@pytest.fixture(scope="module")
def small(lineage: Lineage) -> Lineage:
    """Two domains of the session's lineage, one after the other."""
    return lineage.variant({"stages": ["qa", "cw"], "refresh": "qa", "pair_steps": 4})


def flat(lineage: Lineage, name: str) -> torch.Tensor:
    model = lineage.checkpoint(name).model()
    return torch.cat([p.flatten() for p in objectives.parameters(model).values()]).double()


def test_updates_have_the_cosine_of_the_flat_differences(small: Lineage) -> None:
    found = pathways.expert_updates(small)
    qa, cw = (flat(small, name) - flat(small, "base") for name in ("qa", "cw"))
    cosine = (qa @ cw / qa.norm() / cw.norm()).item()
    assert directions.cosines(found.values.total())[0, 1] == pytest.approx(cosine, abs=1e-6)
    moved = (qa != 0) & (cw != 0)
    agree = (qa.sign() == cw.sign())[moved].double().mean().item()
    assert directions.agreement(found.signs.total(), found.moved.total())[0, 1] == pytest.approx(agree, abs=1e-9)


def test_stages_follow_each_other(small: Lineage) -> None:
    found = pathways.stage_updates(small).values.total()
    second = flat(small, "qa-cw") - flat(small, "qa")
    assert np.sqrt(found[1, 1]) == pytest.approx(second.norm().item(), rel=1e-6)


def test_gradients_are_of_all_domains_in_parts_and_their_means(small: Lineage) -> None:
    found = pathways.gradient_grams(small, "base")
    parts = small.profile.gradient_splits
    assert found.parts.labels == [f"{d}/{k}" for d in ("qa", "cw") for k in range(parts)]
    assert found.means.labels == ["qa", "cw"] and set(found.means.units) == {"neuron", "head", "group"}
    gram = found.parts.total()
    mean = gram[:parts, :parts].mean()
    assert found.means.total()[0, 0] == pytest.approx(mean, rel=1e-4)
    tables = pathways.gradient_tables([small])
    assert len(tables.pairs) == 1 and len(tables.extremes) == 2 and tables.pairs["seed"].tolist() == [0]


def test_overlap_and_stability_cover_every_score_kind_share_and_moment(small: Lineage) -> None:
    moments = {"first": ["base"], "last": ["qa-cw"]}
    overlaps, stability = pathways.route_overlaps([small], moments), pathways.route_stability([small], moments)
    keys = ["at", "score", "kind", "share"]
    assert len(overlaps) == len(overlaps[keys].drop_duplicates()) == 2 * 3 * 2 * 3
    assert set(stability["across"]) == {"prompt halves"} and len(stability) == 2 * len(overlaps)
    shown, own = pathways.overlap_panels(overlaps, stability)
    assert set(shown["panel"]) == {"first", "last"} and set(own["label"]) == {"qa", "cw"}


def test_a_route_is_compared_across_seeds_of_one_base_once_they_were_trained(small: Lineage) -> None:
    other = Lineage(small.profile, 1, small.store)
    found = pathways.route_stability([small, other], {"first": ["base"] * 2, "last": ["qa"] * 2})
    across = found[found["across"] == "seeds"]
    assert set(across["at"]) == {"last"} and set(across["seed"]) == {"0 1"}
    assert across["jaccard"].between(0, 1).all()


def test_directions_on_and_off_the_route_lie_beside_random_routes(small: Lineage) -> None:
    found = pathways.update_directions([small]).set_index("of")
    assert list(found.index) == ["experts", "stages"]
    assert (found["random_low"] <= found["random"]).all() and (found["random"] <= found["random_high"]).all()
    assert found[["on_route", "off_route", "everywhere"]].abs().le(1).all().all()


def test_predictors_know_nothing_of_what_was_trained_after_a(small: Lineage) -> None:
    found = pairs.predictors([small])
    assert found[["a", "b"]].to_numpy().tolist() == [["qa", "cw"], ["cw", "qa"]]
    assert set(pairs.PREDICTORS) <= set(found.columns)
    assert found["update_conflict"][0] == found["update_conflict"][1]  # the experts' updates do not know an order
    norms = {b: (flat(small, pairs.alone(small, b)) - flat(small, "base")).norm().item() for b in ("qa", "cw")}
    assert found["update_norm"].tolist() == pytest.approx([norms["cw"], norms["qa"]], rel=1e-6)
    used = {path.name for path in small.store.root.iterdir()}
    assert not any(name.startswith(("qa-cw_", "cw-qa_")) for name in used)


def test_damage_is_what_the_second_domain_takes_from_the_first(small: Lineage) -> None:
    found = pairs.damages([small]).set_index(["a", "b"])
    from crossdomain import evaluation

    before = evaluation.test_scores(small, "qa", ["qa", "cw"])["qa"].mean()
    after = evaluation.test_scores(small, pairs.after(small, "qa", "cw"), ["qa", "cw"])["qa"].mean()
    assert found.loc[("qa", "cw"), "damage"] == pytest.approx(100 * (before - after), abs=1e-9)
    assert isinstance(found, pd.DataFrame) and len(found) == 2
