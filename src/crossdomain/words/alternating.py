"""Words of chapter 7: what a cycle of alternating refresh is close to (C11), where cycles lead, and what RL gains by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from crossdomain import stats
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
from crossdomain.alternating_refresh import ALTERNATING, IN_BLOCKS, MIXED
from crossdomain.words import number, points, seeds, sure
from crossdomain.words.sparsity import by_seed

NEAR = 0.1  # a measured order counts as the theory's within this


def approximation(
    deviations: pd.DataFrame, orders: pd.DataFrame, objectives: pd.DataFrame, titles: Mapping[str, str]
) -> str:
    """C11: the order in α of a cycle's deviations, and their size at the largest step, for every pair."""
    said = objectives.drop_duplicates("domain").set_index("domain")["objective"]
    lines = [
        "**The paper** is reported to say that one cycle of alternating refresh over a pair approximates a descent step "
        "on the weighted two-domain objective (secondary sources). **We measured**, with equal weights and "
        f"{seeds(orders)}, the distance of a cycle's end from the joint step, and its order in α:",
        "",
    ]
    curved = objectives[objectives["top_eigenvalue"] != 0]["domain"].unique()
    for a, b, rows in _pairs(orders):
        if flat := [titles[domain] for domain in (a, b) if domain not in curved]:
            lines.append(
                f"* **{titles[a]} and {titles[b]}** ({said[a]}; {said[b]}): nothing to measure, since the loss of "
                f"{' and of '.join(flat)} is flat: the rewards of each prompt's rollouts are all equal."
            )
            continue
        parts = [
            _order(rows, A_FIRST, False, f"{titles[a]} first"),
            _order(rows, B_FIRST, False, f"{titles[b]} first"),
            _order(rows, A_FIRST, True, f"{titles[a]} first, with Proposition 5's term"),
            _order(rows, AVERAGED, True, "mean of both orders, with its term"),
            _order(rows, A_WRONG, True, f"control, {titles[a]} first with the term of the other order"),
            _order(rows, A_ALONE, False, f"control, two steps on {titles[a]} alone"),
        ]
        lines.append(f"* **{titles[a]} and {titles[b]}** ({said[a]}; {said[b]}): {'; '.join(filter(None, parts))}.")
    lines.append("")
    for a, b, rows in _pairs(deviations):
        if not {a, b} <= {*curved}:
            continue
        most = _largest(rows)
        sizes = [
            f"{label} {_share(most, order, corrected)}"
            for label, order, corrected in (
                (f"{titles[a]} first", A_FIRST, False),
                (f"{titles[b]} first", B_FIRST, False),
                ("corrected", A_FIRST, True),
                (f"two steps on {titles[a]} alone", A_ALONE, False),
            )
        ]
        lines.append(
            f"* At the largest step, α = {most['multiple'].iloc[0]:g}/(λ_A + λ_B), {titles[a]} and {titles[b]} are off by, "
            f"in percent of the joint step: {', '.join(sizes)}."
        )
    losses = orders[orders["quantity"].isin([LOSS_A, LOSS_B])]
    parts = [_order(losses, A_FIRST, False, "A first"), _order(losses, A_FIRST, True, "with Proposition 5's term")]
    lines += ["", f"In the two losses, over all pairs: {'; '.join(filter(None, parts))}. {_theory(orders)}"]
    return "\n".join(lines)


def _pairs(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The rows of each pair of domains."""
    for a, b in dict.fromkeys(zip(table["a"], table["b"], strict=True)):
        yield a, b, table[(table["a"] == a) & (table["b"] == b)]


def _kind(rows: pd.DataFrame, order: str, corrected: bool) -> pd.DataFrame:
    """The rows of one kind of deviation."""
    found: pd.DataFrame = rows[(rows["order"] == order) & (rows["corrected"] == corrected)]
    return found


def _largest(rows: pd.DataFrame) -> pd.DataFrame:
    """The deviations of the parameters at the largest step."""
    found: pd.DataFrame = rows[(rows["multiple"] == rows["multiple"].max()) & (rows["quantity"] == PARAMETERS)]
    return found


def _order(rows: pd.DataFrame, order: str, corrected: bool, label: str) -> str:
    """The order in α of one kind of deviation, of the parameters where the rows have them; nothing where unknown."""
    found = _kind(rows, order, corrected)
    own = found[found["quantity"] == PARAMETERS]
    value = by_seed(own if len(own) else found, "slope")
    return "" if np.isnan(value.value) else f"{label} {number(value)}"


def _share(rows: pd.DataFrame, order: str, corrected: bool) -> str:
    found = _kind(rows, order, corrected)
    return number(by_seed(found.assign(percent=100 * found["relative"]), "percent"), 1) + " %"


def _theory(orders: pd.DataFrame) -> str:
    """Whether all measured orders of the parameters are the proposition's: 2, and 3 after the correction."""
    of = orders[(orders["quantity"] == PARAMETERS) & orders["order"].isin([A_FIRST, B_FIRST, AVERAGED])]
    expected = np.where(of["corrected"], 3, 2)
    off = int(((of["slope"] - expected).abs() > NEAR).sum())
    text = f"Of the {len(of)} orders measured in the parameters, all pairs and seeds,"
    if off == 0:
        return f"{text} all are within {NEAR:g} of the proposition's 2, and 3 once corrected."
    return f"{text} {off} are **not** within {NEAR:g} of the proposition's 2, and 3 once corrected."


def compromise(table: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Where many cycles lead, against joint steps and steps on one loss alone."""
    a, b = (titles[str(name)] for name in table[["a", "b"]].iloc[0])
    cycles = int(table["cycle"].max())
    labels = {
        JOINT: "joint steps",
        A_FIRST: f"cycles, {a} first",
        B_FIRST: f"cycles, {b} first",
        A_ALONE: f"control, {a} alone",
        B_ALONE: f"control, {b} alone",
    }
    lines = [
        f"After {cycles} cycles (as many joint steps; two steps a cycle for the controls), on test prompts, in points of "
        "expected reward:",
        "",
    ]
    ends = _ends(table)
    for way, label in labels.items():
        rows = ends[ends["way"] == way]
        away = "" if way == JOINT else f"; {number(by_seed(rows, 'apart'), 1)} % of the way from the joint steps"
        lines.append(
            f"* **{label}**: {a} {points(by_seed(rows, 'gained_a'), sign=True)}, {b} "
            f"{points(by_seed(rows, 'gained_b'), sign=True)}, together {points(by_seed(rows, 'gained'), sign=True)}; "
            f"‖∇(L_A + L_B)‖ becomes {number(by_seed(rows, 'gradient_left'))} times what it was, the shortest convex "
            f"combination of both gradients {number(by_seed(rows, 'min_norm_left'))} times{away}."
        )
    own = ends[ends["way"] == A_FIRST]
    both = int(((own["gained_a"] > 0) & (own["gained_b"] > 0)).sum())
    nearer = int((own["min_norm_left"] < 1).sum())
    lines += [
        "",
        f"With {a} first both losses go down in {both} of {len(own)} seeds, and the shortest combination, which is zero "
        f"at a Pareto-stationary point, shrinks in {nearer} of {len(own)}.",
    ]
    return "\n".join(lines)


def _ends(table: pd.DataFrame) -> pd.DataFrame:
    """A row a way and seed: test points gained by A, B and together, and what is left of the gradients' norms."""
    keys = ["way", "seed"]
    first, last = (table[table["cycle"] == t].set_index(keys) for t in (0, table["cycle"].max()))
    gained = {f"gained_{x}": 100 * (first[f"held_out_{x}"] - last[f"held_out_{x}"]) for x in "ab"}
    left = {f"{norm}_left": last[norm] / first[norm] for norm in ("gradient", "min_norm")}
    found = pd.DataFrame({**gained, **left, "apart": 100 * last["gap"] / last["moved"]})
    return found.assign(gained=found["gained_a"] + found["gained_b"]).reset_index()


def refreshes(changes: pd.DataFrame, totals: pd.DataFrame, plain_refresh: str, titles: Mapping[str, str]) -> str:
    """RL: what each refresh gives every domain, its average and its worst, paired with the plain refresh."""
    rows = changes[(changes["split"] == "test") & (changes["decoding"] == "T=1")]
    lines = [
        "**The paper** reports no numbers for an alternating refresh as far as is known. **We measured**, points at T = 1, "
        "change since the damaged policy:",
        "",
    ]
    for method, of in rows.groupby("step", sort=False):
        parts = [
            f"{title} {points(_of(of[of['domain'] == domain], 'change'), sign=True)}"
            for domain, title in titles.items()
        ]
        own = totals[totals["method"] == method]
        text = f"average {points(by_seed(own, 'average'))}, worst domain {points(by_seed(own, 'worst'))}"
        if method != plain_refresh:
            text += (
                f" ({points(by_seed(own, 'average_over_plain'), sign=True)} and "
                f"{points(by_seed(own, 'worst_over_plain'), sign=True)} against “{plain_refresh}”)"
            )
        lines.append(f"* **{method}**: {', '.join(parts)}; {text}.")
    best = _best(totals)
    lines += ["", f"The best average is that of “{best}”. {_against(totals, plain_refresh)}"]
    return "\n".join(lines)


def _of(rows: pd.DataFrame, column: str) -> stats.Interval:
    """Mean over seeds; for one seed with its interval over prompts."""
    if len(rows) == 1:
        return stats.Interval(*rows[[column, "low", "high"]].astype(float).iloc[0])
    return stats.seed_mean(rows[column])


def _best(totals: pd.DataFrame) -> str:
    return str(totals.groupby("method", sort=False)["average"].mean().idxmax())


def _against(totals: pd.DataFrame, plain_refresh: str) -> str:
    """Whether alternating beats the plain refresh, and whether it matters how domains are mixed."""
    wide = totals.pivot(index="seed", columns="method", values="average")
    sentences = []
    for other, label in (
        (plain_refresh, f"“{plain_refresh}”"),
        (IN_BLOCKS, "one domain after another"),
        (MIXED, "mixed batches"),
    ):
        difference = stats.seed_mean(wide[ALTERNATING] - wide[other])
        verdict = "" if sure(difference) else ", which does **not** tell the two apart"
        sentences.append(f"{points(difference, sign=True)} against {label}{verdict}")
    return f"In the average over domains, alternating step by step makes {'; '.join(sentences)}."


def verdicts(
    deviations: pd.DataFrame, orders: pd.DataFrame, descents: pd.DataFrame, totals: pd.DataFrame, plain_refresh: str
) -> dict[str, Any]:
    """The chapter's statistics by name, as the results keep them: values, or (value, low, high). Of the main pair."""
    a, b, main = next(_pairs(orders))
    _, _, sizes = next(_pairs(deviations))
    slopes, most = main[main["quantity"] == PARAMETERS], _largest(sizes)
    ends = _ends(descents)

    def in_turn(column: str, way: str = A_FIRST) -> stats.Interval:
        return by_seed(ends[ends["way"] == way], column)

    def refreshed(column: str, method: str = ALTERNATING) -> stats.Interval:
        return by_seed(totals[totals["method"] == method], column)

    return {
        "pair": [a, b],
        "order": by_seed(_kind(slopes, A_FIRST, False), "slope"),
        "order_corrected": by_seed(_kind(slopes, A_FIRST, True), "slope"),
        "order_mean_corrected": by_seed(_kind(slopes, AVERAGED, True), "slope"),
        "order_wrong_correction": by_seed(_kind(slopes, A_WRONG, True), "slope"),
        "order_alone": by_seed(_kind(slopes, A_ALONE, False), "slope"),
        "largest_multiple": float(sizes["multiple"].max()),
        "deviation": by_seed(_kind(most, A_FIRST, False), "relative"),
        "deviation_corrected": by_seed(_kind(most, A_FIRST, True), "relative"),
        "deviation_alone": by_seed(_kind(most, A_ALONE, False), "relative"),
        "cycles": int(descents["cycle"].max()),
        "gained_a": in_turn("gained_a"),
        "gained_b": in_turn("gained_b"),
        "gained_by_cycles": in_turn("gained"),
        "gained_by_joint": in_turn("gained", JOINT),
        "min_norm_left": in_turn("min_norm_left"),
        "plain": plain_refresh,
        "average": refreshed("average"),
        "average_over_plain": refreshed("average_over_plain"),
        "worst_over_plain": refreshed("worst_over_plain"),
        "mixed_over_plain": refreshed("average_over_plain", MIXED),
        "blocks_over_plain": refreshed("average_over_plain", IN_BLOCKS),
    }


def in_short(found: dict[str, Any], titles: Mapping[str, str]) -> str:
    """The chapter's verdicts from its kept statistics."""
    a, b = (titles[name] for name in found["pair"])
    known = {name: stats.Interval(*value) for name, value in found.items() if isinstance(value, list | tuple)
             and name != "pair"}  # fmt: skip
    small = known["deviation"].value < known["deviation_alone"].value
    falls = known["gained_a"].value > 0 and known["gained_b"].value > 0
    over = known["average_over_plain"]
    told = "better than" if over.low > 0 else "worse than" if over.high < 0 else "**not** told apart from"
    return "\n".join(
        [
            f"* **C11** (a cycle is close to a descent step on both losses; {a} and {b}): off by order "
            f"{number(known['order'])} in α, {number(known['order_corrected'])} with Proposition 5's term, "
            f"{number(known['order_wrong_correction'])} with the wrong order's; at α = "
            f"{found['largest_multiple']:g}/(λ_A + λ_B) by {number(_percent(known['deviation']), 1)} % of the joint step, "
            f"where two steps on {a} alone are off by {number(_percent(known['deviation_alone']), 1)} %. A cycle is "
            f"{'closer' if small else '**not** closer'} to the joint step than those.",
            f"* **Many cycles**: after {found['cycles']}, {a} {points(known['gained_a'], sign=True)} and {b} "
            f"{points(known['gained_b'], sign=True)} points on test prompts "
            f"({'both gain' if falls else '**not** both gain'}); the joint steps gain "
            f"{points(known['gained_by_joint'], sign=True)} together, the cycles "
            f"{points(known['gained_by_cycles'], sign=True)}. The shortest convex combination of the gradients becomes "
            f"{number(known['min_norm_left'])} times what it was.",
            f"* **RL on all domains**: the alternating refresh has an average of {points(known['average'])}, "
            f"{points(over, sign=True)} against “{found['plain']}” of as many steps; it is {told} it. Mixed batches make "
            f"{points(known['mixed_over_plain'], sign=True)}, one domain after another "
            f"{points(known['blocks_over_plain'], sign=True)}. The worst domain changes by "
            f"{points(known['worst_over_plain'], sign=True)}.",
        ]
    )


def _percent(share: stats.Interval) -> stats.Interval:
    return stats.Interval(*(100 * value for value in share))
