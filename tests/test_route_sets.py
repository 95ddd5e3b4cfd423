"""Sets of active units of the smallest lineage, against `routes.active` on scores taken anew."""

import pytest

from crossdomain import rollouts, route_sets, routes
from crossdomain.lineage import Lineage
from crossdomain.overlap import jaccard


@pytest.fixture(scope="module")
def small(lineage: Lineage) -> Lineage:
    """Two domains of the session's lineage."""
    return lineage.variant({"stages": ["qa", "cw"], "refresh": "qa"})


def test_routes_of_a_kind_have_the_share_asked_for(small: Lineage) -> None:
    for share in route_sets.SHARES:
        route = route_sets.active_routes(small, "base", share)["qa"]
        neurons = route[route.index.get_level_values("kind") == routes.NEURON]
        assert neurons.sum() == round(share * len(neurons))


def test_sets_are_those_of_the_scores(small: Lineage) -> None:
    checkpoint, made = small.checkpoint("base"), small.domains["cw"]
    model, items = checkpoint.model(), made.items("test")[: small.profile.route_prompts]
    answers = rollouts.sample_rollouts(
        model, checkpoint.tokenizer(), small.profile, made, items, split="test", samples=1, seed=small.seed
    )
    scores = routes.route_scores(
        model, checkpoint.tokenizer().pad_token_id, answers.prompts, answers.responses, attribution=True
    )
    parts = {route_sets.WHOLE: routes.mean_over_halves(scores)}
    parts |= {str(half): rows for half, rows in scores.groupby("half")}
    for part, rows in parts.items():
        found = route_sets.active_sets(small, "base", part)
        assert len(found) == 3 * 2 * 3
        for (score, kind, share), by_domain in found.items():
            assert list(by_domain) == ["qa", "cw"]
            expected = routes.active(rows, share, score=score)
            expected = expected[expected.index.get_level_values("kind") == kind]
            # Batches of another size round otherwise: a unit at the edge may change places.
            assert jaccard(by_domain["cw"].to_numpy(), expected.to_numpy()) > 0.9, (part, score, kind, share)


def test_larger_shares_contain_smaller_ones(small: Lineage) -> None:
    found = route_sets.active_sets(small, "base", "1")
    for (score, kind, share), by_domain in found.items():
        for larger in route_sets.SHARES:
            if larger > share:
                assert (by_domain["qa"] <= found[score, kind, larger]["qa"]).all()


def test_a_share_that_is_not_kept_is_refused(small: Lineage) -> None:
    with pytest.raises(ValueError, match=r"share = 0\.3: expected one of 0\.05, 0\.1, 0\.2"):
        route_sets.active_routes(small, "base", 0.3)
