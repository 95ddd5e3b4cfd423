"""Figures of chapter 6: what a rollback regains and costs, by score, size and share, for pairs, and as predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossdomain import rollback_sets as sets
from crossdomain.frontier import efficient
from crossdomain.plots import INK, PALETTE, QUIET, colours, seed_lines

SCORES = {
    sets.FISHER: (PALETTE[0], "-"),
    sets.DAMAGED: (PALETTE[5], "--"),
    sets.DIVERGENCE: (PALETTE[2], "--"),
    sets.REWARD: (INK, "-"),
    sets.MAGNITUDE: (PALETTE[4], "-"),
    sets.RANDOM: (QUIET, "-"),
    sets.MATCHED: (QUIET, ":"),
    sets.OPPOSITE: (PALETTE[1], "-"),
    sets.ROUTE: (PALETTE[2], "-"),
    sets.BOTH: (PALETTE[3], "-"),
    sets.ATTENTION: (PALETTE[0], "--"),
    sets.MLP: (PALETTE[0], ":"),
}
REGAINED, LOST = "regained by A (points)", "lost by the others (points)"


def by_size(front: pd.DataFrame, damages: pd.DataFrame, scores: Sequence[str], cases: dict[str, str]) -> Figure:
    """Regained and lost against the share of the parameters at λ = 1: a row a case, a line a score, thin ones a seed."""
    figure = Figure(figsize=(9.6, 3.2 * len(cases) + 0.6), layout="constrained")
    grid = np.atleast_2d(figure.subplots(len(cases), 2))
    for row, (case, title) in zip(grid, cases.items(), strict=True):
        part = front[(front["case"] == case) & (front["share"] == 1)]
        for axis, column, label in zip(row, ("regained", "lost"), (REGAINED, LOST), strict=True):
            for score in scores:
                wide = part[part["score"] == score].pivot(index="percent", columns="seed", values=column)
                _line(axis, wide, score)
            axis.axhline(0, color=INK, lw=0.7)
            axis.set(xscale="log", xlabel="parameters taken back (%)", ylabel=label, title=title)
            sizes = sorted(part["percent"].unique())
            axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
            axis.minorticks_off()
        _damage(row[0], damages[damages["case"] == case])
    _legend(figure, grid[0, 0])
    return figure


def frontier(front: pd.DataFrame, damages: pd.DataFrame, scores: Sequence[str], cases: dict[str, str]) -> Figure:
    """Regained against lost at λ = 1, means over seeds: a panel a case, a line a score through all sizes.

    A ring marks the Pareto front, what no other point of the panel betters; the sizes (%) stand at the first score's.
    """
    figure = Figure(figsize=(4.9 * len(cases), 4.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(cases)))
    for axis, (case, title) in zip(axes, cases.items(), strict=True):
        part = front[(front["case"] == case) & (front["share"] == 1)]
        means = part.groupby(["score", "percent"])[["regained", "lost"]].mean()
        for score in scores:
            colour, style = SCORES[score]
            points = means.loc[score].sort_index()
            axis.plot(points["lost"], points["regained"], color=colour, ls=style, lw=2, marker="o", ms=5, label=score)
        for percent, point in means.loc[scores[0]].iterrows():
            at, colour = (point["lost"], point["regained"]), SCORES[scores[0]][0]
            axis.annotate(f"{percent:g}", at, (4, -9), textcoords="offset points", fontsize=7.5, color=colour)
        best = means.loc[means.index.get_level_values("score").isin(scores)]
        best = best[efficient(best["regained"], best["lost"])]
        axis.plot(best["lost"], best["regained"], "o", ms=8, mfc="none", mec=INK, mew=1.1, label="Pareto front")
        axis.locator_params(axis="x", nbins=6)
        axis.axvline(0, color=INK, lw=0.7)
        axis.axhline(0, color=INK, lw=0.7)
        axis.set(xlabel=LOST, ylabel=REGAINED, title=title)
        _damage(axis, damages[damages["case"] == case])
    _legend(figure, axes[0])
    return figure


def by_share(front: pd.DataFrame, scores: Sequence[str]) -> Figure:
    """Regained and lost against the share λ of the update that is taken back: a row a size.

    Args:
        front: rows of one case, as from `frontier.varied`.
        scores: which of them to draw.
    """
    sizes = sorted(front["percent"].unique())
    figure = Figure(figsize=(9.6, 3.1 * len(sizes) + 0.6), layout="constrained")
    grid = np.atleast_2d(figure.subplots(len(sizes), 2))
    for row, size in zip(grid, sizes, strict=True):
        for axis, column, label in zip(row, ("regained", "lost"), (REGAINED, LOST), strict=True):
            for score in scores:
                part = front[(front["score"] == score) & (front["percent"] == size)]
                wide = part.pivot(index="share", columns="seed", values=column)
                wide.loc[0.0] = 0.0
                _line(axis, wide.sort_index(), score)
            axis.axhline(0, color=INK, lw=0.7)
            axis.axvline(1, color=QUIET, lw=0.8, ls=":")
            axis.set(xlabel="share λ that is taken back", ylabel=label, title=f"{size:g} % of the parameters")
    _legend(figure, grid[0, 0])
    return figure


def predicted(table: pd.DataFrame) -> Figure:
    """Predicted against actual change of A's loss over all sets and shares: by the Hessian, and by the diagonal Fisher."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    labels = {
        "hessian": "predicted with the Hessian (points)",
        "fisher": "predicted by the diagonal Fisher (nats of divergence)",
    }
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        scale = 100 if column == "hessian" else 1
        for score, (colour, style) in SCORES.items():
            part = table[table["score"] == score]
            marker = {"-": "o", "--": "^", ":": "s"}[style]
            axis.plot(scale * part[column], 100 * part["actual"], marker, ms=4, alpha=0.7, color=colour, label=score)
        axis.axhline(0, color=INK, lw=0.6)
        axis.axvline(0, color=INK, lw=0.6)
        axis.set_xlabel(label)
    axes[0].set_xscale("symlog", linthresh=1)
    axes[0].set_yscale("symlog", linthresh=1)
    axes[1].locator_params(axis="x", nbins=5)
    axes[1].ticklabel_format(axis="x", scilimits=(-2, 3))  # of a real model it may be millionths
    low, high = 100 * table["actual"].min(), 100 * table["actual"].max()
    axes[0].plot([low, high], [low, high], color=QUIET, lw=1, ls="--")
    axes[0].set_ylabel("actual change of A's loss (points)")
    _legend(figure, axes[0])
    return figure


def pairs(table: pd.DataFrame, percent: float, titles: dict[str, str]) -> Figure:
    """What every pair's A loses (bar) and regains, and what B gains (bar) and loses again, at one size: a dot a seed."""
    part = table[table["percent"] == percent]
    means = part.groupby(["a", "b", "score", "seed"], sort=False).mean(numeric_only=True).reset_index()
    keys = list(dict.fromkeys(zip(means["a"], means["b"], strict=True)))
    scores = list(dict.fromkeys(means["score"]))
    figure = Figure(figsize=(9.6, 0.8 * len(keys) + 1.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    palette = colours(list(titles))
    panels = (
        ("damage", "regained", 0, "A: damage (bar) and regained (points)"),
        ("gain", "lost", 1, "B: gain (bar) and lost again (points)"),
    )
    for axis, (whole, back, hurt, label) in zip(axes, panels, strict=True):
        for i, key in enumerate(keys):
            rows = means[(means["a"] == key[0]) & (means["b"] == key[1])]
            axis.barh(i, rows[whole].mean(), height=0.8, color=palette[str(key[hurt])], alpha=0.25)
            for k, score in enumerate(scores):
                values = rows.loc[rows["score"] == score, back]
                y = i + (k - (len(scores) - 1) / 2) * 0.18
                colour = SCORES[score][0]
                axis.plot(values, np.full(len(values), y), "o", ms=3, color=colour, alpha=0.6)
                axis.plot(values.mean(), y, "D", ms=5.5, color=colour, label=score if i == 0 else None)
        axis.axvline(0, color=INK, lw=0.8)
        axis.set_xlabel(label)
    axes[0].set_yticks(range(len(keys)), [f"{titles[str(a)]}, hurt by {titles[str(b)]}" for a, b in keys])
    axes[0].invert_yaxis()
    _legend(figure, axes[0])
    return figure


def _line(axis: Axes, wide: pd.DataFrame, score: str) -> None:
    colour, style = SCORES[score]
    seed_lines(axis, wide, colour, score, ls=style, marker="o", ms=3.5)


def _damage(axis: Axes, damages: pd.DataFrame) -> None:
    """A line at all that A lost."""
    whole = damages["damage"].mean()
    axis.axhline(whole, color=INK, lw=1, ls="--")
    axis.text(
        0.99, whole, "all of the damage", ha="right", va="bottom", fontsize=8.5, transform=axis.get_yaxis_transform()
    )


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3, frameon=False, fontsize=9)
