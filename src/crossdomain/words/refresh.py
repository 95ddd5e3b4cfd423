"""Words of chapter 5 on where refreshes go: gradient descent against Theorem 1 (C8), losses, and GRPO."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from crossdomain import stats
from crossdomain.recovery import MATCHED, RANDOM, ROUTE, WHOLE
from crossdomain.words import number, plain, points, seeds
from crossdomain.words.sparsity import by_seed

HOLDS = 1 + 1e-4  # a norm may exceed its bound by what single precision rounds
NAMES = {WHOLE: "all parameters", ROUTE: "the shared route", RANDOM: "random directions"}


def contraction(table: pd.DataFrame, curvature: pd.DataFrame, domain: str, titles: dict[str, str]) -> str:
    """C8: what gradient descent leaves of the update inside S, for steps on both sides of 2/λ_max, and the controls."""
    ends = ends_of(table)
    own, k = ends[ends["on"] == domain], int(table["k"].max())
    before, after = (curvature[curvature["at"] == at]["top_eigenvalue"].mean() for at in ("before", "after"))
    lines = [
        f"**The paper** says that a short refresh contracts the harmful part of the update (abstract). **We measured** "
        f"‖P(θ_t − θ_A)‖ as a share of ‖Pδ‖ after {table['step'].max()} steps of gradient descent on {titles[domain]}'s "
        f"exact loss, for the {k} leading directions. λ_max is {plain(before, 1)} at θ_A and {plain(after, 1)} where the "
        "refresh starts.",
        "",
    ]
    for multiple, rows in own.groupby("multiple"):
        whole, route = (left(rows[rows["space"] == space]) for space in (WHOLE, ROUTE))
        lines.append(
            f"* **α = {multiple:g}/λ_max**: {whole} is left in directions of all parameters, {route} in the route."
        )
    matched = own[own["multiple"] == MATCHED]
    lines.append(f"* Control, random directions: {left(matched[matched['space'] == RANDOM])}.")
    for other, rows in ends[(ends["on"] != domain) & (ends["space"] == WHOLE)].groupby("on"):
        lines.append(f"* Control, steps as long on {titles[str(other)]}: {left(rows)}.")
    inside = own[own["space"] == WHOLE]
    shrunk = (inside["share"] < 1).groupby(inside["multiple"]).sum()
    counts = ", ".join(f"{count} at {multiple:g}/λ_max" for multiple, count in shrunk.items())
    lines += [
        "",
        f"Of {seeds(inside)} the update shrinks inside S of all parameters in {counts}."
        if shrunk.any()
        else "Inside S of all parameters the update shrinks at **no** step size in any seed.",
        f"The component along Pδ ends at {number(by_seed(matched[matched['space'] == WHOLE], 'along'), sign=True)} of "
        "‖Pδ‖ for α = 1/λ_max: 1 is the damaged policy, 0 is θ_A, and below 0 the refresh has gone past θ_A. Outside S, "
        f"{as_percent(_outside(table[(table['on'] == domain) & (table['multiple'] == MATCHED)]), 1)} of ‖Qδ‖ remains.",
    ]
    return "\n".join(lines)


def bounds(table: pd.DataFrame, constants: pd.DataFrame, domain: str) -> str:
    """Theorem 1's bound against the measured norm, where it says nothing, and whether the paper's holds."""
    rows = table[(table["on"] == domain) & (table["multiple"] == MATCHED)]
    lines = [
        "**The paper's bound** is (1 − αμ)ᵗ‖Pδ‖ (secondary sources). **Theorem 1** adds leakage and the remainder. At "
        f"α = {MATCHED:g}/λ_max, at the last step and as shares of ‖Pδ‖:",
        "",
    ]
    for (space, k), part in rows[rows["space"] != RANDOM].groupby(["space", "k"], sort=False):
        known = constants[(constants["space"] == space) & (constants["k"] == k)]
        last = ends_of(part, most=False)
        head = (
            f"* **{NAMES[str(space)]}, k = {k}** (μ {plain(known['mu'].mean())}, L {plain(known['L'].mean())}, κ "
            f"{plain(known['kappa'].mean())}): measured {plain(by_seed(last, 'share').value)}"
        )
        if last["bound"].isna().all():
            lines.append(f"{head}; no bound, since μ is not positive.")
            continue
        theorem, papers = (by_seed(last.assign(x=last[c] * last["share"] / last["inside"]), "x") for c in
                           ("bound", "paper_bound"))  # fmt: skip
        lines.append(
            f"{head}, Theorem 1 allows {plain(theorem.value)}, the paper's bound {plain(papers.value, 3)}. "
            f"{_vacuous(part)} {_paper(part)}"
        )
    later = rows[(rows["step"] > 0) & rows["bound"].notna()]
    held = (later["inside"] <= HOLDS * later["bound"]).mean()
    lines += ["", f"The measured norm is within Theorem 1's bound at {100 * held:.0f} % of the steps."]
    for space in (WHOLE, ROUTE):
        known = constants[(constants["space"] == space) & (constants["k"] == constants["k"].max())]
        first = rows[(rows["space"] == space) & (rows["k"] == rows["k"].max()) & (rows["step"] == 0)]
        leaks, rest, g, pull = (
            plain(value.mean(), 3)
            for value in (
                known["kappa"] * known["outside"],
                first["remainder"],
                known["gradient_inside"],
                known["L"] * known["inside"],
            )
        )
        lines.append(
            f"Of {NAMES[space]}: against a pull of at most L‖Pδ‖ = {pull} the theorem sets a leakage κ‖Qδ‖ of {leaks} and "
            f"a remainder ‖Pr‖ of {rest} at the start; ‖Pg‖ at θ_A, which a stationary θ_A would not have, is {g}."
        )
    return "\n".join(lines)


def _vacuous(part: pd.DataFrame) -> str:
    """At how many of the steps the bound promises no more than that the norm will not grow."""
    later = part[part["step"] > 0]
    start = part.groupby("seed")["inside"].transform("first")[later.index]
    empty = 100 * (later["bound"] >= start).mean()
    return f"It is vacuous (not below ‖Pδ‖) at {empty:.0f} % of the steps."


def _paper(part: pd.DataFrame) -> str:
    """Whether the bound without leakage and remainder holds."""
    later = part[part["step"] > 0]
    held = 100 * (later["inside"] <= HOLDS * later["paper_bound"]).mean()
    return f"The paper's bound holds at {held:.0f} % of them" + (
        "." if held == 100 else ": as a bound it does **not** hold."
    )


def losses(table: pd.DataFrame, scores: pd.DataFrame, domain: str, titles: dict[str, str]) -> str:
    """What descents do to A's loss on test prompts, and to all scores."""
    rise = table.assign(rise=table["test_loss"] - table["undamaged"])
    start = rise[rise["step"] == 0]
    end = rise[rise["step"] == rise["step"].max()]
    lines = [
        f"{titles[domain]}'s test loss starts {number(by_seed(start, 'rise'), 3, sign=True)} above that at θ_A:",
        "",
    ]
    for multiple, rows in end[end["on"] == domain].groupby("multiple"):
        taken = 1 - by_seed(rows, "rise").value / by_seed(start, "rise").value  # of the means: a seed may have little
        back = f"; {plain(100 * taken, 0)} % of the damage is taken back" if (start["rise"] > 0).all() else ""
        lines.append(f"* α = {multiple:g}/λ_max ends {number(by_seed(rows, 'rise'), 3, sign=True)} from it{back}.")
    for other, rows in end[end["on"] != domain].groupby("on"):
        value = number(by_seed(rows, "rise"), 3, sign=True)
        lines.append(f"* Control, steps as long on {titles[str(other)]}: {value}.")
    matched = scores[(scores["on"] == domain) & (scores["multiple"] == MATCHED)]
    wide = matched.pivot_table(index=["seed", "domain"], columns="step", values="score", sort=False)
    change = (wide.iloc[:, -1] - wide.iloc[:, 0]).rename("change").reset_index()
    parts = [
        f"{titles[str(name)]} {points(by_seed(rows, 'change'), sign=True)}"
        for name, rows in change.groupby("domain", sort=False)
    ]
    lines += ["", f"At α = 1/λ_max the scores change by {', '.join(parts)} points."]
    return "\n".join(lines)


def grpo(table: pd.DataFrame, budget: pd.DataFrame) -> str:
    """Where the refreshes as trained go, over learning rates and batch sizes."""
    ends = ends_of(table.assign(on="", multiple=MATCHED), by=["rate", "batch"])
    lines = [
        "Share of ‖Pδ‖ left at the end of each GRPO refresh in the leading directions of all parameters (the route; random "
        "directions), and the points it gained:",
        "",
    ]
    gains = budget[budget["step"] == budget["step"].max()]
    for (rate, batch), rows in ends.groupby(["rate", "batch"]):
        whole, route, random = (left(rows[rows["space"] == space]) for space in (WHOLE, ROUTE, RANDOM))
        gained = gains[(gains["rate"] == rate) & (gains["batch"] == batch)]
        own = ", the profile's own" if rows["own"].any() else ""
        lines.append(
            f"* rate {rate:.1e}, {batch} completions a step{own}: {whole} ({route}; {random}), "
            f"{points(by_seed(gained, 'gained'), sign=True)} points."
        )
    shares = ends[ends["space"] == WHOLE].groupby(["rate", "batch"])["share"].mean()
    shrinks = int((shares < 1).sum())
    lines += [
        "",
        f"The part inside S shrinks in {shrinks} of {len(shares)} refreshes. They are Adam on sampled rewards, which the "
        "theorem does not cover, so this is an observation. Outside S, "
        f"{as_percent(_outside(table[table['own']]), 1)} of ‖Qδ‖ remains after the profile's own.",
    ]
    return "\n".join(lines)


def ends_of(table: pd.DataFrame, *, most: bool = True, by: Sequence[str] = ()) -> pd.DataFrame:
    """The last points of descents (`by` further columns), in the most directions only or in all dimensions."""
    rows = table[table["k"] == table["k"].max()] if most else table
    keys = ["seed", "space", "k", "on", "multiple", *by]
    return rows.sort_values("step", kind="stable").groupby(keys, sort=False).tail(1)


def left(rows: pd.DataFrame) -> str:
    """Share of ‖Pδ‖ at those points."""
    return as_percent(by_seed(rows, "share"))


def _outside(table: pd.DataFrame) -> stats.Interval:
    """Share of ‖Qδ‖ left at the end, Q outside the most directions of all parameters."""
    rows = table[(table["space"] == WHOLE) & (table["k"] == table["k"].max())].sort_values("step")
    norms = rows.groupby("seed")["outside"]
    return stats.seed_mean(norms.last() / norms.first())


def as_percent(share: stats.Interval, digits: int = 0) -> str:
    """A share in percent, with its interval."""
    return f"{number(stats.Interval(*(100 * x for x in share)), digits)} %"
