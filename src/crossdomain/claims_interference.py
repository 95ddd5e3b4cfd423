"""C1 to C7 as data: what interference is made of, and what decides on each claim."""

from __future__ import annotations

from functools import partial

from crossdomain import interference_statistics as measured
from crossdomain.overlap import approximate_chance
from crossdomain.paper import ABSTRACT, SECONDARY, value
from crossdomain.rules import Claim, Rule
from crossdomain.sparsity import TOP_SHARE

INTERFERENCE = (
    Claim(
        id="C1",
        statement="Reinforcement learning on one domain makes sparse, small edits.",
        paper=f"{value('unchanged_low'):g} to {value('unchanged_high'):g} % of the parameters change by less than 1e-7 and "
        "relatively by less than 1e-3",
        source=SECONDARY,
        rules=(
            Rule("norm of the edits over that of the weights", measured.edit_norm, "below", 10, unit="%"),
            Rule(
                "weights unchanged by the paper's thresholds, in float32",
                measured.unchanged,
                "above",
                value("unchanged_low"),
                unit="%",
            ),
            Rule(
                "weights unchanged at the smallest learning rate, stored as bfloat16",
                measured.unchanged_in_bfloat16,
                "above",
                value("unchanged_low"),
                unit="%",
            ),
        ),
        chapter="02_sparse_edits",
        anchor="how-small-how-sparse-c1",
        figure="unchanged",
        tests="test_edits.py",
    ),
    Claim(
        id="C2",
        statement="The neurons that domains change most hardly overlap.",
        paper=f"mean Jaccard of the top 10 % below {value('neuron_jaccard'):g}; chance is "
        f"{approximate_chance(TOP_SHARE):.3f}",
        source=SECONDARY,
        rules=(
            Rule(
                "mean Jaccard of two experts' top 10 % of all layers together",
                partial(measured.neuron_overlap, scope="global"),
                "below",
                value("neuron_jaccard"),
            ),
            Rule(
                "mean Jaccard of two experts' top 10 % of each layer",
                partial(measured.neuron_overlap, scope="within layers"),
                "below",
                value("neuron_jaccard"),
            ),
            Rule(
                "Jaccard of two domains over a domain's own under another seed of the same base",
                measured.neuron_overlap_to_own,
                "below",
                0.5,
                control=True,
            ),
        ),
        chapter="02_sparse_edits",
        anchor="which-neurons-c2",
        figure="neuron_overlap",
        tests="test_overlap.py",
    ),
    Claim(
        id="C3",
        statement="Domains interfere substantially although their full gradients are nearly orthogonal.",
        paper=f"cosine of Math and QA about {value('gradient_cosine'):g}, while the most conflicting and the most "
        "synergistic module nearly cancel",
        source=f"{ABSTRACT}; the cosines {SECONDARY}",
        rules=(
            Rule("mean absolute cosine of two domains' gradients", measured.gradient_cosine, "below", 0.1),
            Rule(
                "points of the refreshed domain lost to later stages",
                measured.damage_by_later_stages,
                "above",
                2,
                unit="points",
            ),
            Rule(
                "share of pairs with a conflicting matrix beyond noise",
                partial(measured.modules_beyond_noise, extreme="conflict"),
                "above",
                0.5,
            ),
            Rule(
                "share of pairs with a synergistic matrix beyond noise",
                partial(measured.modules_beyond_noise, extreme="synergy"),
                "above",
                0.5,
            ),
            Rule(
                "a gradient's cosine with itself (split half), less that with others",
                measured.gradient_ceiling,
                "above",
                0.1,
                control=True,
            ),
        ),
        chapter="03_route_overlap",
        anchor="gradients-are-nearly-orthogonal-c3",
        figure="gradient_cosines",
        tests="test_conflict.py",
    ),
    Claim(
        id="C4",
        statement="Domains still share active computation routes.",
        paper="stated without a number; how a route is scored is not public",
        source=ABSTRACT,
        rules=(
            Rule(
                "overlap of two routes over chance with layers kept, after the sequence",
                partial(measured.route_overlap, at="after the sequence"),
                "above",
                2,
            ),
            Rule(
                "overlap of two routes over chance with layers kept, in the base",
                partial(measured.route_overlap, at="in the base"),
                "above",
                2,
            ),
            Rule(
                "overlap of two routes over chance, by the least favourable other score",
                measured.route_overlap_by_other_scores,
                "above",
                1,
            ),
            Rule(
                "share of pairs beyond the 95 % band of random sets with layers kept",
                measured.routes_beyond_band,
                "above",
                0.5,
                control=True,
            ),
        ),
        chapter="03_route_overlap",
        anchor="domains-share-active-routes-c4",
        figure="route_overlap",
        tests="test_routes.py",
    ),
    Claim(
        id="C5",
        statement="On shared routes the direction of the updates decides between synergy and conflict.",
        paper="stated without a number",
        source=ABSTRACT,
        rules=(
            Rule(
                "rank correlation of damage with the conflict of updates on the shared route",
                measured.direction_predicts,
                "above",
                0,
            ),
            Rule("that rank correlation, if direction is to decide", measured.direction_predicts, "above", 0.5),
            Rule(
                "share of pairs whose cosine on the route lies outside the band of random routes",
                measured.directions_beyond_random_routes,
                "above",
                0.5,
            ),
            Rule(
                "that rank correlation, less that of the size of the later update",
                partial(measured.direction_predicts, beyond="update_norm"),
                "above",
                0,
                control=True,
            ),
            Rule(
                "that rank correlation, less that of the updates' conflict over all parameters",
                partial(measured.direction_predicts, beyond="update_conflict"),
                "above",
                0,
                control=True,
            ),
        ),
        chapter="03_route_overlap",
        anchor="does-any-of-it-predict-interference",
        figure="rank_correlations",
        tests="test_directions.py",
    ),
    Claim(
        id="C6",
        statement="The damage of later domains to an earlier one is mainly second order.",
        paper="theorem; the first-order term is small, no number",
        source=ABSTRACT,
        rules=(
            Rule(
                "size of the second-order term less that of the first",
                measured.second_beyond_first,
                "above",
                0,
                unit="points",
            ),
            Rule(
                "what first and second order together leave of the actual damage",
                measured.expansion_error,
                "below",
                25,
                unit="%",
            ),
            Rule(
                "actual damage less that of random and of shuffled updates with the same norms",
                measured.damage_beyond_random,
                "above",
                0,
                control=True,
                unit="points",
            ),
        ),
        chapter="04_damage_theory",
        anchor="ch4-path",
        figure="damage_path",
        tests="test_damage.py",
    ),
    Claim(
        id="C7",
        statement="That damage concentrates in a low-dimensional shared conflict subspace.",
        paper="theorem; no number",
        source=ABSTRACT,
        rules=(
            Rule(
                f"share of δᵀHδ in at most {measured.DIRECTIONS} directions of the shared route",
                partial(measured.captured, subspace="route", column="quadratic_share"),
                "above",
                0.5,
            ),
            Rule(
                f"share of δᵀHδ in at most {measured.DIRECTIONS} directions of all parameters",
                partial(measured.captured, subspace="all parameters", column="quadratic_share"),
                "above",
                0.5,
            ),
            Rule(
                "share of the actual damage that these directions of all parameters do alone",
                partial(measured.captured, subspace="all parameters", column="alone"),
                "above",
                0.5,
            ),
            Rule(
                "share of δᵀHδ in directions of all parameters, less that in as many random ones",
                partial(measured.captured_beyond, control="random"),
                "above",
                0,
                control=True,
            ),
            Rule(
                "share of δᵀHδ in directions of all parameters, less that in as many of the largest entries of δ",
                partial(measured.captured_beyond, control="coordinates by |δ|"),
                "above",
                0,
                control=True,
            ),
        ),
        chapter="04_damage_theory",
        anchor="ch4-concentration",
        figure="captured",
        tests="test_damage.py",
    ),
)
