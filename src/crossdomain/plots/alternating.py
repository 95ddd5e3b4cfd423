"""Figures of chapter 7: deviations of a cycle and their order, many cycles, and refreshes of all domains."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crossdomain.alternating import (
    A_ALONE,
    A_FIRST,
    A_WRONG,
    AVERAGED,
    B_ALONE,
    B_FIRST,
    JOINT,
    LOSS_A,
    LOSS_B,
    PARAMETERS,
)
from crossdomain.plots import INK, PALETTE, QUIET, colours, seed_lines

KINDS = {
    (A_ALONE, False): ("A alone, two steps (control)", QUIET, ":"),
    (A_FIRST, False): ("A first", PALETTE[0], "-"),
    (AVERAGED, False): ("mean of both orders", PALETTE[2], "-"),
    (A_WRONG, True): ("A first, the other order's correction (control)", QUIET, "--"),
    (A_FIRST, True): ("A first, corrected", PALETTE[0], "--"),
    (AVERAGED, True): ("mean, corrected", PALETTE[2], "--"),
}


def deviations(table: pd.DataFrame, orders: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """How far a cycle of the main pair ends from its predictions against α, and the orders in α of all pairs."""
    figure = Figure(figsize=(10.4, 4.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    a, b = table[["a", "b"]].iloc[0]
    main = table[(table["a"] == a) & (table["b"] == b) & (table["quantity"] == PARAMETERS)]
    for (order, corrected), (label, colour, style) in KINDS.items():
        rows = main[(main["order"] == order) & (main["corrected"] == corrected)]
        wide = 100 * rows.pivot(index="multiple", columns="seed", values="relative")
        seed_lines(left, wide, colour, label, ls=style, marker="o", ms=3)
    left.set(
        xscale="log",
        yscale="log",
        xlabel="step α, in units of 1/(λ_A + λ_B)",
        ylabel="off the end of a cycle (% of the joint step)",
        title=f"A = {titles[a]}, B = {titles[b]}",
    )
    left.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.45, -0.14), ncol=2)

    quantities = {PARAMETERS: ("o", "parameters"), LOSS_A: ("^", "loss of A"), LOSS_B: ("v", "loss of B")}
    for i, ((order, corrected), (_, colour, _)) in enumerate(KINDS.items()):
        rows = orders[(orders["order"] == order) & (orders["corrected"] == corrected)]
        for k, (quantity, (marker, name)) in enumerate(quantities.items()):
            slopes = rows.loc[rows["quantity"] == quantity, "slope"]
            right.plot(slopes, np.full(len(slopes), i + 0.22 * (k - 1)), marker, color=colour, ms=4, alpha=0.7)
            if i == 0:
                right.plot([], [], marker, color=INK, ms=4, label=name)
    right.set_yticks(
        range(len(KINDS)), [label.replace(", ", ",\n").replace(" (", "\n(") for label, *_ in KINDS.values()]
    )
    right.tick_params(axis="y", labelsize=8)
    right.invert_yaxis()
    right.set(xlabel="order in α (slope for small α)", xlim=(0.5, 3.5), title="all pairs and seeds")
    for slope in (1, 2, 3):
        right.axvline(slope, color=INK, lw=0.7, ls=":")
    right.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.14), ncol=3)
    return figure


def descents(table: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Cycles against joint steps and steps on one loss alone: both losses, gradients and the distance between the ways."""
    a, b = table[["a", "b"]].iloc[0]
    palette = colours(list(titles))
    ways = {
        JOINT: ("joint steps", INK, "-"),
        A_FIRST: (f"{titles[a]} first", PALETTE[4], "--"),
        B_FIRST: (f"{titles[b]} first", PALETTE[5], "--"),
        A_ALONE: (f"{titles[a]} alone (control)", palette[a], ":"),
        B_ALONE: (f"{titles[b]} alone (control)", palette[b], ":"),
    }
    shown = table.assign(
        score_a=-100 * table["held_out_a"],
        score_b=-100 * table["held_out_b"],
        apart=100 * table["gap"] / table["moved"].where(table["moved"] > 0),
    )
    panels = {
        "score_a": f"{titles[a]}, test prompts (points)",
        "score_b": f"{titles[b]}, test prompts (points)",
        "gradient": "‖g_A + g_B‖",
        "min_norm": "shortest ‖γg_A + (1 − γ)g_B‖",
        "cosine": "cosine of g_A and g_B",
        "apart": "off the joint steps (% of way)",
    }
    figure = Figure(figsize=(10.4, 6.2), layout="constrained")
    axes = figure.subplots(2, 3)
    for axis, (column, label) in zip(axes.flat, panels.items(), strict=True):
        for way, (name, colour, style) in ways.items():
            if column == "apart" and way == JOINT:
                continue
            wide = shown[shown["way"] == way].pivot(index="cycle", columns="seed", values=column)
            seed_lines(axis, wide, colour, name, ls=style, lw=2)
        axis.set(xlabel="cycles", ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes[0, 2], axes[1, 0], axes[1, 2]:
        axis.set_ylim(bottom=0)
    axes[1, 1].axhline(0, color=INK, lw=0.7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3, frameon=False, fontsize=9)
    return figure


def refreshes(changes: pd.DataFrame, totals: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """What every refresh changes in every domain, and the average and the worst score it leaves; a dot a seed."""
    rows = changes[(changes["split"] == "test") & (changes["decoding"] == "T=1")]
    methods, palette = list(dict.fromkeys(rows["step"])), colours(list(titles))
    figure = Figure(figsize=(10.4, 0.62 * len(methods) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.6, 1])
    height = 0.8 / len(titles)
    for k, (domain, title) in enumerate(titles.items()):
        for i, method in enumerate(methods):
            found = rows[(rows["step"] == method) & (rows["domain"] == domain)]["change"]
            y = i + (k - (len(titles) - 1) / 2) * height
            label = title if i == 0 else None
            left.barh(y, found.mean(), height=0.92 * height, color=palette[domain], alpha=0.75, label=label)
            left.plot(found, np.full(len(found), y), "o", ms=2.6, color=palette[domain], mec="white", mew=0.4)
    left.axvline(0, color=INK, lw=0.8)
    left.set_yticks(range(len(methods)), methods)
    left.invert_yaxis()
    left.set_xlabel("change since the damaged policy (points)")
    left.legend(frameon=False, fontsize=9, ncol=len(titles), loc="lower center", bbox_to_anchor=(0.5, 1.0))

    order = ["no refresh", *methods]
    for column, marker, colour in (("average", "o", PALETTE[0]), ("worst", "s", PALETTE[1])):
        for i, method in enumerate(order):
            found = totals.loc[totals["method"] == method, column]
            right.plot(found, np.full(len(found), i), marker, ms=3.5, color=colour, alpha=0.45)
            label = f"{column} over domains" if i == 0 else None
            right.plot(found.mean(), i, marker, ms=8, color=colour, mec=INK, mew=0.7, label=label)
    right.set_yticks(range(len(order)), order)
    right.tick_params(axis="y", labelsize=9)
    right.invert_yaxis()
    right.set_xlabel("score (points)")
    right.legend(frameon=False, fontsize=9, ncol=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure
