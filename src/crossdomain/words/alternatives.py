"""Words of chapter 8: which method does best at equal steps, what it needs, and what the order changes, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from crossdomain import stats
from crossdomain.alternatives import MORE, SEQUENCE, Method, against
from crossdomain.orders import PREDICTORS
from crossdomain.training_free import RANDOM
from crossdomain.words import number, plain, points, seeds, sure
from crossdomain.words.sparsity import by_seed

CONTROLS = (MORE, RANDOM)


def needs(methods: Mapping[str, Method]) -> str:
    """What each method needs that the sequence does not have at hand, as a table."""
    lines = [
        "| method | prompts of other domains | rewards of other domains | further checkpoints |",
        "|---|---|---|---|",
    ]
    lines += [f"| {m.title} | {m.prompts} | {m.rewards} | {m.checkpoints} |" for m in methods.values()]
    lines.append(
        "\nEvery longer version that ends with a refresh needs prompts and rewards of the refreshed domain for it, too."
    )
    return "\n".join(lines)


def compared(table: pd.DataFrame, methods: Mapping[str, Method], title: str) -> str:
    """Every method against the sequence with its refresh, at the same steps."""
    own = _version(table, SEQUENCE, True)
    lines = [
        f"At {own['steps'].iloc[0]} RL steps the sequence with its refresh of {title} has an average of "
        f"**{points(by_seed(own, 'average'))}** points, and {points(by_seed(own, 'worst'))} in its lowest domain "
        f"({seeds(table)}). What the others have more (average; lowest domain), at as many steps:",
        "",
    ]
    for key, difference in _ranked(table).items():
        lowest = by_seed(_version(against(table, "worst"), key, True), "difference")
        lines.append(f"* {methods[key].title}: {points(difference, sign=True)}; {points(lowest, sign=True)}.")
    refresh, control = (by_seed(_minus(table, key), "difference") for key in (SEQUENCE, MORE))
    lines += [
        "",
        f"The refresh itself changes the sequence's average by {points(refresh, sign=True)}, as many more of the last "
        f"domain by {points(control, sign=True)}. Intervals are over seeds, and not corrected for their number.",
    ]
    return "\n".join(lines)


def costs(table: pd.DataFrame, methods: Mapping[str, Method]) -> str:
    """Seconds of every method in its longer version."""
    longer = table[table["longer"]]
    own = by_seed(_version(table, SEQUENCE, True), "seconds").value
    parts = []
    for key, rows in longer.groupby("method", sort=False):
        seconds = by_seed(rows, "seconds").value
        parts.append(f"{methods[str(key)].title} {plain(seconds, 0)} s (×{plain(seconds / own)})")
    return (
        f"Seconds of RL on one core, with what a method computes for it: "
        f"{'; '.join(parts)}. The experts of a merge can be trained side by side. What choosing on development prompts "
        "takes is not counted."
    )


def choices(table: pd.DataFrame, methods: Mapping[str, Method]) -> str:
    """What was chosen on development prompts."""
    parts = []
    for key, rows in table[table["chosen"]].groupby("method", sort=False):
        values = ", ".join(f"{value:g}" for value in rows.sort_values("seed")["value"])
        offered = ", ".join(f"{value:g}" for value in sorted(table.loc[table["method"] == key, "value"].unique()))
        parts.append(f"{methods[str(key)].title}: {values} (of {offered})")
    return f"Chosen on development prompts, a value a seed: {'; '.join(parts)}."


def orders(table: pd.DataFrame, scores: pd.DataFrame, names: Mapping[str, str], refresh: str) -> str:
    """Best and worst order, how much the order matters, and what the refresh evens out."""
    plainly, refreshed = (table[table["refreshed"] == value] for value in (False, True))
    means = plainly.groupby("order")["average"].mean().sort_values()
    again = refreshed.groupby("order")["average"].mean()
    spread = f"{plain(means.iloc[-1] - means.iloc[0], 1)} points apart"
    hurt = scores[~scores["refreshed"] & (scores["later"] > 0)]
    losers = hurt.groupby("domain", sort=False)["lost"].mean().sort_values(ascending=False)
    return "\n".join(
        [
            f"Of {len(means)} orders ({seeds(table)}) the best is **{arrows(str(means.index[-1]), names)}** with "
            f"{plain(means.iloc[-1], 1)} points on average, the worst **{arrows(str(means.index[0]), names)}** with "
            f"{plain(means.iloc[0], 1)}: {spread}. The refresh of {refresh} at the end changes the average by "
            f"{plain((again - means).mean(), 1, sign=True)} points over all orders, from "
            f"{plain((again - means).min(), 1, sign=True)} to {plain((again - means).max(), 1, sign=True)}, and the orders "
            f"are then {plain(again.max() - again.min(), 1)} points apart.",
            "",
            "Points that a domain loses after its own stage, on average over the orders in which it is not the last: "
            + ", ".join(f"{names[str(domain)]} {plain(value, 1)}" for domain, value in losers.items())
            + ".",
        ]
    )


def arrows(order: str, names: Mapping[str, str]) -> str:
    """An order as it is read."""
    return " → ".join(names[domain] for domain in order.split("-"))


def prediction(ranking: pd.DataFrame) -> str:
    """Whether sums of pair damages rank the orders."""
    lines = [
        "Rank correlation of what an order loses with the sum over its pairs of what is known of each (in brackets: the "
        "share of all relabellings of the domains that do as well or better):",
        "",
    ]
    for name, what in PREDICTORS.items():
        rows = ranking[ranking["predictor"] == name]
        value = number(by_seed(rows, "correlation"), sign=True)
        with_average = plain(by_seed(rows, "with_average").value, sign=True)
        lines.append(f"* {what}: **{value}** ({plain(rows['p'].mean())}); with minus the average score {with_average}.")
    own = ranking[ranking["predictor"] == "predicted"]
    holds = bool((own["p"] <= 1 - stats.LEVEL).all())
    lines += [
        "",
        "The prediction from the experts alone "
        + ("ranks the orders better than its relabellings do." if holds else "does **not** surely rank the orders.")
        + " The orders share stages, so they are no independent sample.",
    ]
    return "\n".join(lines)


NOT_ASKED = (
    "The orders are trained only for the seeds of `orders_seeds` ({asked}), of which this run ({seeds}) has none. "
    "`crossdomain run 08 --seeds {first}` trains them."
)


def not_asked(orders_seeds: list[int], run_seeds: list[int]) -> str:
    """Why the section on orders is empty."""
    asked = ", ".join(map(str, orders_seeds)) or "none in this profile"
    named = {"asked": asked, "seeds": ", ".join(map(str, run_seeds)), "first": orders_seeds[0] if orders_seeds else 0}
    return NOT_ASKED.format(**named)


def verdicts(
    table: pd.DataFrame, methods: Mapping[str, Method], orders_table: pd.DataFrame | None, ranking: pd.DataFrame | None
) -> dict[str, Any]:
    """The chapter's statistics by name, as the results keep them: values, or (value, low, high)."""
    ranked = _ranked(table)
    own = _version(table, SEQUENCE, True)
    found: dict[str, Any] = {
        "steps": int(own["steps"].iloc[0]),
        "refreshed_average": by_seed(own, "average"),
        "refresh_gain": by_seed(_minus(table, SEQUENCE), "difference"),
        "control_gain": by_seed(_minus(table, MORE), "difference"),
        "differences": {key: list(interval) for key, interval in ranked.items()},
        "titles": {key: methods[key].title for key in ranked},
        "orders": None,
    }
    if orders_table is not None and ranking is not None:
        means = orders_table[~orders_table["refreshed"]].groupby("order")["average"].mean()
        own_rank = ranking[ranking["predictor"] == "predicted"]
        found["orders"] = {
            "best": str(means.idxmax()),
            "worst": str(means.idxmin()),
            "spread": float(means.max() - means.min()),
            "correlation": list(by_seed(own_rank, "correlation")),
            "p": float(own_rank["p"].mean()),
        }
    return found


def in_short(found: Mapping[str, Any], names: Mapping[str, str], title: str) -> str:
    """The chapter's verdicts from its kept statistics."""
    differences = {key: stats.Interval(*values) for key, values in found["differences"].items()}
    methods = {key: interval for key, interval in differences.items() if key not in CONTROLS}
    titles, best, worst = found["titles"], next(iter(methods)), list(methods)[-1]
    refresh, control = (points(stats.Interval(*found[key]), sign=True) for key in ("refresh_gain", "control_gain"))
    lines = [
        f"* The refresh of {title} changes the sequence's average by {refresh} points; as many more of the last domain "
        f"by {control}.",
        f"* At {found['steps']} RL steps, against the sequence with its refresh: {titles[best]} has "
        f"{points(methods[best], sign=True)} points on average, {titles[worst]} {points(methods[worst], sign=True)}. "
        f"Surely better: {_listed(titles, methods, 1)}. Surely worse: {_listed(titles, methods, -1)}.",
    ]
    if (orders := found["orders"]) is not None:
        lines.append(
            f"* The order matters by {plain(orders['spread'], 1)} points of the average, from "
            f"{arrows(orders['worst'], names)} to {arrows(orders['best'], names)}; what the experts alone predict has a "
            f"rank correlation of {number(stats.Interval(*orders['correlation']), sign=True)} with what the orders lose "
            f"({plain(100 * orders['p'], 0)} % of relabellings do as well)."
        )
    return "\n".join(lines)


def _listed(titles: Mapping[str, str], differences: Mapping[str, stats.Interval], side: int) -> str:
    """The methods whose interval lies wholly on one side of zero."""
    found = [titles[key] for key, value in differences.items() if sure(value) and side * value.value > 0]
    return ", ".join(found) or "none"


def _version(table: pd.DataFrame, method: str, longer: bool) -> pd.DataFrame:
    return table[(table["method"] == method) & (table["longer"] == longer)]


def _minus(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """What the longer version of a method has more than the sequence, on average."""
    return _version(against(table, "average", longer=False), method, True)


def _ranked(table: pd.DataFrame) -> dict[str, stats.Interval]:
    """What every other method has more than the sequence with its refresh, on average, the best first."""
    differences = against(table, "average")
    found = {
        str(key): by_seed(rows, "difference")
        for key, rows in differences[differences["longer"]].groupby("method", sort=False)
        if key != SEQUENCE
    }
    return dict(sorted(found.items(), key=lambda item: -np.nan_to_num(item[1].value, nan=-np.inf)))
