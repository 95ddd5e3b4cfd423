import pytest
import torch

from crossdomain import anatomy, concentration, rollback, rollback_sets, second_order
from crossdomain.lineage import Lineage
from crossdomain.rollback_sets import Chosen


@pytest.fixture(scope="module")
def small(lineage: Lineage) -> Lineage:
    return lineage.variant({"stages": ["qa", "cw"], "refresh": "qa", "curvature_prompts": 12})


@pytest.fixture(scope="module")
def found(small: Lineage) -> tuple[second_order.Point, torch.Tensor, list[Chosen]]:
    (case,) = rollback_sets.cases(small)
    at, delta = second_order.point(small, "qa"), second_order.update(small, "qa", "qa-cw")
    return at, delta, list(rollback_sets.chosen_sets(small, case, at, delta))


def test_the_papers_sequence_has_the_pair_and_the_main_case(lineage: Lineage) -> None:
    pair, main = rollback_sets.cases(lineage)
    assert pair == (rollback_sets.NEXT, "math", "code-math", "code-math", "code-math-qa", ("qa",))
    assert main == (rollback_sets.ALL, "math", "code-math", "code-math", "code-math-qa-cw", ("qa", "cw"))


def test_pairs_are_every_domain_with_every_later_stage(lineage: Lineage) -> None:
    pairs = {case.label: case for case in rollback_sets.ordered_pairs(lineage)}
    assert list(pairs) == ["code–math", "code–qa", "code–cw", "math–qa", "math–cw", "qa–cw"]
    assert pairs["code–cw"][1:] == ("code", "code", "code-math-qa", "code-math-qa-cw", ("cw",))


def test_every_score_has_every_size_and_controls_have_their_draws(small: Lineage, found) -> None:  # type: ignore[no-untyped-def]
    _, delta, sets = found
    keys = [(chosen.score, chosen.percent, chosen.draw) for chosen in sets]
    single = {*rollback_sets.LEADING, *rollback_sets.FILTERS, rollback_sets.REWARD} - {rollback_sets.RANDOM}
    percents, draws = small.profile.rollback_percents, range(small.profile.rollback_draws)
    expected = [(score, percent, 0) for score in single for percent in percents]
    expected += [
        (s, p, draw) for s in (rollback_sets.RANDOM, rollback_sets.MATCHED) for p in percents for draw in draws
    ]
    assert sorted(keys) == sorted(expected)
    for chosen in sets:
        assert len(chosen.coordinates.unique()) == len(chosen.coordinates)
        if chosen.score not in (*rollback_sets.FILTERS, rollback_sets.MATCHED):
            assert len(chosen.coordinates) == max(1, round(chosen.percent / 100 * len(delta)))


def test_filters_keep_to_their_coordinates(small: Lineage, found) -> None:  # type: ignore[no-untyped-def]
    at, delta, sets = found
    (case,) = rollback_sets.cases(small)
    own = second_order.update(small, "base", "qa")
    route = concentration.shared_route(small, case.learned, at, case.domain, case.later)
    assert 0 < route.sum() < len(delta)
    names = [name for name, shape in at.space.shapes.items() for _ in range(shape.numel())]
    for chosen in sets:
        coordinates = chosen.coordinates
        if chosen.score in (rollback_sets.OPPOSITE, rollback_sets.BOTH):
            assert rollback.opposing(delta, own)[coordinates].all()
        if chosen.score in (rollback_sets.ROUTE, rollback_sets.BOTH):
            assert route[coordinates].all()
        if chosen.score in (rollback_sets.ATTENTION, rollback_sets.MLP):
            blocks = {anatomy.place(names[i]).block for i in coordinates.tolist()}
            assert blocks == {"attention" if chosen.score == rollback_sets.ATTENTION else "mlp"}


def test_random_sets_of_the_same_norm_are_as_long_as_the_fishers(found) -> None:  # type: ignore[no-untyped-def]
    _, delta, sets = found
    lengths = {
        (chosen.score, chosen.percent): float(delta[chosen.coordinates].norm()) for chosen in sets if chosen.draw == 0
    }
    for (score, percent), length in lengths.items():
        if score == rollback_sets.MATCHED:
            assert length == pytest.approx(lengths[rollback_sets.FISHER, percent], rel=0.02)
    largest = max(percent for _, percent in lengths)  # few coordinates may be long by chance
    assert lengths[rollback_sets.RANDOM, largest] < lengths[rollback_sets.FISHER, largest]
