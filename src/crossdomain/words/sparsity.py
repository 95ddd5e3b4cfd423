"""Words of chapter 2: what was measured for C1 and C2, what chance gives, and what the precision experiment implies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from crossdomain import overlap, paper, stats
from crossdomain.lineage import Lineage
from crossdomain.sparsity import TOP_SHARE
from crossdomain.words import number, plain, seeds

LOW, HIGH = paper.value("unchanged_low"), paper.value("unchanged_high")


def by_seed(table: pd.DataFrame, column: str) -> stats.Interval:
    """Mean of a column over the known rows of each seed, then over seeds, with its interval; NaN where none is known."""
    means = table.groupby("seed")[column].mean().dropna()
    return stats.seed_mean(means) if len(means) else stats.Interval(np.nan, np.nan, np.nan)


def sparse(unchanged: pd.DataFrame, norms: pd.DataFrame) -> str:
    """C1 on the run's own experts."""
    share = by_seed(_paired(unchanged), "share")
    verdict = (
        "With weights kept in float32 the edits are **dense**: sparsity in the paper's sense does **not** appear."
        if share.value < LOW
        else f"With weights kept in float32 the edits are as sparse as the paper's or more ({plain(share.value, 0)} %)."
    )
    return (
        f"**The paper** says that {LOW:.0f} to {HIGH:.0f} % of the parameters change by less than 1e-7 absolutely "
        f"and less "
        "than 1e-3 relatively (reported in secondary sources). "
        f"**We measured**, over the experts and {seeds(unchanged)}, that {number(share, 1)} % do; "
        f"{number(by_seed(_equal(unchanged), 'share'), 1)} % do not change at all. The edits are small: their norm is "
        f"{number(by_seed(norms, 'relative_norm'), 1)} % of that of the weights.\n\n{verdict}"
    )


def _paired(unchanged: pd.DataFrame) -> pd.DataFrame:
    return unchanged[(unchanged["kind"] == "paper") & (unchanged["subtraction"] == "float32")]


def _equal(unchanged: pd.DataFrame) -> pd.DataFrame:
    exact = (unchanged["kind"] == "absolute") & (unchanged["threshold"] == 0)
    return unchanged[exact & (unchanged["subtraction"] == "float32")]


def ranks(tensors: pd.DataFrame, titles: dict[str, str]) -> str:
    """Effective ranks of the experts' edits in words."""
    known = tensors[tensors["effective_rank"].notna()]
    parts = [
        f"{titles[str(domain)]} {number(by_seed(rows, 'effective_rank'), 1)}"
        for domain, rows in known.groupby("domain", sort=False)
    ]
    return (
        f"Effective rank of a matrix's edit, mean over matrices: {', '.join(parts)}. An edit can be dense and still "
        f"lie in "
        "few directions of a matrix: low rank, unlike sparsity, needs no rounding."
    )


def neuron_overlap(pairs: pd.DataFrame, stability: pd.DataFrame) -> str:
    """C2: overlap of the experts' top-changed neurons against chance, the layer profile and the ceiling."""
    limit = paper.value("neuron_jaccard")
    parts = []
    for scope, rows in pairs.groupby("scope", sort=False):
        beyond = int((rows["jaccard"] > rows["high"]).sum())
        text = (
            f"* **{scope}**: mean Jaccard {number(by_seed(rows, 'jaccard'), 3)}, chance {rows['chance'].mean():.3f}; "
            f"{beyond} of {len(rows)} pairs lie above the 95 % band of random sets"
        )
        if scope == "global":
            above = int((rows["jaccard"] > rows["layer_high"]).sum())
            kept = rows["layer_chance"].mean()
            text += f", {above} above that of sets that keep their numbers per layer (mean {kept:.3f})"
        own = stability[stability["scope"] == scope]["jaccard"]
        if len(own):
            text += f". The same domain under another RL seed on the same base reaches {own.mean():.3f}"
        parts.append(text + ".")
    overall = by_seed(pairs[pairs["scope"] == "global"], "jaccard").value
    tail = f"The overlap over all layers is {'below' if overall < limit else '**not** below'} the paper's bound."
    if stability.empty:
        tail += " No two seeds of this run share a base, so the ceiling (a domain against itself) is not known here."
    head = (
        f"**The paper** reports a mean pairwise Jaccard below {limit:g} for the top {100 * TOP_SHARE:.0f} % of the "
        f"neurons "
        f"(chance {overlap.approximate_chance(TOP_SHARE):.4f}). **We measured**:"
    )
    return "\n".join([head, "", *parts, "", tail])


def precision(table: pd.DataFrame, lineage: Lineage) -> str:
    """What the precision experiment says about the paper's sparsity, and what it does not."""
    mean = table.groupby(["variant", "learning_rate"], sort=False)[["unchanged", "gain"]].mean().reset_index()
    domain = lineage.domains[lineage.profile.refresh].title
    lines = [
        f"{lineage.profile.precision_steps} steps of {domain}, from the same base with the same prompts, mean over "
        f"{seeds(table)}:",
        "",
    ]
    for variant, rows in mean.groupby("variant", sort=False):
        shown = [
            f"{share:.0f} % at {_rate(rate)} ({plain(gain, 1, sign=True)} points)"
            for rate, share, gain in rows[["learning_rate", "unchanged", "gain"]].to_numpy(float).tolist()
        ]
        lines.append(f"* **{variant}**: unchanged {', '.join(shown)}.")
    inside = mean[mean["unchanged"].between(LOW, HIGH)]
    rates = inside["learning_rate"].to_numpy(float).tolist()
    where = [f"{variant} at {_rate(rate)}" for variant, rate in zip(inside["variant"], rates, strict=True)]
    slow = mean[mean["learning_rate"] == mean["learning_rate"].min()].set_index("variant")
    lines += [
        "",
        f"**What it implies.** In float32 the training leaves at most "
        f"{mean[mean['variant'] == 'float32']['unchanged'].max():.0f} % of the weights unchanged. At the smallest "
        f"rate, once "
        f"both checkpoints are rounded to bfloat16, {slow['unchanged']['float32, stored as bfloat16']:.0f} % are: an "
        f"update "
        "smaller than half the distance to the next number vanishes when it is stored. Kept in bfloat16, where it "
        "vanishes "
        f"at every step, {slow['unchanged']['bfloat16']:.0f} % stay, and the stage gains "
        f"{plain(slow['gain']['bfloat16'], 1, sign=True)} points ({plain(slow['gain']['float32'], 1, sign=True)} in "
        f"float32). "
        f"Shares between the paper's {LOW:.0f} and {HIGH:.0f} % appear with: "
        f"{', '.join(where) or 'none of these settings'}. "
        + (
            "So rounding is enough to make sparsity of that size, without any in what reinforcement learning asks for."
            if len(inside) and "float32" not in set(inside["variant"])
            else ""
        ),
        "",
        "**What it does not.** The paper's learning rate, number of steps and precision are not known, so this does not "
        "show that its sparsity *is* rounding; a model of 4 billion parameters may also get gradients that are truly "
        "sparse. The test would be the paper's own run with float32 weights.",
    ]
    return "\n".join(lines)


def _rate(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e−")


def verdicts(
    unchanged: pd.DataFrame,
    norms: pd.DataFrame,
    overlaps: pd.DataFrame,
    stability: pd.DataFrame,
    experiment: pd.DataFrame,
) -> dict[str, Any]:
    """The chapter's statistics by name, each a value or (value, low, high), as the results keep them."""
    everywhere = overlaps[overlaps["scope"] == "global"]
    layered = overlaps[overlaps["scope"] == "within layers"]
    rounded = experiment[experiment["variant"] == "float32, stored as bfloat16"]
    smallest = rounded[rounded["learning_rate"] == rounded["learning_rate"].min()]
    return {
        "unchanged": by_seed(_paired(unchanged), "share"),
        "relative_norm": by_seed(norms, "relative_norm"),
        "unchanged_bfloat16": by_seed(smallest, "unchanged"),
        "smallest_rate": float(rounded["learning_rate"].min()),
        "neuron_jaccard": by_seed(everywhere, "jaccard"),
        "neuron_jaccard_within_layers": by_seed(layered, "jaccard"),
        "neuron_chance": float(everywhere["chance"].mean()),
        "neuron_chance_layers_kept": float(everywhere["layer_chance"].mean()),
        "neuron_ceiling": float(stability[stability["scope"] == "global"]["jaccard"].mean())
        if len(stability)
        else None,
    }


def in_short(found: dict[str, Any]) -> str:
    """The chapter's verdicts from its kept statistics."""
    share, size, rounded = (stats.Interval(*found[k]) for k in ("unchanged", "relative_norm", "unchanged_bfloat16"))
    jaccard, within = (stats.Interval(*found[k]) for k in ("neuron_jaccard", "neuron_jaccard_within_layers"))
    sparse_here, weak = share.value >= LOW, jaccard.value < paper.value("neuron_jaccard")
    ceiling = found["neuron_ceiling"]
    against = (
        f" Another seed of the same domain on the same base overlaps by {ceiling:.2f}." if ceiling is not None else ""
    )
    return (
        f"* **C1** (sparse, small edits): small, {number(size, 1)} % of the weights' norm; "
        f"{'' if sparse_here else '**not** '}sparse in float32, where {number(share, 1)} % of the weights stay "
        f"within the paper's thresholds. Rounded to "
        f"bfloat16 after "
        f"training at {_rate(found['smallest_rate'])} it is {number(rounded, 1)} %.\n"
        f"* **C2** (weak overlap of top-changed neurons): mean Jaccard {number(jaccard)}, "
        f"{'below' if weak else '**not** below'} the paper's {paper.value('neuron_jaccard'):g}; chance is "
        f"{found['neuron_chance']:.3f}, and {found['neuron_chance_layers_kept']:.3f} for sets that keep their "
        f"numbers per "
        f"layer. Within layers it is {number(within)}.{against}"
    )
