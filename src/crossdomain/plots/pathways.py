"""Figures of chapter 3: cosines of gradients, routes over layers and heads, directions on them, predictors of damage."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from crossdomain.plots import INK, PALETTE, QUIET, colours
from crossdomain.plots.sparsity import MODULES

DIVERGING = sns.diverging_palette(30, 250, s=85, l=45, as_cmap=True)  # conflict is orange, synergy is blue


def gradient_cosines(pairs: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Cosine of every pair of domains' gradients, raw and with noise taken out, and of its halves; a dot a seed."""
    names = list(dict.fromkeys(zip(pairs["a"], pairs["b"], strict=True)))
    figure = Figure(figsize=(8.6, 0.55 * len(names) + 1.6), layout="constrained")
    axis = figure.subplots()
    shown = {
        "cosine": ("cosine", PALETTE[0], "o"),
        "corrected": ("noise taken out", PALETTE[1], "D"),
        "split_half_a": ("each with itself (split half)", QUIET, "|"),
        "split_half_b": (None, QUIET, "|"),
    }
    for i, (a, b) in enumerate(names):
        rows = pairs[(pairs["a"] == a) & (pairs["b"] == b)]
        for k, (column, (label, colour, marker)) in enumerate(shown.items()):
            y = np.full(len(rows), i + (min(k, 2) - 1) * 0.2)
            axis.plot(rows[column], y, marker, color=colour, ms=9 if marker == "|" else 5, mew=1.6, ls="", alpha=0.8,
                      label=label if i == 0 else None)  # fmt: skip
    axis.axvline(0, color=INK, lw=0.8)
    axis.set_yticks(range(len(names)), [f"{titles[a]} – {titles[b]}" for a, b in names])
    axis.set(xlabel="cosine of RL gradients over all matrices", xlim=(-1.05, 1.05))
    axis.invert_yaxis()
    axis.legend(frameon=False, fontsize=9, ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def cosine_spectrum(modules: pd.DataFrame, extremes: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Cosines of all matrices, sorted, a panel a pair of domains; the band is what noise alone gives the extremes."""
    names = list(dict.fromkeys(zip(modules["a"], modules["b"], strict=True)))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.3 * columns + 0.4, 2.5 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    blocks = {"attention": PALETTE[0], "mlp": PALETTE[1], "embedding": PALETTE[2]}
    for axis, (a, b) in zip(axes.flat, names, strict=False):
        axis.set_title(f"{titles[a]} – {titles[b]}", fontsize=10)
        noise = extremes[(extremes["a"] == a) & (extremes["b"] == b)].groupby("extreme")["noise"].mean()
        if noise.empty:
            axis.text(0.5, 0.5, "a gradient is zero", transform=axis.transAxes, ha="center", fontsize=9)
            continue
        part = modules[(modules["a"] == a) & (modules["b"] == b)]
        for _, one in part.groupby("seed"):
            ordered = one.sort_values("cosine", ignore_index=True)
            axis.plot(ordered.index, ordered["cosine"], color=QUIET, lw=0.7)
            for block, colour in blocks.items():
                mine = ordered[ordered["block"] == block]
                axis.plot(mine.index, mine["cosine"], "o", ms=2.6, color=colour, ls="")
        axis.axhspan(noise["conflict"], noise["synergy"], color=QUIET, alpha=0.2, lw=0)
        axis.axhline(0, color=INK, lw=0.7)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("matrices, sorted")
    for row in axes:
        row[0].set_ylabel("cosine")
    handles = [axes.flat[0].plot([], [], "o", ms=4, color=colour, label=block)[0] for block, colour in blocks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncol=3, frameon=False, fontsize=9)
    return figure


def routes(active: Mapping[str, pd.Series[bool]], titles: dict[str, str]) -> Figure:
    """Every domain's route: a row a layer, a column a neuron or head; what all domains share is dark.

    Args:
        active: whether each unit is active, indexed by `kind`, `layer`, `index`, by domain.
        titles: what the domains are called.
    """
    domains = list(active)
    first = active[domains[0]]
    layers = first.index.get_level_values("layer").nunique()
    figure = Figure(figsize=(9.6, (0.22 * layers + 0.55) * len(domains) + 0.6), layout="constrained")
    axes = figure.subplots(len(domains), 2, squeeze=False, width_ratios=(4, 1))
    palette = colours(list(titles))
    common = np.logical_and.reduce([route.to_numpy() for route in active.values()])
    for row, domain in zip(axes, domains, strict=True):
        for axis, kind in zip(row, ("neuron", "head"), strict=True):
            mine = first.index.get_level_values("kind") == kind
            state = active[domain].to_numpy().astype(int) + common
            grid = pd.Series(state, index=first.index)[mine].unstack("index").droplevel("kind")
            axis.imshow(
                grid.to_numpy(),
                aspect="auto",
                interpolation="none",
                cmap=ListedColormap(["#f4f4f4", palette[domain], INK]),
                vmin=0,
                vmax=2,
            )
            axis.grid(False)
            axis.set_yticks(range(layers) if layers <= 8 else range(0, layers, 8))
            axis.tick_params(labelsize=8)
            if row is axes[-1]:
                axis.set_xlabel("MLP neuron" if kind == "neuron" else "attention head")
            else:
                axis.set_xticklabels([])
        row[0].set_ylabel(f"{titles[domain]}\nlayer", fontsize=9.5)
    return figure


def overlap_by_share(overlaps: pd.DataFrame, stability: pd.DataFrame) -> Figure:
    """Overlap of routes against their size: pairs of domains, chance, and a domain's own route across prompt halves.

    Args:
        overlaps: rows with `kind`, `share`, `at`, `jaccard`, `low`, `high`, `layer_low`, `layer_high`.
        stability: rows with `kind`, `share`, `at`, `across`, `jaccard`.
    """
    kinds = list(dict.fromkeys(overlaps["kind"]))
    moments = list(dict.fromkeys(overlaps["at"]))
    figure = Figure(figsize=(4.4 * len(kinds) + 0.6, 3.7), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(kinds), sharey=True))
    across = {"prompt halves": (PALETTE[2], "itself, other prompts"), "seeds": (PALETTE[4], "itself, another seed")}
    for axis, kind in zip(axes, kinds, strict=True):
        part, own = overlaps[overlaps["kind"] == kind], stability[stability["kind"] == kind]
        shares = sorted(part["share"].unique())
        x = np.arange(len(shares), dtype=float)
        band = part.groupby("share")[["low", "high", "layer_low", "layer_high"]].mean().loc[shares]
        axis.fill_between(x, band["low"], band["high"], color=QUIET, alpha=0.35, lw=0, label="chance")
        axis.fill_between(x, band["layer_low"], band["layer_high"], color=PALETTE[5], alpha=0.3, lw=0,
                          label="chance, layers kept")  # fmt: skip
        for k, moment in enumerate(moments):
            at = part[part["at"] == moment]
            shift = (k - (len(moments) - 1) / 2) * 0.16
            for i, share in enumerate(shares):
                values = at[at["share"] == share]["jaccard"]
                axis.plot(np.full(len(values), x[i] + shift), values, "o", ms=3, alpha=0.35, color=PALETTE[k])
                axis.plot(x[i] + shift, values.mean(), "_", ms=15, mew=2.4, color=PALETTE[k],
                          label=f"two domains, {moment}" if i == 0 else None)  # fmt: skip
        for name, (colour, label) in across.items():
            mean = own[own["across"] == name].groupby("share")["jaccard"].mean()
            if len(mean):
                axis.plot(x, mean.loc[shares], "--", marker="s", ms=4, color=colour, label=label)
        axis.set_xticks(x, [f"{100 * share:g} %" for share in shares])
        axis.set(title=f"{kind}s", xlabel="share of the units that is active", ylim=(0, 1.02))
    axes[0].set_ylabel("Jaccard")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3, frameon=False, fontsize=9)
    return figure


def conflict_maps(modules: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Cosine of two experts' updates by layer and module, a panel a pair: orange conflict, blue synergy."""
    part = modules[modules["module"].isin(MODULES) & modules["layer"].notna()]
    names = list(dict.fromkeys(zip(part["a"], part["b"], strict=True)))
    order = [module for module in MODULES if module in set(part["module"])]
    layers = int(part["layer"].max()) + 1
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.5 * columns + 0.8, (0.36 * layers + 1.3) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    limit = float(part.groupby(["a", "b", "name"])["cosine"].mean().abs().max())
    for axis, (a, b) in zip(axes.flat, names, strict=False):
        one = part[(part["a"] == a) & (part["b"] == b)]
        grid = one.groupby(["layer", "module"])["cosine"].mean().unstack("module")[order]
        grid.index = grid.index.astype(int)
        sns.heatmap(
            grid.rename(columns=lambda m: m.removesuffix("_proj")),
            ax=axis,
            cmap=DIVERGING,
            vmin=-limit,
            vmax=limit,
            annot=layers <= 8,
            fmt=".2f",
            annot_kws={"size": 7},
            cbar=axis is axes[0, -1],
            cbar_kws={"label": "cosine"},
            linewidths=0.5,
        )
        axis.set(xlabel="", ylabel="layer")
        axis.set_title(f"{titles[a]} – {titles[b]}", fontsize=10)
        axis.tick_params(axis="x", rotation=60)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    return figure


def route_directions(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Cosines of updates everywhere, on the shared route, off it and on random routes; a panel experts and stages."""
    kinds = list(dict.fromkeys(table["of"]))
    names = list(dict.fromkeys(zip(table["a"], table["b"], strict=True)))
    figure = Figure(figsize=(4.7 * len(kinds) + 0.8, 0.5 * len(names) + 1.8), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(kinds), sharey=True, sharex=True))
    shown = {"on_route": ("on the shared route", PALETTE[1], "D"), "off_route": ("off it", PALETTE[5], "s"),
             "everywhere": ("everywhere", INK, "|")}  # fmt: skip
    for axis, kind in zip(axes, kinds, strict=True):
        for i, (a, b) in enumerate(names):
            rows = table[(table["of"] == kind) & (table["a"] == a) & (table["b"] == b)]
            axis.plot([rows["random_low"].mean(), rows["random_high"].mean()], [i, i], color=QUIET, lw=7, alpha=0.4,
                      solid_capstyle="butt", label="random routes, 95 %" if i == 0 else None)  # fmt: skip
            for column, (label, colour, marker) in shown.items():
                axis.plot(rows[column], np.full(len(rows), i), marker, ms=9 if marker == "|" else 5, mew=1.6, ls="",
                          color=colour, alpha=0.8, label=label if i == 0 else None)  # fmt: skip
        axis.axvline(0, color=INK, lw=0.7)
        axis.set(title=f"updates of the {kind}", xlabel="cosine")
    axes[0].set_yticks(range(len(names)), [f"{titles[a]} – {titles[b]}" for a, b in names])
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4, frameon=False, fontsize=9)
    return figure


def damage_matrix(damage: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Measured damage of all ordered pairs: a row the domain that is hurt, a column the domain trained after it."""
    mean = damage.groupby(["a", "b"])["damage"].agg(["mean", "std"]).reset_index()
    names = [domain for domain in titles if domain in set(damage["a"])]
    values = mean.pivot(index="a", columns="b", values="mean").loc[names, names]
    spread = mean.pivot(index="a", columns="b", values="std").loc[names, names]
    texts = [
        [
            "" if np.isnan(v) else f"{v:+.1f}" + ("" if np.isnan(s) else f"\n±{s:.1f}")
            for v, s in zip(vs, ss, strict=True)
        ]
        for vs, ss in zip(values.to_numpy(), spread.to_numpy(), strict=True)
    ]
    limit = float(np.nanmax(np.abs(values.to_numpy())))
    figure = Figure(figsize=(0.95 * len(names) + 2.6, 0.75 * len(names) + 1.1), layout="constrained")
    axis = figure.subplots()
    sns.heatmap(
        values.rename(index=titles, columns=titles),
        ax=axis,
        annot=np.array(texts),
        fmt="",
        annot_kws={"size": 9},
        cmap=DIVERGING.reversed(),
        vmin=-limit,
        vmax=limit,
        linewidths=1,
        cbar_kws={"label": "damage (points)"},
    )
    axis.set(xlabel="trained after it", ylabel="is hurt")
    axis.tick_params(axis="y", rotation=0)
    return figure


def predictions(table: pd.DataFrame, predictors: Mapping[str, str], titles: dict[str, str]) -> Figure:
    """Measured damage against every predictor: a dot a pair and seed, in the colour of the domain that is hurt."""
    columns = min(3, len(predictors))
    rows = -(-len(predictors) // columns)
    figure = Figure(figsize=(3.3 * columns + 0.3, 2.6 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    palette = colours(list(titles))
    for axis, (name, label) in zip(axes.flat, predictors.items(), strict=False):
        for domain, part in table.groupby("a", sort=False):
            axis.plot(
                part[name], part["damage"], "o", ms=4, alpha=0.7, color=palette[str(domain)], label=titles[str(domain)]
            )
        axis.axhline(0, color=INK, lw=0.7)
        axis.locator_params(axis="x", nbins=4)
        axis.set_xlabel(label, fontsize=8.5)
    for row in axes:
        row[0].set_ylabel("damage (points)")
    for axis in axes.flat[len(predictors) :]:
        axis.set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=len(labels), frameon=False, fontsize=9)
    return figure


def rank_correlations(table: pd.DataFrame, predictors: Mapping[str, str]) -> Figure:
    """Rank correlation of every predictor with the measured damage, with its interval and the range over seeds."""
    names = [name for name in predictors if name in set(table["predictor"])]
    figure = Figure(figsize=(8.2, 0.42 * len(names) + 1.2), layout="constrained")
    axis = figure.subplots()
    rows = table.set_index("predictor")
    for i, name in enumerate(names):
        row = rows.loc[name]
        axis.plot([row["smallest"], row["largest"]], [i, i], color=QUIET, lw=6, alpha=0.35, solid_capstyle="butt")
        axis.plot(np.clip([row["low"], row["high"]], -1, 1), [i, i], color=PALETTE[0], lw=1.6)
        axis.plot(row["correlation"], i, "o", color=PALETTE[0], ms=6)
    axis.axvline(0, color=INK, lw=0.8)
    axis.set_yticks(range(len(names)), [predictors[name] for name in names])
    axis.invert_yaxis()
    axis.set(
        xlabel="rank correlation with the measured damage (line: 95 % interval, bar: range over seeds)",
        xlim=(-1.02, 1.02),
    )
    return figure
