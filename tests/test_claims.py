"""The claims: complete as data, and judged rightly on results that are known to have them or not."""

import re
from collections.abc import Callable

import pandas as pd
import pytest
from docutils.nodes import make_id

from crossdomain import claims, paths, rules, staging
from crossdomain.claims import CLAIMS
from crossdomain.evidence import ClaimError, Evidence
from crossdomain.profiles import load_profile
from crossdomain.rules import NOT_REPRODUCED, NOT_TESTABLE, PARTLY, REPRODUCED, Finding
from synthetic_results import changed, tables

Tables = dict[str, pd.DataFrame]
ALL = frozenset(f"{number:02}" for number in range(1, 9))
BY_ID = {claim.id: claim for claim in CLAIMS}


def judged(claim: str, found: Tables) -> Finding:
    return rules.judge(BY_ID[claim], Evidence(found, load_profile("cpu"), ALL))


@pytest.mark.parametrize("claim", BY_ID)
def test_a_study_that_shows_all_of_it_reproduces_a_claim(claim: str) -> None:
    found = judged(claim, tables())
    assert (found.verdict, {outcome.holds for outcome in found.outcomes}) == (REPRODUCED, {True}), found.reason


def edit(name: str, column: str, value: float | None = None, **where: object) -> Callable[[Tables], Tables]:
    return lambda found: {**found, name: changed(found[name], column, value, **where)}


@pytest.mark.parametrize(
    ("claim", "fault", "verdict", "said"),
    [
        ("C1", edit("unchanged", "share", 3.0, kind="paper"), PARTLY, "in float32 is 3.0"),
        ("C2", edit("neuron_overlap", "jaccard", 0.25, scope="global"), PARTLY, "all layers together is 0.25"),
        ("C2", edit("neuron_stability", "jaccard", 0.15), NOT_REPRODUCED, "(control)"),
        ("C3", edit("gradient_extremes", "p", 0.01), PARTLY, "conflicting matrix beyond noise is 0.00"),
        ("C3", edit("gradient_pairs", "split_half_a", -0.3), NOT_REPRODUCED, "with itself (split half)"),
        ("C3", edit("changes", "change", 4.0, step="CW", domain="math"), PARTLY, "lost to later stages is"),
        ("C4", edit("route_overlap", "jaccard", 0.1, at="in the base"), PARTLY, "in the base is 1.25"),
        ("C4", edit("route_overlap", "layer_high", 0.6), NOT_REPRODUCED, "beyond the 95 % band"),
        ("C5", edit("pair_predictors", "route_update_conflict"), NOT_REPRODUCED, "is −1.00"),
        ("C5", edit("update_directions", "on_route", 0.0), PARTLY, "band of random routes is 0.00"),
        ("C6", edit("damage_path", "first", -0.3), PARTLY, "less that of the first is −"),
        ("C6", edit("damage_controls", "actual", 0.2, direction="random, same norms"), NOT_REPRODUCED, "shuffled updates"),
        ("C7", edit("concentration_captured", "quadratic_share", 0.03, subspace="route"), PARTLY, "shared route is 0.03"),
        ("C7", edit("concentration_captured", "quadratic_share", 0.9, subspace="random"), NOT_REPRODUCED, "many random"),
        ("C8", edit("refresh_contraction", "inside", 0.6, space="route", step=2), PARTLY, "shared route is 0.57"),
        ("C8", edit("refresh_contraction", "paper_bound", 0.1), PARTLY, "over the paper's bound"),
        ("C8", edit("refresh_contraction", "inside", 0.1, on="qa", step=2), NOT_REPRODUCED, "descent on another domain"),
        ("C8", edit("refresh_grpo", "inside", 1.3, step=20, own=True), PARTLY, "by GRPO is 1."),
        ("C10", edit("rollback_frontier", "regained", -1.0, percent=1.0), PARTLY, "on 1 % of the parameters by"),
        ("C10", edit("rollback_damages", "damage", 12.0), PARTLY, "beyond a quarter of the damage is −"),
        ("C10", edit("rollback_frontier", "regained", 2.5, score="magnitude"), NOT_REPRODUCED, "largest coordinates"),
        ("C11", edit("alternating_deviations", "relative", 0.3, order="A first"), PARTLY, "of that step is 30.0"),
        ("C11", edit("alternating_deviations", "relative", 0.06, order="B alone"), NOT_REPRODUCED, "two steps on one loss"),
        ("C11", edit("alternating_descents", "held_out_b", 0.0, way="A first", cycle=2), NOT_REPRODUCED, "loss alone"),
        ("C11", edit("alternating_descents", "min_norm", 2.0, way="A first", cycle=2), PARTLY, "shortest combination"),
        ("C9", edit("scores", "score", 90.0, role="control: refresh Code"), PARTLY, "less the best of all other"),
        ("C9", edit("refresh_by_prompt", "change", 9.0, step=staging.ADAM_RESTART), NOT_REPRODUCED, "Adam restart"),
        ("C9", edit("refresh_by_prompt", "change", 9.0, step="control: refresh QA", seed=5), NOT_REPRODUCED, "the best"),
    ],
)  # fmt: skip
def test_a_study_that_lacks_something_is_judged_by_it(
    claim: str, fault: Callable[[Tables], Tables], verdict: str, said: str
) -> None:
    found = judged(claim, fault(tables()))
    assert found.verdict == verdict
    assert said in found.reason


@pytest.mark.parametrize("claim", BY_ID)
def test_a_chapter_that_was_not_run_leaves_its_claims_untested(claim: str) -> None:
    found = rules.judge(BY_ID[claim], Evidence({}, load_profile("cpu"), frozenset()))
    assert found.verdict == NOT_TESTABLE and "was not run" in found.reason


@pytest.mark.parametrize("claim", BY_ID)
def test_a_table_without_its_columns_is_an_error(claim: str) -> None:
    broken = {name: pd.DataFrame({"seed": [0]}) for name in tables()}
    with pytest.raises(ClaimError, match="no column"):
        judged(claim, broken)


@pytest.mark.parametrize("claim", BY_ID)
def test_one_seed_is_judged_by_its_values(claim: str) -> None:
    found = {name: table[table["seed"] == 4] for name, table in tables().items() if name != "neuron_stability"}
    found["neuron_stability"] = tables()["neuron_stability"].iloc[:0]
    verdict = judged(claim, found).verdict
    assert verdict == (PARTLY if claim == "C2" else REPRODUCED)  # no second seed, so no overlap with itself


def test_the_claims_of_the_paper_are_all_there_in_order() -> None:
    assert [claim.id for claim in CLAIMS] == [f"C{number}" for number in range(1, 12)]


@pytest.mark.parametrize("claim", CLAIMS, ids=list(BY_ID))
def test_a_claim_is_complete_and_its_links_lead_somewhere(claim: rules.Claim) -> None:
    assert claim.statement.endswith(".") and claim.paper and claim.source
    assert any(not rule.control for rule in claim.rules)
    assert any(rule.control for rule in claim.rules) or claim.id == "C1"
    assert len({rule.what for rule in claim.rules}) == len(claim.rules)
    assert (paths.root() / "tests" / claim.tests).is_file()
    source = (paths.root() / "notebooks" / f"{claim.chapter}.py").read_text()
    headings = {make_id(heading) for heading in re.findall(r"^# #+ (.*)$", source, re.MULTILINE)}
    assert claim.anchor in headings | {*re.findall(r"^# \((.*)\)=$", source, re.MULTILINE)}
    assert f'run.figure("{claim.figure}")' in source


def test_no_reported_seed_was_used_for_anything_else() -> None:
    reported = {*claims.REPORTED_SEEDS}
    assert len(reported) >= 5 and not reported & {*claims.QUICK_SEEDS} and max(reported) < claims.SETTINGS_FROM
    profile = load_profile("cpu")
    bases = {profile.base_seed(seed) for seed in reported}
    assert len(bases) >= 3
    assert not bases & {profile.base_seed(seed) for seed in range(claims.SETTINGS_FROM, claims.SETTINGS_FROM + 100)}
