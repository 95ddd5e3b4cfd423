"""Figures of chapter 1: learning curves, scores, the story along the steps, the refresh and its controls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossdomain.plots import INK, QUIET, colours


def learning_curves(logs: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Mean reward of the completions against RL steps: a panel a stage, a thin line a seed, their mean in bold."""
    roles = list(dict.fromkeys(logs["role"]))
    columns = min(4, len(roles))
    rows = -(-len(roles) // columns)
    figure = Figure(figsize=(2.4 * columns + 0.6, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    palette = colours(list(dict.fromkeys(logs["domain"])))
    for axis in axes.flat[len(roles) :]:
        axis.set_visible(False)
    for axis, role in zip(axes.flat, roles, strict=False):
        part = logs[logs["role"] == role]
        colour = palette[part["domain"].iloc[0]]
        for _, run in part.groupby("seed"):
            smooth = run["reward"].rolling(5, center=True, min_periods=1).mean()
            axis.plot(run["step"], 100 * smooth, color=colour, lw=0.8, alpha=0.5)
        mean = part.groupby("step")["reward"].mean().rolling(5, center=True, min_periods=1).mean()
        axis.plot(mean.index, 100 * mean, color=colour, lw=2.4)
        axis.set(title=role, xlabel="RL step", ylim=(0, 100))
    for row in axes:
        row[0].set_ylabel("mean reward (points)")
    return figure


def score_heatmap(table: pd.DataFrame, titles: dict[str, str], split: str = "test") -> Figure:
    """Stage by domain: score in points with the half-width of its interval; one panel a decoding."""
    decodings = list(dict.fromkeys(table["decoding"]))
    roles = list(dict.fromkeys(table["role"]))
    figure = Figure(figsize=(3.7 * len(decodings) + 2.2, 0.5 * len(roles) + 1.1), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(decodings), sharey=True))
    for axis, decoding in zip(axes, decodings, strict=True):
        part = table[(table["decoding"] == decoding) & (table["split"] == split)]
        values = part.pivot(index="role", columns="domain", values="score").loc[roles, list(titles)]
        half = part.assign(half=(part["high"] - part["low"]) / 2)
        halves = half.pivot(index="role", columns="domain", values="half").loc[roles, list(titles)]
        cells = [
            [f"{v:.1f}" + ("" if np.isnan(h) else f" ±{h:.1f}") for v, h in zip(vs, hs, strict=True)]
            for vs, hs in zip(values.to_numpy(), halves.to_numpy(), strict=True)
        ]
        sns.heatmap(
            values.rename(columns=titles),
            ax=axis,
            annot=np.array(cells),
            fmt="",
            vmin=0,
            vmax=100,
            cmap="cividis",
            linewidths=1,
            annot_kws={"size": 9},
            cbar=axis is axes[-1],
            cbar_kws={"label": "score (points)"},
        )
        axis.set(xlabel="", ylabel="", title=f"decoding: {decoding}")
    return figure


def sequence_story(curves: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Every domain's held-out score along all RL steps; bands show which domain is being trained."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axis = figure.subplots()
    palette = colours(list(titles))
    first = curves[curves["seed"] == curves["seed"].iloc[0]]
    for stage, part in first.groupby("stage", sort=False):
        start, end, trained = part["total"].min(), part["total"].max(), part["trained"].iloc[0]
        axis.axvspan(start, end, color=palette[trained], alpha=0.09, lw=0)
        name = ("refresh\n" if str(stage).rpartition("-")[2] == f"re{trained}" else "") + titles[trained]
        axis.text((start + end) / 2, 104, name, ha="center", va="bottom", fontsize=9, color=palette[trained])
    mean = curves.groupby(["domain", "total"], sort=False)["score"].mean().reset_index()
    for domain, title in titles.items():
        for _, run in curves[curves["domain"] == domain].groupby("seed"):
            axis.plot(run["total"], run["score"], color=palette[domain], lw=0.7, alpha=0.45)
        line = mean[mean["domain"] == domain]
        axis.plot(line["total"], line["score"], color=palette[domain], lw=2.6, label=title)
    axis.set(xlabel="RL steps so far", ylabel="held-out score at T = 1 (points)", ylim=(0, 103))
    axis.set_xlim(0, curves["total"].max())
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=len(titles), frameon=False)
    return figure


def gave_and_took(changes: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """What each step changed: an arrow a domain from the score before to the score after, means over seeds."""
    steps = list(dict.fromkeys(changes["step"]))
    figure = Figure(figsize=(1.8 * len(steps) + 0.8, 3.8), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(steps), sharey=True))
    palette = colours(list(titles))
    for axis, step in zip(axes, steps, strict=True):
        part = changes[changes["step"] == step]
        for i, domain in enumerate(titles):
            rows = part[part["domain"] == domain]
            before, after = rows["before"].mean(), rows["after"].mean()
            axis.annotate(
                "",
                (i, after),
                (i, before),
                arrowprops={"arrowstyle": "-|>", "color": palette[domain], "lw": 2.4, "shrinkA": 0, "shrinkB": 0},
            )
            axis.plot([i - 0.18, i + 0.18], [before, before], color=palette[domain], lw=1.4)
            change = f"{after - before:+.1f}".replace("-", "−")
            axis.text(i, max(before, after) + 4, change, ha="center", fontsize=8, color=INK)
        axis.set(title=step, xlim=(-0.6, len(titles) - 0.4), ylim=(0, 108))
        axis.set_xticks(range(len(titles)), list(titles.values()), fontsize=8.5)
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("score (points)")
    return figure


def refresh_trajectories(curves: pd.DataFrame, domain: str, titles: dict[str, str]) -> Figure:
    """The refreshed domain's score along its refresh and the controls, and every domain's along the refresh."""
    roles = list(dict.fromkeys(curves["role"]))
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    palette = colours(list(titles))
    by_title = {title: name for name, title in titles.items()}
    for role in roles:
        part = curves[(curves["role"] == role) & (curves["domain"] == domain)]
        trained = by_title.get(role.rpartition("refresh ")[2], domain)
        _bundle(left, part, palette[trained], role.removeprefix("control: "), dashed=role != roles[0])
    left.set(title=f"{titles[domain]} under each refresh", xlabel="refresh step", ylabel="score at T = 1 (points)")
    for name, title in titles.items():
        _bundle(right, curves[(curves["role"] == roles[0]) & (curves["domain"] == name)], palette[name], title)
    right.set(title=f"All domains under {roles[0]}", xlabel="refresh step", ylabel="score at T = 1 (points)")
    for axis in (left, right):
        axis.legend(fontsize=8.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=2)
    return figure


def _bundle(axis: Axes, curves: pd.DataFrame, colour: str, label: str, *, dashed: bool = False) -> None:
    """A thin line a seed, and their mean."""
    style = "--" if dashed else "-"
    for _, run in curves.groupby("seed"):
        axis.plot(run["step"], run["score"], color=colour, lw=0.6, alpha=0.4, ls=style)
    mean = curves.groupby("step")["score"].mean()
    axis.plot(mean.index, mean, color=colour, lw=2.2, ls=style, label=label, marker="o", ms=3)


def refresh_gains(changes: pd.DataFrame, domain: str, titles: dict[str, str]) -> Figure:
    """What each refresh and control changed in the refreshed domain: a dot a seed with its interval over prompts."""
    steps = list(dict.fromkeys(changes["step"]))
    part = changes[changes["domain"] == domain]
    seeds = sorted(part["seed"].unique())
    figure = Figure(figsize=(9.0, 0.5 * len(steps) + 1.3), layout="constrained")
    axis = figure.subplots()
    colour = colours(list(titles))[domain]
    for i, step in enumerate(steps):
        rows = part[part["step"] == step].set_index("seed")
        for j, seed in enumerate(seeds):
            row = rows.loc[seed]
            y = i + (j - (len(seeds) - 1) / 2) * 0.16
            axis.plot([row["low"], row["high"]], [y, y], color=colour if i == 0 else QUIET, lw=1.4)
            axis.plot(row["change"], y, "o", ms=4.5, color=colour if i == 0 else QUIET)
        axis.plot(rows["change"].mean(), i, "|", ms=17, mew=2.2, color=INK)
    axis.axvline(0, color=INK, lw=0.8)
    axis.set_yticks(range(len(steps)), steps)
    axis.invert_yaxis()
    axis.set_xlabel(
        f"change of {titles[domain]} at T = 1 (points; dot: a seed with its 95 % interval, bar: their mean)"
    )
    return figure
