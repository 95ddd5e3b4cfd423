"""Figures of chapter 8: what every method reaches and costs, and what the order of the domains changes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossdomain.plots import INK, PALETTE, QUIET, colours

VERSIONS = {False: (QUIET, "s", "the sequence's steps"), True: (PALETTE[0], "o", "and a refresh's")}
COLUMNS = {"average": "average of the domains (points)", "worst": "lowest of the domains (points)"}


def methods(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Average and lowest score of every method in both versions: a large mark the mean over seeds, a small one a seed."""
    shown = [key for key in titles if key in set(table["method"])]
    figure = Figure(figsize=(8.6, 0.36 * len(shown) + 1.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (column, label) in zip(axes, COLUMNS.items(), strict=True):
        for i, key in enumerate(shown):
            for longer, (colour, marker, name) in VERSIONS.items():
                values = table.loc[(table["method"] == key) & (table["longer"] == longer), column]
                _dots(axis, values, i, colour, marker, name if i == 0 else None)
        axis.set_xlabel(label)
        axis.grid(axis="y", alpha=0.4)
    _rows(axes[0], [titles[key] for key in shown])
    axes[0].invert_yaxis()
    _legend(figure, axes[0], 2)
    return figure


def domains(scores: pd.DataFrame, titles: Mapping[str, str], names: Mapping[str, str]) -> Figure:
    """Every domain's score under every method with a refresh's steps: means over seeds; lines to the sequence's own."""
    longer = scores[scores["longer"]]
    mean = longer.groupby(["method", "domain"], sort=False)["score"].mean().unstack("domain")
    shown = [key for key in titles if key in mean.index]
    palette = colours(list(names))
    figure = Figure(figsize=(7.6, 0.36 * len(shown) + 1.5), layout="constrained")
    axis = figure.subplots()
    for domain in mean.columns:
        colour = palette[str(domain)]
        axis.axvline(float(mean[domain][shown[0]]), color=colour, lw=1, ls=":")
        axis.plot(mean.loc[shown, domain], range(len(shown)), "o", ms=7, color=colour, label=names[str(domain)])
    axis.set_xlabel("expected reward on test prompts (points)")
    _rows(axis, [titles[key] for key in shown])
    axis.invert_yaxis()
    _legend(figure, axis, len(mean.columns))
    return figure


def costs(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Average score against seconds of RL, means over seeds; every point is named."""
    mean = table.groupby(["method", "longer"], sort=False)[["seconds", "average"]].mean().reset_index()
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axis = figure.subplots()
    for longer, (colour, marker, name) in VERSIONS.items():
        part = mean[mean["longer"] == longer]
        axis.plot(part["seconds"], part["average"], marker, ms=7, color=colour, label=name, alpha=0.85)
    for number, (method, part) in enumerate(mean.groupby("method", sort=False), start=1):
        ordered = part.sort_values("longer")
        axis.plot(ordered["seconds"], ordered["average"], color=QUIET, lw=0.6, zorder=1)
        last = ordered.iloc[-1]
        axis.annotate(str(number), (last["seconds"], last["average"]), (5, 3), textcoords="offset points", fontsize=9)
        axis.plot([], [], " ", label=f"{number}  {titles[str(method)]}")
    axis.set(xlabel="seconds on one core: RL and what the method needs for it", ylabel=COLUMNS["average"])
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncol=2, frameon=False, fontsize=9)
    return figure


def orders(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Average score after every order, with and without the refresh: a large mark the mean over seeds, small ones seeds."""
    means = table[~table["refreshed"]].groupby("order", sort=False)["average"].mean().sort_values(ascending=False)
    figure = Figure(figsize=(7.6, 0.26 * len(means) + 1.6), layout="constrained")
    axis = figure.subplots()
    for i, order in enumerate(means.index):
        for refreshed, (colour, marker, _) in VERSIONS.items():
            values = table.loc[(table["order"] == order) & (table["refreshed"] == refreshed), "average"]
            label = ("after the refresh" if refreshed else "after the last stage") if i == 0 else None
            _dots(axis, values, i, colour, marker, label)
    axis.set_xlabel(COLUMNS["average"])
    _rows(axis, [" → ".join(names[domain] for domain in str(order).split("-")) for order in means.index])
    axis.invert_yaxis()
    _legend(figure, axis, 2)
    return figure


def lost_by_place(scores: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Points that a domain has lost at the end against the stages that came after its own: a dot an order."""
    shown = scores[~scores["refreshed"]]
    palette = colours(list(names))
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    axis = figure.subplots()
    for k, (domain, part) in enumerate(shown.groupby("domain", sort=False)):
        beside = part["later"] + 0.16 * (k - (shown["domain"].nunique() - 1) / 2)
        axis.plot(beside, part["lost"], "o", ms=4, alpha=0.7, color=palette[str(domain)], label=names[str(domain)])
    axis.axhline(0, color=INK, lw=0.7)
    axis.set_xticks(range(shown["domain"].nunique()))
    axis.set(xlabel="stages after the domain's own", ylabel="lost since its own stage (points)")
    _legend(figure, axis, len(palette))
    return figure


def predicted_orders(table: pd.DataFrame) -> Figure:
    """What every order loses against the sum of the pair damages predicted for it: a dot an order, a colour a seed."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = figure.subplots()
    for k, (seed, part) in enumerate(table.groupby("seed")):
        axis.plot(
            100 * part["predicted"], part["lost"], "o", ms=5, alpha=0.8, color=PALETTE[k % 7], label=f"seed {seed}"
        )
    axis.set(
        xlabel="predicted from the experts alone: sum over pairs (points)",
        ylabel="lost on average since the own stage (points)",
    )
    _legend(figure, axis, 4)
    return figure


def _dots(axis: Axes, values: pd.Series, row: int, colour: str, marker: str, label: str | None) -> None:
    if values.empty:
        return
    axis.plot(values, np.full(len(values), row), marker, ms=3, alpha=0.5, color=colour)
    axis.plot([values.mean()], [row], marker, ms=8, color=colour, mec="white", mew=0.6, label=label)


def _rows(axis: Axes, labels: list[str]) -> None:
    axis.set_yticks(range(len(labels)), labels)


def _legend(figure: Figure, axis: Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=columns, frameon=False, fontsize=9)
