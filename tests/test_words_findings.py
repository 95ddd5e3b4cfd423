"""Words of chapters 2 to 4 state the numbers they are given, and turn with them."""

import numpy as np
import pandas as pd
import pytest

from crossdomain import paper, words
from crossdomain.stats import Interval
from crossdomain.words import pathways as routes_say
from crossdomain.words import second_order as damage_say
from crossdomain.words import sparsity as edits_say

TITLES = {"math": "Math", "qa": "QA", "cw": "CW"}


def test_numbers_have_a_real_minus_and_their_interval() -> None:
    assert words.number(Interval(-0.125, -0.2, 0.05), 2, sign=True) == "−0.12 [−0.20, 0.05]"
    assert words.number(Interval(0.5, np.nan, np.nan), 1) == "0.5"


def test_a_small_number_is_written_as_zero_only_where_it_may_be() -> None:
    assert words.number(Interval(0.0482, np.nan, np.nan), 1) == "0.05"
    assert words.number(Interval(0.0482, 0.0471, 0.0493), 1) == "0.05 [0.05, 0.05]"
    assert words.number(Interval(-0.0482, -0.3, 0.2), 1) == "0.0 [−0.3, 0.2]"
    assert words.number(Interval(0.0, np.nan, np.nan), 1) == "0.0"
    assert words.number(Interval(1e-9, np.nan, np.nan), 1) == "0.0"


def test_a_mean_over_seeds_leaves_out_what_is_not_known() -> None:
    table = pd.DataFrame({"seed": [0, 0, 1], "x": [1.0, np.nan, 3.0]})
    assert edits_say.by_seed(table, "x").value == 2.0
    assert np.isnan(edits_say.by_seed(table.assign(x=np.nan), "x").value)


def shares(unchanged: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"seed": 0, "subtraction": "float32", "kind": ["paper", "absolute"], "threshold": [np.nan, 0.0],
         "share": [unchanged, 1.0]}
    )  # fmt: skip


NORMS = pd.DataFrame({"seed": [0], "relative_norm": [2.5]})


@pytest.mark.parametrize(("unchanged", "said"), [(3.0, "are **dense**"), (81.0, "as sparse as the paper's")])
def test_edits_are_called_dense_or_sparse_by_what_was_measured(unchanged: float, said: str) -> None:
    text = edits_say.sparse(shares(unchanged), NORMS)
    assert said in text and f"{unchanged:.1f} %" in text and "2.5 %" in text


def overlaps(jaccard: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"seed": 0, "scope": ["global", "within layers"], "jaccard": jaccard, "chance": 0.053, "high": 0.09,
         "layer_chance": 0.06, "layer_high": 0.1}
    )  # fmt: skip


@pytest.mark.parametrize(("jaccard", "said"), [(0.12, "is below the paper's"), (0.3, "is **not** below the paper's")])
def test_overlap_is_compared_with_the_papers_bound(jaccard: float, said: str) -> None:
    text = edits_say.neuron_overlap(overlaps(jaccard), pd.DataFrame(columns=["scope", "jaccard"]))
    assert said in text and "ceiling" in text and f"{paper.value('neuron_jaccard'):g}" in text


def extremes(p: float, patterns: int = 512) -> pd.DataFrame:
    return pd.DataFrame(
        {"seed": 0, "extreme": ["conflict", "synergy"], "cosine": [-0.3, 0.2], "noise": [-0.1, 0.1], "p": p,
         "patterns": patterns}
    )  # fmt: skip


COSINES = pd.DataFrame(
    {
        "seed": [0],
        "a": "math",
        "b": "qa",
        "cosine": -0.04,
        "corrected": np.nan,
        "split_half_a": 0.7,
        "split_half_b": 0.5,
    }
)


def test_module_extremes_are_counted_against_noise_and_power() -> None:
    assert "1 of 1 go beyond noise" in routes_say.gradients(COSINES, extremes(0.001), TITLES)
    text = routes_say.gradients(COSINES, extremes(0.2, patterns=6), TITLES)
    assert "0 of 1 go beyond noise" in text and "this run cannot tell" in text and "noise is too large" in text


def test_a_domain_without_a_gradient_is_named_and_left_out() -> None:
    silent = COSINES.assign(b="cw", cosine=np.nan, split_half_b=np.nan)
    text = routes_say.gradients(pd.concat([COSINES, silent]), extremes(0.001), TITLES)
    assert "1 of 2 pairs and seeds have **no cosine**" in text and f"gradient of {TITLES['cw']} is zero" in text
    assert f"{TITLES['math']} – {TITLES['cw']}" not in text and "nan" not in text
    nothing = routes_say.gradients(silent, extremes(0.001).head(0), TITLES)
    assert "1 of 1 pairs and seeds" in nothing and "nan" not in nothing


def correlations(best: tuple[float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"predictor": ["route", "size"], "correlation": [best[0], 0.4], "low": [best[1], -0.2], "high": [best[2], 0.8]}
    )


@pytest.mark.parametrize(
    ("found", "said"), [((0.8, 0.5, 0.95), "The best predictor is “shared routes”"), ((0.3, -0.2, 0.7), "**None**")]
)
def test_a_predictor_works_only_if_its_interval_says_so(found: tuple[float, float, float], said: str) -> None:
    text = routes_say.prediction(correlations(found), {"route": "shared routes", "size": "size"}, "size")
    assert said in text and "+0.40" in text


@pytest.mark.parametrize(("own", "said"), [(0.4, False), (-0.41, True), (1.5, True)])
def test_shares_of_terms_that_cancel_are_said_to_be_none(own: float, said: bool) -> None:
    cross = pd.DataFrame({"seed": 0, "i": ["a", "a"], "j": ["a", "b"], "value": [own, 1 - own]})
    assert ("no shares of a damage" in damage_say.modules(cross)) == said


def test_a_predictor_that_points_the_wrong_way_is_named() -> None:
    text = routes_say.prediction(correlations((-0.8, -0.9, -0.5)), {"route": "shared routes", "size": "size"}, "size")
    assert "Pointing the wrong way: shared routes" in text


@pytest.mark.parametrize(
    ("second", "said"), [(0.2, "is mainly second order"), (0.001, "is **not** mainly second order")]
)
def test_damage_is_called_second_order_only_where_it_is(second: float, said: str) -> None:
    path = pd.DataFrame(
        {"seed": [0], "t": 1.0, "objective": "exact reward", "data": "Math on 9 test prompts", "first": -0.01,
         "second": second, "predicted": second - 0.01, "actual": 0.15}
    )  # fmt: skip
    captured = pd.DataFrame(
        {"seed": 0, "k": 64, "subspace": ["route", "all parameters", "random in the route"], "inside": 0.05, "actual": 0.15,
         "quadratic_share": [0.1, 0.7, 0.001]}
    )  # fmt: skip
    summary = pd.DataFrame({"seed": [0], "space": "all parameters", "participation_ratio": 7.0})
    found = damage_say.verdicts(
        path, captured, summary, pd.DataFrame(columns=["predictor", "correlation", "low", "high"])
    )
    text = damage_say.in_short(found)
    assert said in text and "70 %" in text and found["prediction"] is None and "no shares of a damage" not in text
    other = path.assign(seed=1, second=0.2 if second < 0.1 else 0.001)
    both = damage_say.verdicts(pd.concat([path, other]), captured, summary, correlations((0.8, 0.5, 0.95)))
    assert "is mainly second order in 1 of 2 seeds" in damage_say.in_short(both)
    none = damage_say.verdicts(path, captured.assign(quadratic_share=-6.0), summary, correlations((0.8, 0.5, 0.95)))
    assert "no shares of a damage" in damage_say.in_short(none)
