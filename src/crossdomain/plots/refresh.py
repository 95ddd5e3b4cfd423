"""Figures of chapter 5: descents against Theorem 1, GRPO refreshes, the recovery matrix, its cost and its collateral."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from crossdomain.plots import INK, PALETTE, QUIET, colours, seed_lines
from crossdomain.recovery import MATCHED, RANDOM, ROUTE, WHOLE
from crossdomain.words import plain

TOP = 2.0  # shares of ‖Pδ‖ above this are cut off: the refresh has left


def contraction(table: pd.DataFrame, domain: str, titles: dict[str, str]) -> Figure:
    """‖Pe_t‖ over ‖Pδ‖ and the signed component along Pδ, for descents at several steps and for controls."""
    table = table[table["k"] == table["k"].max()]
    figure = Figure(figsize=(9.2, 6.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    own = table[table["on"] == domain]
    shades = _shades(own["multiple"])
    for column, space in zip(axes.T, (WHOLE, ROUTE), strict=True):
        for axis, quantity in zip(column, ("share", "along"), strict=True):
            for multiple, rows in own[own["space"] == space].groupby("multiple"):
                seed_lines(axis, _by_seed(rows, quantity), shades[multiple], f"α = {multiple:g}/λ_max")
            for other in table.loc[table["on"] != domain, "on"].unique():
                rows = table[(table["on"] == other) & (table["space"] == space)]
                label = f"control: as long steps on {titles[other]}"
                seed_lines(axis, _by_seed(rows, quantity), colours(list(titles))[other], label, ls="--")
            rows = own[(own["space"] == RANDOM) & (own["multiple"] == MATCHED)]
            seed_lines(axis, _by_seed(rows, quantity), QUIET, "control: random subspace, α = 1/λ_max", ls=":")
            axis.axhline(0, color=INK, lw=0.7)
        column[0].set(title=f"S in {'all parameters' if space == WHOLE else 'the shared route'}", ylim=(0, TOP))
        column[1].set_ylim(-TOP, TOP)
        _whole_steps(column[1])
    axes[0, 0].set_ylabel("‖P(θ_t − θ_A)‖ / ‖Pδ‖")
    axes[1, 0].set_ylabel("component along Pδ / ‖Pδ‖")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=2, frameon=False, fontsize=10)
    return figure


def bounds(table: pd.DataFrame, domain: str) -> Figure:
    """The descent at α = 1/λ_max against Theorem 1's bound and the paper's: a panel a space and dimension."""
    own = table[(table["on"] == domain) & (table["multiple"] == MATCHED)]
    dimensions = sorted(own["k"].unique())
    figure = Figure(figsize=(3.1 * len(dimensions) + 0.4, 6.2), layout="constrained")
    axes = figure.subplots(2, len(dimensions), sharex=True, sharey="row", squeeze=False)
    shown = {
        "inside": ("measured", INK, "-"),
        "bound": ("Theorem 1, with leakage and remainder", PALETTE[1], "-"),
        "paper_bound": ("the paper's, without", PALETTE[0], "--"),
    }
    for row, space in zip(axes, (WHOLE, ROUTE), strict=True):
        for axis, k in zip(row, dimensions, strict=True):
            rows = own[(own["space"] == space) & (own["k"] == k)]
            start = rows.groupby("seed")["inside"].transform("first")
            for column, (label, colour, style) in shown.items():
                scaled = rows.assign(value=np.maximum(rows[column] / start, 1e-4))
                seed_lines(axis, _by_seed(scaled, "value"), colour, label, ls=style)
            axis.axhline(1, color=QUIET, lw=1, ls=":")
            axis.set_yscale("log")
            axis.set_title(f"{'all' if space == WHOLE else 'route'}, k = {k}")
        row[0].set_ylabel("‖P(θ_t − θ_A)‖ / ‖Pδ‖")
    _whole_steps(*axes[-1])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=2, frameon=False, fontsize=10)
    return figure


def descents(losses: pd.DataFrame, scores: pd.DataFrame, domain: str, titles: dict[str, str]) -> Figure:
    """What descents do to A's loss on test prompts, and to every domain's score at α = 1/λ_max."""
    figure = Figure(figsize=(9.2, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    own = losses[losses["on"] == domain]
    shades, palette = _shades(own["multiple"]), colours(list(titles))
    rise = losses.assign(rise=losses["test_loss"] - losses["undamaged"])
    for multiple, rows in rise[rise["on"] == domain].groupby("multiple"):
        seed_lines(left, _by_seed(rows, "rise"), shades[multiple], f"α = {multiple:g}/λ_max")
    for other, rows in rise[rise["on"] != domain].groupby("on"):
        seed_lines(left, _by_seed(rows, "rise"), palette[str(other)], f"steps on {titles[str(other)]}", ls="--")
    left.axhline(0, color=INK, lw=0.7)
    left.set(
        xlabel="refresh step", ylabel="test loss above that at θ_A", title=f"{titles[domain]}, by gradient descent"
    )
    matched = scores[(scores["on"] == domain) & (scores["multiple"] == MATCHED)]
    start = matched.groupby(["seed", "domain"])["score"].transform("first")
    for name, rows in matched.assign(change=matched["score"] - start).groupby("domain", sort=False):
        seed_lines(right, _by_seed(rows, "change"), palette[str(name)], titles[str(name)], marker="o", ms=4)
    right.axhline(0, color=INK, lw=0.7)
    right.set(ylabel="change of the score (points)", title="all domains, α = 1/λ_max")
    _whole_steps(left, right)
    _legends_below(left, right)
    return figure


def grpo(table: pd.DataFrame) -> Figure:
    """Where GRPO refreshes go: inside S of all parameters, inside S of the route, and outside."""
    table = table[table["k"] == table["k"].max()]
    figure = Figure(figsize=(10.2, 4.4), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True)
    whole = table[table["space"] == WHOLE]
    start = whole.groupby(["seed", "rate", "batch"])["outside"].transform("first")
    panels = [
        (whole, "share", "inside S, all parameters"),
        (table[table["space"] == ROUTE], "share", "inside S, shared route"),
        (whole.assign(rest=whole["outside"] / start), "rest", "outside S"),
    ]
    for axis, (rows, column, title) in zip(axes, panels, strict=True):
        for label, part, style in _variants(rows):
            seed_lines(axis, _by_seed(part, column), style.pop("color"), label, **style)
        axis.axhline(1, color=QUIET, lw=1, ls=":")
        axis.set_title(title)
    _whole_steps(*axes)
    axes[0].set_ylabel("distance from θ_A over that of δ")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3, frameon=False, fontsize=10)
    return figure


def recovery_matrix(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Change of every domain (column) under a refresh of every domain (row): means over seeds, ± half the interval."""
    domains = list(dict.fromkeys(table["refreshed"]))
    halves = table.assign(half=(table["high"] - table["low"]) / 2)
    mean, half = (
        halves.pivot(index="refreshed", columns="domain", values=column).loc[domains, domains]
        for column in ("change", "half")
    )
    cells = [
        [f"{m:+.1f}".replace("-", "−") + ("" if np.isnan(h) else f"\n±{h:.1f}") for m, h in zip(ms, hs, strict=True)]
        for ms, hs in zip(mean.to_numpy(), half.to_numpy(), strict=True)
    ]
    lost = table.groupby("domain")["lost"].first()
    columns = {d: f"{titles[d]}\n(lost {plain(lost[d], 1)})" for d in domains}
    limit = float(np.abs(mean.to_numpy()).max()) or 1.0
    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    axis = figure.subplots()
    sns.heatmap(mean.rename(index=titles, columns=columns), ax=axis, annot=np.array(cells), fmt="", cmap="RdBu",
                vmin=-limit, vmax=limit, linewidths=1, annot_kws={"size": 11},
                cbar_kws={"label": "change (points, T = 1)"})  # fmt: skip
    axis.set(xlabel="change of", ylabel="refresh of")
    axis.tick_params(axis="y", rotation=0)
    return figure


def budget(table: pd.DataFrame) -> Figure:
    """Points gained against completions, and against what the other domains change, for all GRPO refreshes."""
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, part, style in _variants(table):
        wide = part.pivot(index="completions", columns="seed", values="gained")
        seed_lines(left, wide, style["color"], label, ls=style["ls"], marker=style["marker"], ms=4)
        last = part[part["step"] == part["step"].max()]
        drawn = {"color": style["color"], "marker": style["marker"]}
        right.plot(last["others"], last["gained"], ls="", ms=4, alpha=0.5, **drawn)
        right.plot(last["others"].mean(), last["gained"].mean(), ls="", ms=10, mec=INK, label=label, **drawn)
    left.set(xlabel="completions", ylabel="points gained", title="along the refresh")
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter(ScalarFormatter())
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.set(xlabel="mean change of the other domains (points)", ylabel="points gained", title="at its end")
    for axis in (left, right):
        axis.axhline(0, color=INK, lw=0.7)
    right.axvline(0, color=INK, lw=0.7)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3, frameon=False, fontsize=10)
    return figure


def collateral(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Rise of other domains' losses under refreshes: actual and expanded on the left, Proposition 3's bound beside."""
    rows = [(d, label) for d in titles for label in dict.fromkeys(table["displacement"]) if d in set(table["domain"])]
    figure = Figure(figsize=(9.6, 0.5 * len(rows) + 1.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    palette = colours(list(titles))
    for i, (domain, label) in enumerate(rows):
        part = table[(table["domain"] == domain) & (table["displacement"] == label)]
        named = {"label": "actual"} if i == 0 else {}
        left.barh(i, part["actual"].mean(), height=0.6, color=palette[domain], alpha=0.75, **named)
        left.plot(part["actual"], np.full(len(part), i), "o", ms=3, color=palette[domain], mec="white", mew=0.4)
        named = {"label": "gᵀd + ½ dᵀHd"} if i == 0 else {}
        left.plot(part["predicted"].mean(), i, "|", ms=16, mew=2.4, color=INK, **named)
        right.barh(i, part["bound"].mean(), height=0.6, color=palette[domain], alpha=0.4)
        right.plot(part["bound"], np.full(len(part), i), "o", ms=3, color=palette[domain], mec="white", mew=0.4)
    left.axvline(0, color=INK, lw=0.8)
    left.set_yticks(range(len(rows)), [f"{titles[domain]}: {label}" for domain, label in rows])
    left.invert_yaxis()
    left.set(xlabel="rise of the loss", title="what happens")
    right.set(xlabel="rise of the loss", title="Proposition 3 allows")
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(4))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=2, frameon=False, fontsize=10)
    return figure


def _variants(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, dict[str, str]]]:
    """The GRPO refreshes: what each is called, its rows and its style: a colour a rate, a dash a batch size."""
    shades = _shades(table["rate"])
    batches = sorted(table["batch"].unique(), reverse=True)
    dashes, markers = (dict(zip(batches, cycle(styles), strict=False)) for styles in (["-", "--", ":"], "osD"))
    found = []
    for (rate, batch), rows in table.groupby(["rate", "batch"]):
        own = ", the profile's" if rows["own"].any() else ""
        style = {"color": shades[rate], "ls": dashes[batch], "marker": markers[batch]}
        found.append((f"rate {rate:.1e}, {batch} a step{own}", rows, style))
    return found


def _shades(values: pd.Series | Sequence[float]) -> dict[Any, str]:
    """Darker for larger."""
    distinct = sorted(set(values))
    return dict(zip(distinct, sns.color_palette("flare", len(distinct)).as_hex(), strict=True))


def _whole_steps(*axes: Axes) -> None:
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_xlabel("refresh step")


def _by_seed(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    return rows.pivot(index="step", columns="seed", values=column)


def _legends_below(*axes: Axes) -> None:
    for axis in axes:
        axis.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncol=2)
