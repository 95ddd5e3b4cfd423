"""Words of chapter 5 on what refreshes give and cost (C9): selectivity, budget, collateral, and the chapter's verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from crossdomain import paper, stats
from crossdomain.recovery import DESCENT, GRPO, MATCHED, RANDOM, ROUTE, WHOLE
from crossdomain.words import number, plain, points, sure
from crossdomain.words.refresh import HOLDS, as_percent, ends_of
from crossdomain.words.sparsity import by_seed


def selectivity(matrix: pd.DataFrame, beyond: pd.DataFrame, titles: dict[str, str]) -> str:
    """C9: whether a domain is brought back by its own refresh and by no other."""
    lines = [
        "What a domain gains under its own refresh, and beyond the refresh of another domain that helps it most:",
        "",
    ]
    selective = []
    for domain, rows in beyond.groupby("domain", sort=False):
        own, more = by_seed(rows, "own"), by_seed(rows, "beyond")
        best = titles[str(rows["best"].mode().iloc[0])]
        lost = matrix[(matrix["domain"] == domain)]["lost"].mean()
        lines.append(
            f"* **{titles[str(domain)]}** (had lost {plain(lost, 1)}): {points(own, sign=True)}; beyond {best}'s "
            f"{points(more, sign=True)}."
        )
        if more.value > 0:
            selective.append(titles[str(domain)])
    off = matrix[matrix["refreshed"] != matrix["domain"]]
    worst = off.groupby(["refreshed", "domain"])["change"].mean().sort_values()
    refreshed, hurt = (titles[name] for name in worst.index[0])
    lines += [
        "",
        f"A domain gains most under its own refresh in {len(selective)} of {beyond['domain'].nunique()} domains"
        + (f" ({', '.join(selective)})." if selective else "."),
        f"The largest harm is that of the {refreshed} refresh to {hurt}: {plain(worst.iloc[0], 1, sign=True)} points."
        if worst.iloc[0] < 0
        else "No refresh harms another domain.",
    ]
    return "\n".join(lines)


def budget(table: pd.DataFrame, title: str) -> str:
    """C9: points for steps, over learning rates and batch sizes, against first learning."""
    last = table[table["step"] == table["step"].max()]
    lines = [
        f"**The paper** refreshes for about {paper.value('refresh_steps'):.0f} steps (secondary sources). **We measured** "
        f"after {last['step'].iloc[0]} steps, with how many times as many steps and completions first learning of {title} "
        "took for the same points (≥ where it never reached them in some seed):",
        "",
    ]
    for (rate, batch), rows in last.groupby(["rate", "batch"]):
        own = ", the profile's own" if rows["own"].any() else ""
        lines.append(
            f"* rate {rate:.1e}, {batch} completions a step{own}: {points(by_seed(rows, 'gained'), sign=True)} points, "
            f"other domains {points(by_seed(rows, 'others'), sign=True)}; {_times(rows)}."
        )
    best = last.groupby(["rate", "batch"])["gained"].mean()
    first = table[table["step"] == table["step"].min()]
    rate, batch = best.index[int(np.argmax(best))]
    early = first[(first["rate"] == rate) & (first["batch"] == batch)]
    lines += [
        "",
        f"The most is gained at rate {rate:.1e} with {batch} completions a step; its first {early['step'].iloc[0]} steps "
        f"give {points(by_seed(early, 'gained'), sign=True)} of the {plain(float(best.max()), 1)} points.",
    ]
    return "\n".join(lines)


def _times(rows: pd.DataFrame) -> str:
    known = rows.dropna(subset=["ratio"])
    if known.empty:
        return "no comparison with first learning, since nothing was gained or it began above the damaged score"
    sign = "≥ " if known["at_least"].any() else ""
    return (
        f"first learning {sign}{plain(known['ratio'].mean(), 1)} times the steps, {sign}"
        f"{plain(known['completions_ratio'].mean(), 1)} times the completions"
    )


def collateral(table: pd.DataFrame, titles: dict[str, str]) -> str:
    """Proposition 3: what it allows, what the expansion predicts, and what happened."""
    lines = ["Rise of the other domains' losses on test prompts (below 0 the refresh helps):", ""]
    for (domain, label), rows in table.groupby(["domain", "displacement"], sort=False):
        actual, predicted = (number(by_seed(rows, c), 4, sign=True) for c in ("actual", "predicted"))
        lines.append(
            f"* **{titles[str(domain)]}**, {label} (‖d‖ {plain(rows['norm'].mean(), 3)}): actual {actual}, predicted "
            f"{predicted}, allowed {plain(by_seed(rows, 'bound').value, 3)}."
        )
    held = (table["actual"] <= HOLDS * table["bound"] + 1e-9).mean()
    empty = (table["bound"] > 1).mean()
    known = table[table["displacement"].isin([DESCENT, GRPO]) & (table["bound"] > 0)]
    share = (known["actual"].clip(lower=0) / known["bound"]).median() if len(known) else np.nan
    within = (
        ((known["actual"] - known["predicted"]).abs() <= 2 * known["standard_error"]).mean() if len(known) else np.nan
    )
    lines += [
        "",
        f"The bound holds in {100 * held:.0f} % of the rows; it is more than 1 in {100 * empty:.0f} % of them, and "
        f"an expected reward cannot fall by more. Of what it allows, refreshes do {plain(100 * share, 1)} % "
        f"(median; gains count as no harm): it is for the worst direction, and a refresh does not go there. The expansion "
        f"is within two standard errors of what happened in {plain(100 * within, 0)} % of them.",
    ]
    return "\n".join(lines)


def verdicts(
    table: pd.DataFrame,
    trained: pd.DataFrame,
    beyond: pd.DataFrame,
    cost: pd.DataFrame,
    harm: pd.DataFrame,
    domain: str,
) -> dict[str, Any]:
    """The chapter's statistics by name, as the results keep them: values, or (value, low, high).

    Args:
        table: `contraction` of `recovery.refreshes`.
        trained: its `grpo`.
        beyond: `selectivity.selectivity`.
        cost: `refresh_variants.budget`.
        harm: `collateral` of `recovery.refreshes`.
        domain: A.
    """
    ends = ends_of(table)
    matched = ends[(ends["multiple"] == MATCHED) & (ends["on"] == domain)]
    longest = ends[(ends["multiple"] == ends["multiple"].max()) & (ends["on"] == domain)]
    others = ends[(ends["on"] != domain) & (ends["space"] == WHOLE)]
    grpo = ends_of(trained[trained["own"]].assign(on="", multiple=MATCHED))
    most = table[(table["k"] == table["k"].max()) & (table["step"] > 0) & (table["space"] == WHOLE)]
    bound = most[(most["on"] == domain) & (most["multiple"] == MATCHED)].dropna(subset=["bound"])
    start = (
        matched[matched["space"] == WHOLE].assign(start=lambda x: x["inside"] / x["share"]).set_index("seed")["start"]
    )
    own = cost[cost["own"] & (cost["step"] == cost["step"].max())]
    return {
        "domain": domain,
        "directions": int(table["k"].max()),
        "steps": int(table["step"].max()),
        "descent": by_seed(matched[matched["space"] == WHOLE], "share"),
        "descent_route": by_seed(matched[matched["space"] == ROUTE], "share"),
        "descent_random": by_seed(matched[matched["space"] == RANDOM], "share"),
        "descent_other_domain": by_seed(others, "share") if len(others) else None,
        "longest_multiple": float(longest["multiple"].iloc[0]),
        "descent_longest": by_seed(longest[longest["space"] == WHOLE], "share"),
        "grpo": by_seed(grpo[grpo["space"] == WHOLE], "share"),
        "grpo_random": by_seed(grpo[grpo["space"] == RANDOM], "share"),
        "paper_bound_holds": float((bound["inside"] <= HOLDS * bound["paper_bound"]).mean()),
        "bound_holds": float((bound["inside"] <= HOLDS * bound["bound"]).mean()),
        "bound_says_nothing": float((bound["bound"] >= bound["seed"].map(start)).mean()),
        "selectivity": by_seed(beyond[beyond["domain"] == domain], "beyond"),
        "selective_domains": int((beyond.groupby("domain")["beyond"].mean() > 0).sum()),
        "domains": int(beyond["domain"].nunique()),
        "first_learning_ratio": by_seed(own, "ratio"),
        "collateral_within_bound": float((harm["actual"] <= HOLDS * harm["bound"] + 1e-9).mean()),
    }


def in_short(found: dict[str, Any], titles: dict[str, str]) -> str:
    """The chapter's verdicts from its kept statistics."""
    names = ("descent", "descent_route", "descent_random", "descent_longest", "grpo", "grpo_random", "selectivity")
    descent, route, random, longest, grpo, grpo_random, selective = (stats.Interval(*found[name]) for name in names)
    title = titles[found["domain"]]
    other = found["descent_other_domain"]
    control = f" and, taken on another domain, {as_percent(stats.Interval(*other))}" if other else ""
    unsure = "" if sure(selective) or np.isnan(selective.low) else ", which is not distinguishable from 0"
    whole, in_route = (_contracts(share) for share in (descent, route))
    held, theorem, empty = (
        f"{100 * found[name]:.0f} %" for name in ("paper_bound_holds", "bound_holds", "bound_says_nothing")
    )
    lines = [
        f"* **C8** (contraction): {found['steps']} steps of gradient descent at α = 1/λ_max leave {as_percent(descent)} "
        f"of the update in its {found['directions']} leading directions ({as_percent(route)} in the route's), "
        f"{as_percent(random)} in random directions{control}. "
        f"In directions of all parameters the harmful part {whole}; in the route's it {in_route}. "
        f"At {found['longest_multiple']:g}/λ_max {as_percent(longest)} is left. The paper's bound holds at {held} of the "
        f"steps; Theorem 1's holds at {theorem}, and says nothing at {empty}. The refresh as trained leaves "
        f"{as_percent(grpo)} ({as_percent(grpo_random)} in random directions).",
        f"* **C9** (selective): {title} gains {points(selective, sign=True)} points more under its own refresh than under "
        f"any other{unsure}; "
        f"{found['selective_domains']} of {found['domains']} domains gain most under their own.",
    ]
    ratio = stats.Interval(*found["first_learning_ratio"])
    if not np.isnan(ratio.value):
        lines.append(f"* **Cost**: first learning of the same points took {number(ratio, 1)} times as many steps.")
    lines.append(
        f"* **Collateral**: harm to other domains is within Proposition 3's bound in "
        f"{100 * found['collateral_within_bound']:.0f} % of the cases."
    )
    return "\n".join(lines)


def _contracts(share: stats.Interval) -> str:
    """Whether what is left is less than all, and whether the seeds can tell."""
    unsure = " (not distinguishable from no change)" if share.low <= 1 <= share.high else ""
    return f"{'contracts' if share.value < 1 else 'does **not** contract'}{unsure}"
