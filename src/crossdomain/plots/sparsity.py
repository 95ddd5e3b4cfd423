"""Figures of chapter 2: how small and sparse edits are, where they lie, which neurons they share, what precision does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from crossdomain import anatomy, paper
from crossdomain.plots import INK, PALETTE, QUIET, colours, seed_lines

MODULES = tuple(module for module, block in anatomy.MODULES.items() if block in ("attention", "mlp"))
VARIANTS = {"float32": PALETTE[0], "float32, stored as bfloat16": PALETTE[2], "bfloat16": PALETTE[1]}


def unchanged_shares(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Share of the weights that move by at most a threshold, absolutely and relatively: a line an expert, over seeds."""
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    palette = colours(list(titles))
    for axis, kind in zip(axes, ("absolute", "relative"), strict=True):
        part = table[(table["kind"] == kind) & (table["subtraction"] == "float32")]
        thresholds = sorted(part["threshold"].unique())
        for domain, rows in part.groupby("domain", sort=False):
            wide = rows.pivot(index="threshold", columns="seed", values="share").loc[thresholds]
            wide = wide.set_axis(range(len(thresholds)))
            seed_lines(axis, wide, palette[str(domain)], titles[str(domain)])
        axis.axhspan(paper.value("unchanged_low"), paper.value("unchanged_high"), color=QUIET, alpha=0.25, lw=0)
        axis.set_xticks(range(len(thresholds)), ["0" if t == 0 else f"1e{np.log10(t):.0f}" for t in thresholds])
        axis.set(xlabel=f"{kind} threshold", title=f"{kind} change at most the threshold", ylim=(-3, 103))
    axes[0].set_ylabel("weights (%)")
    axes[0].text(
        0.1, (paper.value("unchanged_low") + paper.value("unchanged_high")) / 2, "the paper", va="center", color=INK
    )
    axes[1].legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def edit_map(tensors: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Relative norm of the edit by layer and module: a panel a domain, means over seeds."""
    part = tensors[tensors["module"].isin(MODULES) & tensors["layer"].notna() & tensors["name"].str.endswith("weight")]
    domains = [domain for domain in titles if domain in set(part["domain"])]
    modules = [module for module in MODULES if module in set(part["module"])]
    layers = int(part["layer"].max()) + 1
    figure = Figure(figsize=(2.6 * len(domains) + 1.2, 0.42 * layers + 1.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(domains), sharey=True))
    values = {
        d: 100
        * part[part["domain"] == d].groupby(["layer", "module"])["relative_norm"].mean().unstack("module")[modules]
        for d in domains
    }
    everything = np.concatenate([frame.to_numpy().ravel() for frame in values.values()])
    positive = everything[everything > 0]
    scale = LogNorm(positive.min(), positive.max()) if len(positive) else None
    for axis, domain in zip(axes, domains, strict=True):
        frame = values[domain]
        frame.index = frame.index.astype(int)
        sns.heatmap(
            frame.rename(columns=lambda m: m.removesuffix("_proj")),
            ax=axis,
            annot=layers <= 8,
            fmt=".2g",
            annot_kws={"size": 8},
            norm=scale,
            cmap="cividis",
            cbar=axis is axes[-1],
            cbar_kws={"label": "‖edit‖ / ‖weights‖ (%)"},
            linewidths=0.5,
        )
        axis.set(title=titles[domain], xlabel="", ylabel="layer" if axis is axes[0] else "")
        axis.tick_params(axis="x", rotation=60)
    return figure


def effective_ranks(tensors: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Effective rank of every matrix's edit by module: a dot a matrix and seed, a tick the mean of a domain."""
    part = tensors[tensors["module"].isin(MODULES) & tensors["effective_rank"].notna()]
    modules = [module for module in MODULES if module in set(part["module"])]
    figure = Figure(figsize=(8.4, 0.5 * len(modules) + 1.4), layout="constrained")
    axis = figure.subplots()
    palette = colours(list(titles))
    domains = [domain for domain in titles if domain in set(part["domain"])]
    for i, domain in enumerate(domains):
        rows = part[part["domain"] == domain]
        y = rows["module"].map(modules.index) + (i - (len(domains) - 1) / 2) * 0.18
        axis.plot(
            rows["effective_rank"], y, "o", ms=3.2, alpha=0.55, color=palette[str(domain)], label=titles[str(domain)]
        )
    axis.set_yticks(range(len(modules)), [module.removesuffix("_proj") for module in modules])
    axis.invert_yaxis()
    axis.set(xlabel="effective rank of the edit (participation ratio of squared singular values)", xscale="log")
    axis.legend(frameon=False, fontsize=9, ncol=len(domains), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def overlap_heatmaps(pairs: pd.DataFrame, own: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Jaccard of all pairs of sets, a panel a `panel`: chance below each value; on the diagonal a set's own stability.

    Args:
        pairs: rows with `panel`, `a`, `b` (labels), `jaccard`, `chance_text`.
        own: rows with `panel`, `label`, `jaccard`: overlap of a set with another estimate of itself; may be empty.
        titles: what the labels are called.
    """
    panels = list(dict.fromkeys(pairs["panel"]))
    labels = [label for label in titles if label in {*pairs["a"], *pairs["b"]}]
    figure = Figure(figsize=(4.4 * len(panels) + 0.8, 0.75 * len(labels) + 1.5), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axis, panel in zip(axes, panels, strict=True):
        part = pairs[pairs["panel"] == panel].groupby(["a", "b"], sort=False)
        values = np.full((len(labels), len(labels)), np.nan)
        texts = np.full(values.shape, "", dtype=object)
        for (a, b), rows in part:
            i, j = sorted((labels.index(a), labels.index(b)), reverse=True)
            values[i, j] = rows["jaccard"].mean()
            texts[i, j] = f"{values[i, j]:.2f}\n({rows['chance_text'].iloc[0]})"
        for label, rows in own[own["panel"] == panel].groupby("label"):
            i = labels.index(str(label))
            values[i, i] = rows["jaccard"].mean()
            texts[i, i] = f"itself\n{values[i, i]:.2f}"
        names = [titles[label] for label in labels]
        sns.heatmap(
            pd.DataFrame(values, names, names),
            ax=axis,
            annot=texts,
            fmt="",
            annot_kws={"size": 8.5},
            vmin=0,
            vmax=max(0.5, float(np.nanmax(values))),
            cmap="cividis",
            mask=np.isnan(values),
            cbar=axis is axes[-1],
            cbar_kws={"label": "Jaccard"},
            linewidths=1,
        )
        axis.set(title=panel)
        axis.grid(False)
    return figure


def layer_profiles(profile: pd.DataFrame, titles: dict[str, str], share: float) -> Figure:
    """Where the top-changed neurons lie: their share of every layer's neurons, a line a domain, over seeds."""
    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    axis = figure.subplots()
    palette = colours(list(titles))
    for domain, rows in profile.groupby("domain", sort=False):
        wide = rows.pivot(index="layer", columns="seed", values="share")
        seed_lines(axis, wide, palette[str(domain)], titles[str(domain)], marker="o", ms=4)
    axis.axhline(100 * share, color=INK, lw=1, ls="--")
    axis.text(axis.get_xlim()[0], 100 * share, " all layers alike", va="bottom", fontsize=8.5, color=INK)
    axis.set(xlabel="layer", ylabel="top-changed neurons (% of the layer)", ylim=(0, None))
    axis.set_xticks(sorted(profile["layer"].unique()) if profile["layer"].nunique() <= 12 else axis.get_xticks())
    axis.legend(frameon=False, fontsize=9)
    return figure


def precision(table: pd.DataFrame, domain: str) -> Figure:
    """The precision experiment: unchanged share, size of the edit and gain against the learning rate, a line a variant."""
    figure = Figure(figsize=(10.4, 3.7), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = {
        "unchanged": "weights unchanged (%)",
        "relative_norm": "‖edit‖ / ‖weights‖ (%)",
        "gain": f"gain of {domain} (points)",
    }
    for axis, (column, label) in zip(axes, panels.items(), strict=True):
        for variant, colour in VARIANTS.items():
            wide = table[table["variant"] == variant].pivot(index="learning_rate", columns="seed", values=column)
            seed_lines(axis, wide, colour, variant, marker="o", ms=4)
        axis.set(xscale="log", xlabel="learning rate", ylabel=label)
    axes[1].set_yscale("log")
    axes[0].axhspan(paper.value("unchanged_low"), paper.value("unchanged_high"), color=QUIET, alpha=0.25, lw=0)
    axes[0].set(ylim=(-3, 103))
    axes[2].axhline(0, color=INK, lw=0.8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=len(labels), frameon=False, fontsize=9)
    return figure
