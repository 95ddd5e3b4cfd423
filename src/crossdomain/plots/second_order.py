"""Figures of chapter 4: the damage along the update, its controls, its concentration, and predicted against measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from crossdomain.plots import INK, PALETTE, QUIET, colours, seed_lines

TERMS = {"first": ("first order", PALETTE[5]), "second": ("second order", PALETTE[1]), "actual": ("actual", INK)}
SPACES = {
    "all parameters": (PALETTE[0], "-"),
    "route": (PALETTE[1], "-"),
    "route, attention": (PALETTE[3], "-"),
    "route, MLP": (PALETTE[2], "-"),
    "coordinates by ½Fδ²": (PALETTE[4], "--"),
    "coordinates by |δ|": (PALETTE[5], "--"),
    "random in the route": (QUIET, "--"),
    "random": (QUIET, ":"),
}


def damage_path(path: pd.DataFrame) -> Figure:
    """Actual damage along tδ against its first two orders: a panel an objective, a thin line a seed."""
    objectives = list(dict.fromkeys(path["objective"]))
    figure = Figure(figsize=(4.8 * len(objectives), 3.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(objectives)))
    shown = {
        "first": (PALETTE[5], "--"),
        "second": (PALETTE[1], "--"),
        "predicted": (PALETTE[0], "-"),
        "actual": (INK, "-"),
    }
    names = {"predicted": "first + second"} | {term: label for term, (label, _) in TERMS.items()}
    for axis, objective in zip(axes, objectives, strict=True):
        part = path[path["objective"] == objective]
        for column, (colour, style) in shown.items():
            wide = part.pivot(index="t", columns="seed", values=column)
            marker = "o" if column == "actual" else None
            seed_lines(axis, wide, colour, names[column], ls=style, marker=marker, ms=4)
        top, values = part["actual"].abs().max(), part[list(shown)]
        low, high = max(values.min(axis=None), -top), min(values.max(axis=None), 2.2 * top)  # an expansion may run away
        axis.set(
            title=objective,
            xlabel="t, multiple of the update",
            ylabel="rise of the loss",
            ylim=(low - 0.06 * (high - low), high + 0.06 * (high - low)),
        )
        axis.axhline(0, color=INK, lw=0.7)
        axis.axvline(1, color=QUIET, lw=0.8, ls=":")
    axes[0].legend(frameon=False, fontsize=9)
    return figure


def controls(table: pd.DataFrame) -> Figure:
    """First order, second order and actual damage of the update and its controls: a bar the mean, a dot a seed and draw."""
    directions = list(dict.fromkeys(table["direction"]))
    figure = Figure(figsize=(9.2, 0.62 * len(directions) + 1.3), layout="constrained")
    axis = figure.subplots()
    for i, direction in enumerate(directions):
        rows = table[table["direction"] == direction]
        for k, (term, (label, colour)) in enumerate(TERMS.items()):
            y = i + (k - 1) * 0.25
            axis.barh(y, rows[term].mean(), height=0.22, color=colour, alpha=0.75, label=label if i == 0 else None)
            axis.plot(rows[term], np.full(len(rows), y), "o", ms=2.6, color=colour, mec="white", mew=0.4)
    axis.axvline(0, color=INK, lw=0.8)
    axis.set_yticks(range(len(directions)), directions)
    axis.invert_yaxis()
    axis.set_xlabel("rise of the loss (expected reward lost)")
    axis.legend(frameon=False, fontsize=9, ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def cross_terms(cross: pd.DataFrame) -> Figure:
    """½ δ_iᵀHδ_j by module as a share of the whole, means over seeds."""
    shares = cross.assign(share=cross["value"] / cross.groupby("seed")["value"].transform("sum") * 100)
    mean = shares.groupby(["i", "j"], sort=False)["share"].mean().unstack("j")
    order = list(mean.columns)
    mean = mean.loc[order, order].rename(index=_short, columns=_short)
    figure = Figure(figsize=(6.6, 5.4), layout="constrained")
    axis = figure.subplots()
    limit = float(np.abs(mean.to_numpy()).max())
    sns.heatmap(mean, ax=axis, annot=True, fmt=".1f", annot_kws={"size": 8}, cmap="RdBu_r", vmin=-limit, vmax=limit,
                linewidths=0.5, cbar_kws={"label": "share of ½ δᵀHδ (%)"})  # fmt: skip
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="y", rotation=0)
    return figure


def _short(module: str) -> str:
    return module.removesuffix("_proj")


def captured(table: pd.DataFrame) -> Figure:
    """Share of the norm, the quadratic form and the actual damage that the first k directions hold; means over seeds."""
    figure = Figure(figsize=(10.4, 4.0), layout="constrained")
    axes = figure.subplots(1, 3)
    shown = table.assign(
        norm_share=100 * table["norm_share"],
        quadratic_share=100 * table["quadratic_share"],
        actual_share=100 * table["inside"] / table["actual"],
    )
    panels = {"norm_share": "of ‖δ‖²", "quadratic_share": "of δᵀHδ", "actual_share": "of the actual damage, alone"}
    for axis, (column, title) in zip(axes, panels.items(), strict=True):
        for space, (colour, style) in SPACES.items():
            rows = shown[shown["subspace"] == space]
            if rows.empty:
                continue
            by_seed = rows.groupby(["seed", "k"])[column].mean().unstack("seed")
            seed_lines(axis, by_seed, colour, space, ls=style, marker="o", ms=3)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(shown["k"].unique()), [str(k) for k in sorted(shown["k"].unique())])
        axis.set(xlabel="directions k", title=f"captured share {title}")
        axis.axhline(0, color=INK, lw=0.7)
    axes[0].set_ylabel("%")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4, frameon=False, fontsize=9)
    return figure


def stationarity(table: pd.DataFrame) -> Figure:
    """First order, second order and actual damage of the same update at checkpoints of A's own training."""
    figure = Figure(figsize=(9.2, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for column, (label, colour) in TERMS.items():
        wide = table.pivot(index="step", columns="seed", values=column)
        seed_lines(left, wide, colour, label, marker="o", ms=4)
    left.axhline(0, color=INK, lw=0.7)
    left.set(xlabel="RL steps of A", ylabel="rise of the loss")
    left.legend(frameon=False, fontsize=9)
    wide = table.pivot(index="step", columns="seed", values="gradient_norm")
    seed_lines(right, wide, PALETTE[0], marker="o", ms=4)
    right.set(xlabel="RL steps of A", ylabel="‖g‖", ylim=(0, None))
    return figure


def predicted_and_measured(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Predicted against measured damage of all ordered pairs, in points: a dot a pair and seed, in the colour of A."""
    columns = {"predicted": "gᵀδ + ½ δᵀHδ", "second": "½ δᵀHδ", "added": "actual damage of adding B's update"}
    figure = Figure(figsize=(10.2, 3.9), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    palette = colours(list(titles))
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for domain, part in table.groupby("a", sort=False):
            axis.plot(100 * part[column], part["damage"], "o", ms=4.5, alpha=0.75, color=palette[str(domain)],
                      label=titles[str(domain)])  # fmt: skip
        ends = [
            min(100 * table[column].min(), table["damage"].min()),
            max(100 * table[column].max(), table["damage"].max()),
        ]
        axis.plot(ends, ends, color=QUIET, lw=1, ls="--")
        axis.axhline(0, color=INK, lw=0.6)
        axis.axvline(0, color=INK, lw=0.6)
        axis.set_xlabel(f"{label} (points)")
    axes[0].set_ylabel("measured damage (points)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=len(labels), frameon=False, fontsize=9)
    return figure


def ranking_by_length(table: pd.DataFrame) -> Figure:
    """How well the quadratic model ranks the damages of tδ over all pairs, and its relative error, against t."""
    figure = Figure(figsize=(9.2, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, column, label in ((left, "correlation", "rank correlation, predicted and actual"),
                                (right, "error", "median |actual − predicted| / |actual|")):  # fmt: skip
        wide = table.pivot(index="t", columns="seed", values=column)
        seed_lines(axis, wide, PALETTE[0], marker="o", ms=4)
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(wide.index), [f"{t:g}" for t in wide.index])
        axis.set(xlabel="length of the later update (multiples)", ylabel=label)
    left.set_ylim(None, 1.02)
    right.set_ylim(0, None)
    return figure
