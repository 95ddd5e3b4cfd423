"""Words of chapter 3: what was measured for C3, C4 and C5, and which predictor tells who will hurt whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pandas as pd

from crossdomain import paper, stats
from crossdomain.words import number, plain, sure
from crossdomain.words.sparsity import by_seed

LEVEL = 0.05  # of the randomisation tests, divided by their number (Bonferroni)


def gradients(pairs: pd.DataFrame, extremes: pd.DataFrame, titles: dict[str, str]) -> str:
    """C3: global cosines against their noise ceiling, and module extremes against noise."""
    lines = [
        f"**The paper** reports a global cosine of about {paper.value('gradient_cosine'):g} for Math and QA, while "
        f"single "
        "modules conflict and agree and nearly cancel (reported in secondary sources). **We measured**:",
        "",
    ]
    for (a, b), rows in _pairs(pairs.dropna(subset="cosine")):
        first, second = rows["split_half_a"].mean(), rows["split_half_b"].mean()
        known = rows["corrected"].dropna()
        corrected = plain(known.mean()) if len(known) else "unknown, noise is too large"
        lines.append(
            f"* {titles[a]} – {titles[b]}: cosine {number(by_seed(rows, 'cosine'))}; with noise taken out "
            f"{corrected}; each "
            f"with itself {plain(first)} and {plain(second)}."
        )
    unknown = pairs["cosine"].isna()
    if unknown.any():
        lines.append(
            f"* {int(unknown.sum())} of {len(pairs)} pairs and seeds have **no cosine** and are left out below: the "
            f"gradient of {', '.join(titles[domain] for domain in _without_gradient(pairs))} is zero, since the rewards "
            f"of each of its groups were all equal."
        )
    if unknown.all():
        return "\n".join(lines)
    largest = plain(pairs["cosine"].abs().max())
    return "\n".join(
        [*lines, "", f"The largest absolute cosine of any pair and seed is {largest}. {_extremes(extremes)}"]
    )


def _without_gradient(pairs: pd.DataFrame) -> list[str]:
    """Domains whose gradient is zero in some seed: no cosine of theirs is known there, with themselves neither."""
    found = pd.concat(
        [pairs[["seed", side, "cosine", f"split_half_{side}"]].set_axis(["seed", "domain", "cosine", "own"], axis=1)
         for side in "ab"]
    )  # fmt: skip
    unknown = (found["cosine"].isna() & found["own"].isna()).groupby([found["domain"], found["seed"]], sort=False).all()
    return list(dict.fromkeys(domain for domain, _ in unknown[unknown].index))


def _pairs(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """The rows of each pair of domains."""
    for key, rows in table.groupby(["a", "b"], sort=False):
        a, b = cast(tuple[str, str], key)
        yield (a, b), rows


def _extremes(extremes: pd.DataFrame) -> str:
    tests = int(extremes.groupby("seed").size().max())
    parts = []
    for name, kind in (("conflict", "conflicting"), ("synergy", "synergistic")):
        rows = extremes[extremes["extreme"] == name]
        beyond = int((rows["p"] < LEVEL / tests).sum())
        parts.append(
            f"The most {kind} matrix of a pair has cosine {plain(rows['cosine'].mean())} on average, where noise "
            f"alone gives "
            f"{plain(rows['noise'].mean())}; {beyond} of {len(rows)} go beyond noise (5 % level, corrected for the "
            f"{tests} "
            "tests of a seed)."
        )
    smallest = 1 / (1 + extremes["patterns"].min())
    if smallest > LEVEL / tests:
        parts.append(f"In so few parts no p below {smallest:.3f} is possible: at that level this run cannot tell.")
    return " ".join(parts)


def route_overlap(overlaps: pd.DataFrame, stability: pd.DataFrame, share: float) -> str:
    """C4: overlap of routes against chance and against a route's overlap with itself."""
    lines = [
        "**The paper** says that domains share active computation routes; how it scores a route is not public. "
        f"**We measured**, by contribution, top {100 * share:.0f} % of the units:",
        "",
    ]
    for (at, kind), rows in overlaps.groupby(["at", "kind"], sort=False):
        own = stability[(stability["at"] == at) & (stability["kind"] == kind)].groupby("across")["jaccard"].mean()
        ceiling = " and ".join(f"{plain(value)} across {across}" for across, value in own.items())
        beyond = int((rows["jaccard"] > rows["layer_high"]).sum())
        lines.append(
            f"* {kind}s {at}: mean Jaccard of two domains {number(by_seed(rows, 'jaccard'))}, chance "
            f"{rows['chance'].mean():.3f} ({rows['layer_chance'].mean():.3f} with layers kept); {beyond} of {len(rows)} "
            f"pairs lie beyond the 95 % band with layers kept. A domain with itself: {ceiling}."
        )
    return "\n".join(lines)


def other_scores(overlaps: pd.DataFrame, stability: pd.DataFrame, share: float) -> str:
    """The same by the other scores, in a sentence each."""
    parts = []
    for score, rows in overlaps[(overlaps["share"] == share) & (overlaps["kind"] == "neuron")].groupby(
        "score", sort=False
    ):
        own = stability[
            (stability["score"] == score)
            & (stability["share"] == share)
            & (stability["kind"] == "neuron")
            & (stability["across"] == "prompt halves")
        ]
        parts.append(f"{score} {number(by_seed(rows, 'jaccard'))} (itself {plain(own['jaccard'].mean())})")
    return f"By score, neurons, both checkpoints together: {', '.join(parts)}."


def direction(table: pd.DataFrame, titles: dict[str, str]) -> str:
    """C5: directions of updates on the shared route and off it, against random routes."""
    lines = [
        "**The paper** says that on shared routes the direction of updates decides between synergy and conflict. "
        "**We measured** cosines of updates:",
        "",
    ]
    for of, rows in table.groupby("of", sort=False):
        below, above = _outside(rows)
        most = rows.groupby(["a", "b"])["on_route"].mean().sort_values()
        lowest, highest = (" – ".join(titles[d] for d in most.index[i]) for i in (0, -1))
        on, off, everywhere = (number(by_seed(rows, where), 3) for where in ("on_route", "off_route", "everywhere"))
        lines.append(
            f"* **{of}**: {everywhere} everywhere, {on} on the shared route, {off} off it. Outside the 95 % band of "
            f"random "
            f"routes lie {below + above} of {len(rows)}, {below} of them on the side of conflict. Lowest on the route is "
            f"{lowest} ({plain(most.iloc[0], 3)}), highest {highest} ({plain(most.iloc[-1], 3)}). Signs agree in "
            f"{100 * rows['agree_on'].mean():.1f} % of the coordinates on the route, "
            f"{100 * rows['agree_off'].mean():.1f} % "
            "off it."
        )
    return "\n".join(lines)


def _outside(rows: pd.DataFrame) -> tuple[int, int]:
    below, above = rows["on_route"] < rows["random_low"], rows["on_route"] > rows["random_high"]
    return int(below.sum()), int(above.sum())


def damages(damage: pd.DataFrame, titles: dict[str, str], steps: int) -> str:
    """What training every domain after every other did."""
    mean = damage.groupby(["a", "b"])["damage"].mean().sort_values()
    sure_in_all = damage.assign(sure=damage["low"] > 0).groupby(["a", "b"])["sure"].all()
    (a, b), (c, d) = mean.index[-1], mean.index[0]
    worst, best = (plain(-mean.iloc[i], 1, sign=True) for i in (-1, 0))
    return (
        f"{steps} steps of a second domain change the first by {plain(-mean.mean(), 1, sign=True)} points on average. "
        f"{titles[b]} takes most from {titles[a]} ({worst}); the least harm is that of {titles[d]} to {titles[c]} "
        f"({best}). "
        f"In {int(sure_in_all.sum())} of {len(mean)} pairs every seed loses more than its interval over prompts."
    )


def prediction(correlations: pd.DataFrame, predictors: Mapping[str, str], control: str) -> str:
    """Which predictor ranks the damage, if any."""
    found = by_predictor(correlations)
    lines = listed(found, predictors)
    works = [name for name, interval in found.items() if interval.low > 0 and name != control]
    wrong = [name for name, interval in found.items() if interval.high < 0]
    if works:
        best = max(works, key=lambda name: found[name].value)
        verdict = f"The best predictor is “{predictors[best]}” ({plain(found[best].value, sign=True)})"
    else:
        verdict = (
            "**None** of the structural predictors tells who will hurt whom beyond what these pairs and seeds can show"
        )
    if control in found:
        verdict += f"; the size of B's update alone gives {plain(found[control].value, sign=True)}"
    if wrong:
        verdict += f". Pointing the wrong way: {', '.join(predictors[name] for name in wrong)}"
    return "\n".join([*lines, "", verdict + "."])


def listed(found: Mapping[str, stats.Interval], predictors: Mapping[str, str]) -> list[str]:
    """Lines of a list of predictors with their rank correlations."""
    lines = ["Rank correlation with the measured damage over the ordered pairs, mean over seeds:", ""]
    for name, interval in found.items():
        mark = "" if sure(interval) else ", not distinguishable from 0"
        lines.append(f"* {predictors[name]}: {number(interval, sign=True)}{mark}")
    return lines


def by_predictor(table: pd.DataFrame) -> dict[str, stats.Interval]:
    """The rank correlation of each predictor, from the rows of `pairs.rank_correlations`."""
    values = table[["correlation", "low", "high"]].to_numpy(float).tolist()
    return {name: stats.Interval(*row) for name, row in zip(table["predictor"], values, strict=True)}


def verdicts(
    pairs: pd.DataFrame,
    extremes: pd.DataFrame,
    routes: Sequence[pd.DataFrame],
    directions: pd.DataFrame,
    correlations: pd.DataFrame,
) -> dict[str, Any]:
    """The chapter's statistics by name, as the results keep them: values, or (value, low, high)."""
    overlaps, stability = (table[table["kind"] == "neuron"] for table in routes)
    last = overlaps[overlaps["at"] == overlaps["at"].iloc[-1]]
    own = stability[(stability["at"] == last["at"].iloc[0]) & (stability["across"] == "prompt halves")]
    experts = directions[directions["of"] == "experts"]
    below, above = _outside(experts)
    tests = int(extremes.groupby("seed").size().max()) if len(extremes) else 1
    found = by_predictor(correlations)
    best = max(found, key=lambda name: found[name].value, default="")
    return {
        "gradient_cosine": by_seed(pairs.assign(size=pairs["cosine"].abs()), "size"),
        "gradient_ceiling": float(pd.concat([pairs["split_half_a"], pairs["split_half_b"]]).mean()),
        "modules_beyond_noise": int((extremes["p"] < LEVEL / tests).sum()),
        "modules_tested": len(extremes),
        "route_jaccard": by_seed(last, "jaccard"),
        "route_chance": float(last["layer_chance"].mean()),
        "route_ceiling": float(own["jaccard"].mean()),
        "direction_on_route": by_seed(experts, "on_route"),
        "direction_off_route": by_seed(experts, "off_route"),
        "direction_conflicts": below,
        "direction_synergies": above,
        "direction_pairs": len(experts),
        "best_predictor": best,
        "best_correlation": found.get(best),
    }


def in_short(found: dict[str, Any], predictors: Mapping[str, str]) -> str:
    """The chapter's verdicts from its kept statistics."""
    cosine, route, on, off = (
        stats.Interval(*found[name])
        for name in ("gradient_cosine", "route_jaccard", "direction_on_route", "direction_off_route")
    )
    orthogonal, ceiling = cosine.value < 0.1, found["gradient_ceiling"]
    shared = route.low > found["route_chance"] or (route.value > found["route_chance"] and route.low != route.low)
    lines = [
        f"* **C3** (gradients nearly orthogonal): the mean absolute cosine of two domains is {number(cosine)}, "
        f"{'nearly orthogonal' if orthogonal else '**not** nearly orthogonal'}; a gradient agrees with itself by "
        f"{plain(ceiling)}. {found['modules_beyond_noise']} of {found['modules_tested']} module extremes go beyond "
        f"noise.",
        f"* **C4** (shared routes): Jaccard of two domains' neurons {number(route)} after the sequence, "
        f"{'beyond' if shared else '**not** surely beyond'} the chance of {found['route_chance']:.3f} with layers "
        f"kept; a "
        f"domain with itself {plain(found['route_ceiling'])}.",
        f"* **C5** (direction on shared routes): experts' cosine {number(on, 3)} on the shared route and "
        f"{number(off, 3)} off "
        f"it; {found['direction_conflicts']} of {found['direction_pairs']} pairs and seeds conflict there more than "
        f"random "
        f"routes do, {found['direction_synergies']} agree more.",
    ]
    if found["best_correlation"] is not None:
        best = stats.Interval(*found["best_correlation"])
        surely = "" if sure(best) else ", which these seeds cannot tell from 0"
        lines.append(
            f"* **Prediction**: the highest rank correlation with the measured damage has "
            f"“{predictors[found['best_predictor']]}”"
            f": {number(best, sign=True)}{surely}."
        )
    return "\n".join(lines)
