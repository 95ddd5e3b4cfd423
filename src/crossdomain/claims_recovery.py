"""C8 to C11 as data: how damage is undone, and what decides on each claim."""

from __future__ import annotations

from functools import partial

from crossdomain import recovery, rollback_sets, staging
from crossdomain import recovery_statistics as measured
from crossdomain.paper import ABSTRACT, SECONDARY, value
from crossdomain.rules import Claim, Rule

RECOVERY = (
    Claim(
        id="C8",
        statement="A short refresh by gradient descent contracts the harmful part.",
        paper="theorem: ‖P(θ_t − θ_A)‖ ≤ (1 − αμ)ᵗ ‖Pδ‖, with little leakage",
        source=f"{ABSTRACT}; the bound {SECONDARY}",
        rules=(
            Rule(
                "share of ‖Pδ‖ left by gradient descent, P on directions of all parameters",
                partial(measured.harm_left, space=recovery.WHOLE),
                "below",
                0.5,
            ),
            Rule(
                "share of ‖Pδ‖ left by gradient descent, P on directions of the shared route",
                partial(measured.harm_left, space=recovery.ROUTE),
                "below",
                0.5,
            ),
            Rule(
                "norm left by gradient descent over the paper's bound on it",
                measured.harm_to_bound,
                "below",
                1,
            ),
            Rule("share of ‖Pδ‖ left by the refresh as trained by GRPO", measured.harm_left_by_grpo, "below", 1),
            Rule(
                "share left by gradient descent, less that with P on random directions",
                partial(measured.harm_left, space=recovery.WHOLE, beyond="random"),
                "below",
                0,
                control=True,
            ),
            Rule(
                "share left by gradient descent, less that by descent on another domain in steps as long",
                partial(measured.harm_left, space=recovery.WHOLE, beyond="others"),
                "below",
                0,
                control=True,
            ),
        ),
        chapter="05_refresh",
        anchor="ch5-contraction",
        figure="refresh_contraction",
        tests="test_refresh.py",
    ),
    Claim(
        id="C9",
        statement="A brief refresh of Math recovers it, leaves the others largely as they were and gives the best average.",
        paper=f"Math {value('math_damaged'):g} → {value('math_refreshed'):g}, average {value('average_damaged'):g} → "
        f"{value('average_refreshed'):g}, in about {value('refresh_steps'):g} steps",
        source=f"{ABSTRACT}; average before and steps {SECONDARY}",
        rules=(
            Rule("points gained by the refresh", measured.gain, "above", 0, unit="points"),
            Rule("points gained beyond half of those lost", measured.regained, "above", 0, unit="points"),
            Rule("mean change of the other domains", measured.collateral, "above", -1, unit="points"),
            Rule(
                "average after it, less the best of all other checkpoints'",
                measured.best_average,
                "above",
                0,
                unit="points",
            ),
            Rule(
                "gain, less that under the best refresh of another domain",
                partial(measured.gain, beyond="others"),
                "above",
                0,
                control=True,
                unit="points",
            ),
            Rule(
                "gain, less that of a refresh without damage",
                partial(measured.gain, beyond=staging.UNDAMAGED),
                "above",
                0,
                control=True,
                unit="points",
            ),
            Rule(
                "gain, less that of an Adam restart at the same score in first learning",
                partial(measured.gain, beyond=staging.ADAM_RESTART),
                "above",
                0,
                control=True,
                unit="points",
            ),
        ),
        chapter="01_staged_training",
        anchor="the-refresh-and-what-it-owes-to-being-one",
        figure="refresh_gains",
        tests="test_staging.py",
    ),
    Claim(
        id="C10",
        statement="Without training, taking back a sparse proxy set of conflict coordinates restores Math in part.",
        paper="stated for the pair Math–QA without a number; how the set is built is not public",
        source=ABSTRACT,
        rules=(
            Rule(
                f"points regained on {measured.SPARSE:g} % of the parameters by ½Fδ²",
                measured.rolled_back,
                "above",
                0,
                unit="points",
            ),
            Rule(
                "points regained on 1 % of the parameters by ½Fδ²",
                partial(measured.rolled_back, percent=1.0),
                "above",
                0,
                unit="points",
            ),
            Rule(
                "points regained beyond a quarter of the damage",
                measured.rolled_back_of_damage,
                "above",
                0,
                unit="points",
            ),
            Rule(
                "points regained less those that the later domain loses",
                measured.rolled_back_net,
                "above",
                0,
                unit="points",
            ),
            Rule(
                "points regained less those on as many random coordinates",
                partial(measured.rolled_back, beyond=rollback_sets.RANDOM),
                "above",
                0,
                control=True,
                unit="points",
            ),
            Rule(
                "points regained less those on random coordinates with the same norm of δ",
                partial(measured.rolled_back, beyond=rollback_sets.MATCHED),
                "above",
                0,
                control=True,
                unit="points",
            ),
            Rule(
                "points regained less those on as many of the largest coordinates of δ",
                partial(measured.rolled_back, beyond=rollback_sets.MAGNITUDE),
                "above",
                0,
                control=True,
                unit="points",
            ),
        ),
        chapter="06_rollback",
        anchor="ch6-regained",
        figure="rollback_by_size",
        tests="test_rollback.py",
    ),
    Claim(
        id="C11",
        statement="A cycle of alternating refresh is close to a descent step on both losses, towards a compromise.",
        paper="stated as a local approximation, without a number",
        source=SECONDARY,
        rules=(
            Rule(
                "distance of one cycle from the joint step, in percent of that step",
                measured.cycle_deviation,
                "below",
                10,
                unit="%",
            ),
            Rule("order of that distance in the step size (2 in theory)", measured.deviation_order, "above", 1.8),
            Rule(
                "fall of whichever loss falls less over many cycles",
                measured.least_fall,
                "above",
                0,
                unit="points",
            ),
            Rule("fall of both losses' sum over that by as many joint steps", measured.fall_to_joint, "above", 0.9),
            Rule("shortest combination of the gradients, after over before", measured.stationarity_left, "below", 1),
            Rule(
                "distance of one cycle over that of two steps on one loss alone",
                measured.cycle_to_one_loss,
                "below",
                0.5,
                control=True,
            ),
            Rule(
                "fall of both losses' sum, less that by as many steps on one loss alone",
                measured.fall_beyond_one,
                "above",
                0,
                control=True,
                unit="points",
            ),
        ),
        chapter="07_alternating_refresh",
        anchor="ch7-cycle",
        figure="alternating_deviations",
        tests="test_alternating.py",
    ),
)
