"""Figures of chapters 2 to 4 draw the data they are given."""

import numpy as np
import pandas as pd
import pytest

from crossdomain import paper
from crossdomain.plots import pathways as routes_draw
from crossdomain.plots import second_order as damage_draw
from crossdomain.plots import sparsity as edits_draw

TITLES = {"math": "Math", "qa": "QA"}


def texts(axis) -> list[str]:  # type: ignore[no-untyped-def]
    return [text.get_text() for text in axis.texts]


def test_unchanged_shares_lie_beside_the_papers_band() -> None:
    rows = [
        {"kind": kind, "subtraction": "float32", "threshold": t, "domain": "math", "seed": seed, "share": 10 * seed + i}
        for kind in ("absolute", "relative")
        for i, t in enumerate((0.0, 1e-7))
        for seed in (0, 1)
    ]
    axes = edits_draw.unchanged_shares(pd.DataFrame(rows), TITLES).axes
    band = axes[0].patches[0].get_extents().transformed(axes[0].transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((paper.value("unchanged_low"), paper.value("unchanged_high")))
    bold = next(line for line in axes[1].lines if line.get_label() == "Math")
    assert np.asarray(bold.get_ydata()).tolist() == [5.0, 6.0]


def test_a_heatmap_of_overlaps_has_chance_below_each_value_and_a_set_with_itself_on_the_diagonal() -> None:
    pairs = pd.DataFrame(
        {"panel": "global", "a": ["qa", "qa"], "b": ["math", "math"], "jaccard": [0.2, 0.4], "chance_text": "0.05"}
    )
    own = pd.DataFrame({"panel": ["global"], "label": ["math"], "jaccard": [0.8]})
    axis = edits_draw.overlap_heatmaps(pairs, own, TITLES).axes[0]
    assert {"0.30\n(0.05)", "itself\n0.80"} <= set(texts(axis))


def test_routes_are_drawn_with_what_all_domains_share() -> None:
    index = pd.MultiIndex.from_product([["neuron"], [0, 1], range(3)], names=["kind", "layer", "index"])
    index = index.append(pd.MultiIndex.from_product([["head"], [0, 1], range(2)], names=index.names))
    math = pd.Series([True, False, True, False, False, False, True, False, False, False], index=index)
    qa = pd.Series([True, True, False, False, False, False, False, True, False, False], index=index)
    axes = routes_draw.routes({"math": math, "qa": qa}, TITLES).axes
    assert axes[0].images[0].get_array().tolist() == [[2, 0, 1], [0, 0, 0]]
    assert axes[3].images[0].get_array().tolist() == [[0, 1], [0, 0]]


def test_the_damage_matrix_has_the_hurt_domain_in_the_row() -> None:
    damage = pd.DataFrame({"seed": [0, 1], "a": "math", "b": "qa", "damage": [2.0, 4.0]})
    damage = pd.concat([damage, damage.assign(a="qa", b="math", damage=[-1.0, -1.0])])
    axis = routes_draw.damage_matrix(damage, TITLES).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["Math", "QA"]
    assert texts(axis) == ["+3.0\n±1.4", "-1.0\n±0.0"]


def test_cross_terms_are_shares_of_the_whole() -> None:
    cross = pd.DataFrame(
        {"seed": 0, "i": ["q_proj", "q_proj", "norm", "norm"], "j": ["q_proj", "norm"] * 2, "value": [6.0, 1, 1, 2]}
    )
    assert texts(damage_draw.cross_terms(cross).axes[0]) == ["60.0", "10.0", "10.0", "20.0"]


def test_the_captured_share_of_the_damage_is_that_of_moving_along_the_subspace_alone() -> None:
    table = pd.DataFrame(
        {"seed": 0, "k": [1, 2], "subspace": "route", "norm_share": [0.1, 0.2], "quadratic_share": [0.3, 0.5],
         "inside": [0.02, 0.05], "actual": 0.1}
    )  # fmt: skip
    axes = damage_draw.captured(table).axes
    drawn = [np.asarray(next(x for x in axis.lines if x.get_label() == "route").get_ydata()) for axis in axes]
    np.testing.assert_allclose(drawn, [[10, 20], [30, 50], [20, 50]])


def test_cosines_of_matrices_have_the_band_of_noise_and_pairs_without_a_gradient_have_none() -> None:
    titles = TITLES | {"cw": "CW"}
    pairs = [("math", "qa"), ("math", "cw")]
    modules = pd.DataFrame(
        [{"seed": 0, "a": a, "b": b, "block": "mlp", "cosine": c} for a, b in pairs for c in (0.2, -0.1)]
    )
    extremes = pd.DataFrame({"a": "math", "b": "qa", "extreme": ["conflict", "synergy"], "noise": [-0.05, 0.06]})
    known, silent, *_ = routes_draw.cosine_spectrum(modules, extremes, titles).axes
    band = known.patches[0].get_extents().transformed(known.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((-0.05, 0.06))
    assert np.asarray(known.lines[0].get_ydata()).tolist() == [-0.1, 0.2]
    assert texts(silent) == ["a gradient is zero"] and not silent.lines
