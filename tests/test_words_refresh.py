"""Words of chapter 5 state the numbers they are given, and turn with them."""

import numpy as np
import pandas as pd
import pytest

from crossdomain import recovery
from crossdomain.words import recovery as say_recovery
from crossdomain.words import refresh as say

TITLES = {"math": "Math", "qa": "QA"}


def contraction(left: float = 0.3, bound: float = 1.5) -> pd.DataFrame:
    rows = []
    for on, multiple, end in (("math", 1.0, left), ("math", 2.5, 4.0), ("qa", 1.0, 1.1)):
        for space, of in ((recovery.WHOLE, end), (recovery.ROUTE, 0.9), (recovery.RANDOM, 1.0)):
            for step, share in ((0, 1.0), (1, of)):
                known = on == "math" and multiple < 2
                allowed = 2 * bound if space != recovery.RANDOM else 9.0
                rows.append(
                    {"seed": 0, "on": on, "multiple": multiple, "space": space, "k": 4, "step": step, "share": share,
                     "inside": 2 * share, "outside": 3 - step, "along": share, "remainder": 0.05,
                     "bound": allowed if known else np.nan, "paper_bound": 2 * 0.5 if known else np.nan}
                )  # fmt: skip
    return pd.DataFrame(rows)


CURVATURE = pd.DataFrame({"seed": 0, "at": ["before", "after"], "top_eigenvalue": [12.0, 15.0]})
CONSTANTS = pd.DataFrame(
    {"seed": 0, "space": [recovery.WHOLE, recovery.ROUTE], "k": 4, "mu": 1.0, "L": 12.0, "kappa": 0.5, "inside": 2.0,
     "outside": 3.0, "gradient_inside": 0.123}
)  # fmt: skip


def test_what_is_left_is_told_for_every_step_size_and_control() -> None:
    text = say.contraction(contraction(), CURVATURE, "math", TITLES)
    assert "α = 1/λ_max**: 30 % is left" in text and "α = 2.5/λ_max**: 400 %" in text
    assert "random directions: 100 %" in text and "on QA: 110 %" in text and "12.0 at θ_A and 15.0" in text
    assert "Of one seed the update shrinks inside S of all parameters in 1 at 1/λ_max, 0 at 2.5/λ_max" in text
    assert "66.7 % of ‖Qδ‖ remains" in text


def test_losses_are_told_from_the_undamaged_one_and_as_what_came_back() -> None:
    table = pd.DataFrame(
        {"seed": 0, "on": ["math"] * 2 + ["qa"] * 2, "multiple": 1.0, "step": [0, 1] * 2,
         "test_loss": [-0.6, -0.75, -0.6, -0.61], "undamaged": -0.8}
    )  # fmt: skip
    scores = pd.DataFrame(
        {"seed": 0, "on": "math", "multiple": 1.0, "step": [0, 0, 1, 1], "domain": ["math", "qa"] * 2,
         "score": [60.0, 50, 75, 49]}
    )  # fmt: skip
    text = say.losses(table, scores, "math", TITLES)
    assert "starts +0.200 above" in text and "ends +0.050 from it; 75 % of the damage" in text
    assert "on QA: +0.190" in text and "Math +15.0, QA −1.0 points" in text
    assert "of the damage" not in say.losses(table.assign(undamaged=-0.5), scores, "math", TITLES)


def test_no_contraction_is_called_none() -> None:
    assert "at **no** step size" in say.contraction(contraction(left=1.2), CURVATURE, "math", TITLES)


def test_seeds_that_disagree_on_the_contraction_are_counted_and_not_averaged() -> None:
    both = pd.concat([contraction(0.3), contraction(1.1).assign(seed=1)])
    assert "Of 2 seeds the update shrinks inside S of all parameters in 1 at 1/λ_max, 0" in say.contraction(
        both, CURVATURE, "math", TITLES
    )
    trained = both.query("on == 'math' and multiple == 1").assign(own=True)
    found = say_recovery.verdicts(both, trained, beyond(6.0), budget(), COLLATERAL, "math")
    text = say_recovery.in_short(found, TITLES)
    assert "harmful part contracts (not distinguishable from no change); in the route's it contracts" in text


@pytest.mark.parametrize(
    ("left", "bound", "said"),
    [
        (0.3, 1.5, ("vacuous (not below ‖Pδ‖) at 100 %", "The paper's bound holds at 100 % of them.")),
        (0.7, 0.9, ("vacuous (not below ‖Pδ‖) at 0 %", "at 0 % of them: as a bound it does **not** hold")),
    ],
)
def test_bounds_are_called_vacuous_or_broken_where_they_are(left: float, bound: float, said: tuple[str, str]) -> None:
    text = say.bounds(contraction(left, bound), CONSTANTS, "math")
    whole = next(line for line in text.splitlines() if line.startswith("* **all parameters"))
    assert all(part in whole for part in said)
    assert f"Theorem 1 allows {bound:.2f}" in whole and "is 0.123" in text
    assert "within Theorem 1's bound at 100 %" in text


def test_a_subspace_without_positive_curvature_has_no_bound() -> None:
    table = contraction().assign(bound=np.nan, paper_bound=np.nan)
    assert "no bound, since μ is not positive" in say.bounds(table, CONSTANTS, "math")


def budget(ratio: float = 6.0) -> pd.DataFrame:
    return pd.DataFrame(
        {"seed": 0, "rate": 1e-4, "batch": 64, "own": True, "step": [5, 20], "gained": [4.0, 7.0], "others": -0.5,
         "ratio": ratio, "completions_ratio": 4 * ratio, "at_least": False}
    )  # fmt: skip


def test_the_budget_compares_with_first_learning_where_it_can() -> None:
    text = say_recovery.budget(budget(), "Math")
    assert "6.0 times the steps, 24.0 times the completions" in text and "+7.0 points" in text
    assert "its first 5 steps give +4.0 of the 7.0 points" in text
    assert "no comparison" in say_recovery.budget(budget(np.nan), "Math")
    assert "≥ 6.0 times" in say_recovery.budget(budget().assign(at_least=True), "Math")


def test_grpo_refreshes_are_said_to_be_an_observation() -> None:
    table = contraction().query("on == 'math' and multiple == 1").assign(rate=1e-4, batch=64, own=True)
    text = say.grpo(table, budget())
    assert "30 % (90 %; 100 %), +7.0 points" in text and "in 1 of 1 refreshes" in text and "observation" in text


def beyond(more: float) -> pd.DataFrame:
    return pd.DataFrame({"seed": [0], "domain": "math", "own": 8.0, "other": 8 - more, "beyond": more, "best": "qa"})


MATRIX = pd.DataFrame(
    {"seed": 0, "refreshed": ["math", "qa"], "domain": ["math", "math"], "change": [8.0, -3.0], "lost": 9.0}
)


@pytest.mark.parametrize(("more", "said"), [(6.0, "1 of 1 domains (Math)"), (-1.0, "0 of 1 domains.")])
def test_a_refresh_is_selective_only_beyond_all_others(more: float, said: str) -> None:
    text = say_recovery.selectivity(MATRIX, beyond(more), TITLES)
    assert said in text and "QA refresh to Math: −3.0" in text and "had lost 9.0" in text


COLLATERAL = pd.DataFrame(
    {"seed": 0, "domain": "qa", "displacement": [recovery.DESCENT, recovery.GRPO], "norm": 0.1, "actual": [0.02, -0.01],
     "predicted": [0.021, -0.03], "standard_error": 0.005, "bound": [0.2, 0.4]}
)  # fmt: skip


def test_collateral_is_a_share_of_what_is_allowed() -> None:
    text = say_recovery.collateral(COLLATERAL, TITLES)
    assert "holds in 100 % of the rows" in text and "do 5.0 % (median" in text and "in 50 % of them" in text
    assert "more than 1 in 0 % of them" in text
    broken = say_recovery.collateral(COLLATERAL.assign(bound=[0.01, 0.4]), TITLES)
    assert "holds in 50 % of the rows" in broken


@pytest.mark.parametrize(("left", "said"), [(0.3, "part contracts"), (1.4, "does **not** contract")])
def test_the_verdict_follows_what_is_left(left: float, said: str) -> None:
    trained = contraction(0.8).query("on == 'math' and multiple == 1").assign(own=True)
    found = say_recovery.verdicts(contraction(left), trained, beyond(6.0), budget(), COLLATERAL, "math")
    text = say_recovery.in_short(found, TITLES)
    assert said in text and f"leave {100 * left:.0f} %" in text and "on another domain, 110 %" in text
    assert "6.0 times as many steps" in text and "+6.0 points more" in text
    assert "not distinguishable" not in text  # one seed has no interval
    assert found["paper_bound_holds"] == float(left <= 0.5) and found["bound_says_nothing"] == 1.0


def test_a_run_without_another_exact_domain_has_no_such_control() -> None:
    trained = contraction().query("on == 'math' and multiple == 1").assign(own=True)
    alone = contraction().query("on == 'math'")
    found = say_recovery.verdicts(alone, trained, beyond(6.0), budget(np.nan), COLLATERAL, "math")
    text = say_recovery.in_short(found, TITLES)
    assert found["descent_other_domain"] is None and "another domain" not in text and "Cost" not in text
