"""Words of chapter 4: the damage expansion (C6), its concentration (C7), assumptions and predictions, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from crossdomain import stats
from crossdomain.concentration import SPACES
from crossdomain.words import number, plain
from crossdomain.words.pathways import by_predictor, listed
from crossdomain.words.sparsity import by_seed

EXACT = "exact reward"
CANCELLING = 10.0  # percent by which a share may miss 0 to 100 % before the terms are said to cancel


def expansion(path: pd.DataFrame, controls: pd.DataFrame, title: str) -> str:
    """C6: first and second order against the actual damage of the later stages, and the controls."""
    lines = [
        "**The paper** says that the damage is mainly second order (abstract). **We measured**, at the update's length:",
        "",
    ]
    for objective, rows in path[path["t"] == 1].groupby("objective", sort=False):
        first, second, both, found = (
            number(by_seed(rows, c), 3, sign=True) for c in ("first", "second", "predicted", "actual")
        )
        lines.append(
            f"* **{objective}** ({rows['data'].iloc[0]}): first order {first}, second {second}, together {both}; "
            f"actual {found}."
        )
    lines.append("")
    own = controls[controls["direction"] == controls["direction"].iloc[0]]
    for direction, rows in controls[controls["direction"] != own["direction"].iloc[0]].groupby("direction", sort=False):
        lines.append(
            f"* Control, {direction}: second order {number(by_seed(rows, 'second'), 3, sign=True)}, actual "
            f"{number(by_seed(rows, 'actual'), 3, sign=True)}."
        )
    exact = path[(path["t"] == 1) & (path["objective"] == path["objective"].iloc[0])]
    ratio = (exact["second"].abs() > exact["first"].abs()).mean()
    beyond = path[(path["t"] == path["t"].max()) & (path["objective"] == path["objective"].iloc[0])]
    lines += [
        "",
        f"For {title} the second-order term is the larger one in {100 * ratio:.0f} % of the seeds; the two together "
        f"differ "
        f"from the actual damage by {plain(100 * _error(exact), 0)} % at the update's length and by "
        f"{plain(100 * _error(beyond), 0)} % at {path['t'].max():g} times it. The constant ρ that the cubic bound "
        f"needs is "
        f"{plain(exact['rho'].mean(), 3)}.",
    ]
    return "\n".join(lines)


def _error(rows: pd.DataFrame) -> float:
    return float((rows["remainder"].abs() / rows["actual"].abs()).mean())


def modules(cross: pd.DataFrame) -> str:
    """Which modules, and which pairs of them, hold the quadratic form."""
    shares = cross.assign(share=100 * cross["value"] / cross.groupby("seed")["value"].transform("sum"))
    own = shares[shares["i"] == shares["j"]].groupby("i", sort=False)["share"].mean()
    diagonal = own.sort_values(ascending=False)
    top = ", ".join(f"{str(i).removesuffix('_proj')} {plain(value, 0)} %" for i, value in diagonal.head(3).items())
    return (
        f"Modules with themselves hold {plain(own.sum(), 0)} % of ½ δᵀHδ (most: {top}); what they do *together* "
        f"holds the other "
        f"{plain(100 - own.sum(), 0)} %. A score that looks at one module, or one coordinate, at a time cannot see "
        f"that part. {_cancelling(own.sum())}"
    ).rstrip()


def _cancelling(*percents: float) -> str:
    """What shares far outside 0 to 100 % mean, if there are any."""
    if all(-CANCELLING <= percent <= 100 + CANCELLING for percent in percents):
        return ""
    return (
        "A share below 0 or above 100 % means that terms of both signs cancel: δᵀHδ is a small difference of large "
        "terms here, and shares of it are no shares of a damage."
    )


def concentration(captured: pd.DataFrame, summary: pd.DataFrame) -> str:
    """C7: how much of the damage few directions hold."""
    lines = [
        "**The paper** says that the damage concentrates in a low-dimensional shared conflict subspace (abstract). **We "
        "measured** shares of δᵀHδ on test prompts (of the actual damage, moving along the subspace alone, in brackets):",
        "",
    ]
    shares = captured.assign(
        quadratic=100 * captured["quadratic_share"],
        alone=100 * captured["inside"] / captured["actual"],
        norm=100 * captured["norm_share"],
    )
    for space, rows in shares.groupby("subspace", sort=False):
        most = int(rows["k"].max())
        parts = [
            f"{number(by_seed(rows[rows['k'] == k], 'quadratic'), 0)} % "
            f"({plain(by_seed(rows[rows['k'] == k], 'alone').value, 0)} %) by {k}"
            for k in dict.fromkeys((min(8, most), most))
        ]
        norm = by_seed(rows[rows["k"] == most], "norm").value
        lines.append(f"* **{space}**: {', '.join(parts)} directions, which hold {plain(norm, 2)} % of ‖δ‖².")
    lines.append("")
    for space in SPACES:
        rows = summary[summary["space"] == space]
        if rows.empty:
            lines.append(f"* *{space}*: the routes share no such unit in this run.")
            continue
        most = int(rows["directions"].max())
        needed = ", ".join(f"{share} % {_count(rows[f'needed_{share}'], most)}" for share in (50, 80, 90))
        ratio, kappa = plain(rows["participation_ratio"].mean(), 1), plain(rows["kappa"].mean())
        of_norm, of_form = plain(100 * rows["norm_share"].mean(), 1), plain(100 * rows["quadratic_share"].mean(), 0)
        lines.append(
            f"* *{space}*: {rows['parameters'].mean():.0f} parameters with {of_norm} % of ‖δ‖² and {of_form} % of δᵀHδ. "
            f"Directions needed for {needed}; participation ratio {ratio}; leakage κ {kappa} against a "
            f"top eigenvalue of {plain(rows['top_eigenvalue'].mean())}. An update "
            f"without preference would have {plain(100 * rows['trace_share'].mean(), 0)} % of δᵀHδ in all {most} "
            f"directions."
        )
    held = shares[shares["subspace"].isin(SPACES)].groupby(["subspace", "k"])["quadratic"].mean()
    return "\n".join([*lines, "", _cancelling(*held.tolist())]).rstrip()


def _count(values: pd.Series, most: int) -> str:
    known = values.dropna()
    if len(known) < len(values):
        return f"more than {most}"
    return plain(known.mean(), 0)


def assumptions(points: pd.DataFrame, drift: pd.DataFrame, summary: pd.DataFrame, lengths: pd.DataFrame) -> str:
    """Which assumptions of the theory hold, with the numbers."""
    early, late = (points[points["step"] == step] for step in (points["step"].min(), points["step"].max()))
    norms = [plain(rows["gradient_norm"].mean(), 3) for rows in (early, late)]
    firsts = [plain(rows["first"].mean(), 3, sign=True) for rows in (early, late)]
    start, end = (drift[drift["t"] == t]["curvature"].mean() for t in (0, 1))
    route = summary[summary["space"] == "route"]
    whole = summary[summary["space"] == "all parameters"]
    mean = lengths.groupby("t")["correlation"].mean()
    broken = mean[mean < 0.7]
    where = (
        f"from {broken.index[0]:g} times the length on"
        if len(broken)
        else f"at no length up to {mean.index.max():g} times"
    )
    return "\n".join(
        [
            f"* **Is the checkpoint stationary?** From {early['step'].iloc[0]} to {late['step'].iloc[0]} steps of "
            f"its own training "
            f"‖g‖ goes from {norms[0]} to {norms[1]}, the first-order term from {firsts[0]} to {firsts[1]}.",
            f"* **Does the Hessian stay?** Along the update its curvature in the update's own direction goes from "
            f"{plain(start)} "
            f"to {plain(end)}; ρ in that direction is at least {plain(drift['rho'].mean())}.",
            f"* **Is leakage small?** κ of the first directions on the route is {plain(route['kappa'].mean())}, against "
            f"eigenvalues of up to {plain(route['top_eigenvalue'].mean())} there; for directions of all parameters it is "
            f"{plain(whole['kappa'].mean())}.",
            "* **How far does the quadratic model rank?** Its rank correlation with the actual damage of tδ over "
            "all pairs is "
            + ", ".join(f"{plain(value)} at t = {t:g}" for t, value in mean.items())
            + f". It falls below 0.7 {where}.",
        ]
    )


def prediction(correlations: pd.DataFrame, predictors: Mapping[str, str], theory: Mapping[str, str]) -> str:
    """Whether the theory predicts who will hurt whom, against the predictors of chapter 3."""
    found = by_predictor(correlations)
    lines = listed(found, predictors)
    structural = {name: interval for name, interval in found.items() if name not in theory}
    best = max(structural, key=lambda name: structural[name].value, default=None)
    own = found.get("predicted")
    if own is not None:
        verdict = "predicts" if own.low > 0 else "does **not** surely predict"
        text = f"The expansion {verdict} who will hurt whom ({plain(own.value, sign=True)})"
        if best is not None:
            rival = plain(structural[best].value, sign=True)
            text += f"; the best predictor of chapter 3 is “{predictors[best]}” ({rival})"
        lines += ["", text + "."]
    return "\n".join(lines)


def verdicts(
    path: pd.DataFrame, captured: pd.DataFrame, summary: pd.DataFrame, correlations: pd.DataFrame
) -> dict[str, Any]:
    """The chapter's statistics by name, as the results keep them: values, or (value, low, high)."""
    exact = path[(path["t"] == 1) & (path["objective"] == path["objective"].iloc[0])]
    most = int(captured["k"].max())
    shares = captured[captured["k"] == most].assign(alone=captured["inside"] / captured["actual"])
    route, whole, random = (shares[shares["subspace"] == s] for s in ("route", "all parameters", "random in the route"))
    own = correlations[correlations["predictor"] == "predicted"]
    return {
        "objective": str(exact["objective"].iloc[0]),
        "data": str(exact["data"].iloc[0]),
        **{name: by_seed(exact, name) for name in ("first", "second", "predicted", "actual")},
        "seeds": int(exact["seed"].nunique()),
        "second_order_seeds": int(
            ((exact["second"].abs() > exact["first"].abs()) & (exact["second"] * exact["actual"] > 0)).sum()
        ),
        "directions": most,
        "route_share": by_seed(route, "quadratic_share"),
        "route_share_alone": by_seed(route, "alone"),
        "whole_share": by_seed(whole, "quadratic_share"),
        "whole_share_alone": by_seed(whole, "alone"),
        "random_share": by_seed(random, "quadratic_share"),
        "participation_ratio": by_seed(summary[summary["space"] == "all parameters"], "participation_ratio"),
        "prediction": stats.Interval(*own[["correlation", "low", "high"]].astype(float).iloc[0]) if len(own) else None,
    }


def in_short(found: dict[str, Any]) -> str:
    """The chapter's verdicts from its kept statistics."""
    first, second, actual, route, whole, alone, random = (
        stats.Interval(*found[name])
        for name in ("first", "second", "actual", "route_share", "whole_share", "whole_share_alone", "random_share")
    )
    k, held, seeds = (found[name] for name in ("directions", "second_order_seeds", "seeds"))
    where = f" in {held} of {seeds} seeds" if 0 < held < seeds else ""
    cancelling = _cancelling(100 * whole.value, 100 * route.value)
    lines = [
        f"* **C6** (mainly second order; {found['objective']} of {found['data']}): first order "
        f"{number(first, 3, sign=True)}, second "
        f"{number(second, 3, sign=True)}, actual {number(actual, 3, sign=True)}. "
        f"The damage is {'' if held else '**not** '}mainly second order{where}.",
        f"* **C7** (few directions): {k} directions of all parameters hold {plain(100 * whole.value, 0)} % of δᵀHδ "
        f"and, moved along "
        f"alone, {plain(100 * alone.value, 0)} % of the actual damage; {k} directions of the *shared route* hold "
        f"{plain(100 * route.value, 0)} %, random ones there {plain(100 * random.value, 2)} %. {cancelling}".rstrip(),
    ]
    if found["prediction"] is not None:
        own = stats.Interval(*found["prediction"])
        lines.append(
            f"* **Prediction**: rank correlation of the expansion with the measured damage {number(own, sign=True)}."
        )
    return "\n".join(lines)
