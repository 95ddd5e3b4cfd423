"""Words of chapter 6: what a training-free rollback gives back and costs (C10), and what does not hold, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from crossdomain import frontier, rollback_sets, stats
from crossdomain.rollback_effects import HURT, LEARNED
from crossdomain.rollback_sets import (
    ALL,
    CONTROLS,
    DAMAGED,
    DIVERGENCE,
    FILTERS,
    FISHER,
    LEADING,
    MAGNITUDE,
    MATCHED,
    RANDOM,
    REWARD,
)
from crossdomain.words import number, plain, points, sure
from crossdomain.words.sparsity import by_seed

SHORT = {rollback_sets.NEXT: "pair", ALL: "main"}

NEEDS = """
| ranked by | prompts of A | right answers of A | checkpoints, besides the damaged one |
|---|---|---|---|
| magnitude, random | none | none | before the later stages, for δ |
| Fisher | training prompts | none | the same, and θ_A, which answers the prompts |
| Fisher, opposite sign | training prompts | none | the same, and the one before A's own stage, for A's update |
| Fisher, shared route | training prompts, and prompts of the later domains | none | as the Fisher |
| Fisher of the damaged policy | training prompts | none | before the later stages, for δ |
| Hessian of the divergence, greedy | training prompts | none | as the Fisher |
| Hessian of the reward, greedy | training prompts | all of them | as the Fisher |
"""


def case_titles(levels: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, str]:
    """What each case is called: A, and which stages hurt it."""
    found = {}
    for case, rows in levels.groupby("case", sort=False):
        first, *later = (titles[str(domain)] for domain in dict.fromkeys(rows["domain"]))
        found[str(case)] = f"{first}, hurt by {' and '.join(later)}"
    return found


def restored(front: pd.DataFrame, damages: pd.DataFrame, sizes: Sequence[float], titles: Mapping[str, str]) -> str:
    """C10: what every score gives back and costs at a few sizes, and whether the Fisher's beats its controls."""
    lines = [
        "**The paper** says that a training-free rollback on a sparse proxy conflict coordinate set of the Math–QA pair "
        "partially restores Math (abstract); how the set is built is not public, so the construction here is ours. **We "
        "measured**, on test prompts, points of expected reward:",
    ]
    whole = front[front["share"] == 1]
    for case, title in titles.items():
        rows, of_case = whole[whole["case"] == case], damages[damages["case"] == case]
        taken = (
            f"{points(by_seed(of_case, 'damage'))} points lost by A, {points(by_seed(of_case, 'gain'))} gained by the"
        )
        lines += ["", f"**{title}** ({taken} others):", ""]
        for score in (*LEADING, MATCHED, REWARD):
            parts = [_at(rows, score, size) for size in sizes]
            lines.append(f"* {score}: {'; '.join(parts)}.")
        size = max(sizes)
        lines += [
            "",
            *(f"* {_against(front, case, size, control)}" for control in CONTROLS),
            *_spared(rows, of_case, size),
        ]
    return "\n".join(lines)


def _spared(rows: pd.DataFrame, damages: pd.DataFrame, size: float) -> list[str]:
    """In which seeds A lost nothing, if any, and what the Fisher's set regains in the others."""
    hurt = damages["damage"] > 0
    if hurt.all():
        return []
    gained = (-damages[~hurt].set_index("seed")["damage"]).items()
    gains = [f"{seed} ({plain(float(value), 1, sign=True)} points)" for seed, value in gained]
    said = f"Later stages took nothing from A in seed {', '.join(gains)}: there is nothing to restore."
    if hurt.any():
        fisher = rows[
            (rows["score"] == FISHER) & (rows["percent"] == size) & rows["seed"].isin(damages.loc[hurt, "seed"])
        ]
        said += (
            f" In the others, of {plain(damages.loc[hurt, 'damage'].mean(), 1)} points lost, the Fisher's set regains "
            f"{plain(fisher['regained'].mean(), 1, sign=True)} at {size:g} %, a mean over seeds chosen by their damage."
        )
    return [f"* {said}"]


def _at(rows: pd.DataFrame, score: str, size: float) -> str:
    part = rows[(rows["score"] == score) & (rows["percent"] == size)]
    regained, lost = (points(by_seed(part, column), sign=True) for column in ("regained", "lost"))
    norm = plain(100 * part["norm_share"].mean(), 0)
    return f"{size:g} % of the parameters ({norm} % of ‖δ‖²) regain {regained}, the others lose {lost}"


def difference(front: pd.DataFrame, case: str, size: float, score: str, control: str) -> dict[str, stats.Interval]:
    """What a score regains and loses beyond a control at one size, with intervals over seeds."""
    found = frontier.beyond(front, score, control)
    rows = found[(found["case"] == case) & (found["percent"] == size)]
    return {column: by_seed(rows, column) for column in ("regained", "lost")}


def _against(front: pd.DataFrame, case: str, size: float, control: str) -> str:
    found = difference(front, case, size, FISHER, control)
    mark = "" if sure(found["regained"]) else ", which these seeds cannot tell from 0"
    return (
        f"At {size:g} % the Fisher's set regains {points(found['regained'], sign=True)} points beyond “{control}”{mark}, "
        f"at a further loss of {points(found['lost'], sign=True)}."
    )


def budgeted(within: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """What each score regains where the others may lose one point."""
    lines = [
        f"What A regains if the others may lose {frontier.ALLOWED:g} point, the size being chosen on one half of the "
        "prompts and reported on the other (in brackets: lost there, and the mean size):"
    ]
    for case, title in titles.items():
        rows = within[within["case"] == case]
        lines += ["", f"**{title}**:", ""]
        for score, part in rows.groupby("score", sort=False):
            lost, percent = points(by_seed(part, "lost"), sign=True), plain(part["percent"].mean(), 1)
            lines.append(f"* {score}: {points(by_seed(part, 'regained'), sign=True)} ({lost}; {percent} %)")
        means = rows.groupby("score")["regained"].mean()
        lines += ["", f"Most is regained by “{means.idxmax()}”."]
    return "\n".join(lines)


def filters(front: pd.DataFrame, sizes: Sequence[float], titles: Mapping[str, str]) -> str:
    """What the filters of the Fisher's set change, at equal size."""
    lines = ["Regained with the filter less without it, at the same share of the parameters:", ""]
    for case, title in titles.items():
        for name in FILTERS:
            found = frontier.beyond(front, name, FISHER)
            rows = found[(found["case"] == case) & found["percent"].isin(sizes)]
            parts = [
                f"{points(by_seed(part, 'regained'), sign=True)} at {percent:g} %"
                for percent, part in rows.groupby("percent")
            ]
            lines.append(f"* {title}, {name}: {', '.join(parts)}.")
    whole = front[(front["share"] == 1) & front["score"].isin(FILTERS)]
    short = whole[whole["coordinates"] < whole.groupby(["case", "percent"])["coordinates"].transform("max")]
    if len(short):
        names = ", ".join(dict.fromkeys(f"{row.score} at {row.percent:g} %" for row in short.itertuples()))
        lines += [
            "",
            f"A filter can leave fewer coordinates than are asked for; then all that are left are taken: {names}.",
        ]
    lines += [
        "",
        "By {prf:ref}`rem-score` no filter can raise what the diagonal Fisher predicts for a set of a given size; whether "
        "it helps is a matter of measurement.",
    ]
    return "\n".join(lines)


def shares(front: pd.DataFrame) -> str:
    """Which share λ regains most, by score and size, in rows as from `frontier.varied`; the diagonal model says 1."""
    lines = [
        "By the diagonal model λ = 1 is best ({prf:ref}`prop-rollback`). Of the shares tried, most is regained at:",
        "",
    ]
    for size, rows in front.groupby("percent"):
        parts = []
        for score in LEADING:
            mean = rows[rows["score"] == score].groupby("share")["regained"].mean()
            one = f"{plain(mean.loc[1], 1, sign=True)} at 1"
            parts.append(f"{score} λ = {mean.idxmax():g} ({plain(mean.max(), 1, sign=True)} points; {one})")
        lines.append(f"* {size:g} % of the parameters: {'; '.join(parts)}.")
    return "\n".join(lines)


def prediction(agreement: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """How well Proposition 4 predicts what a rollback does to A's loss."""
    lines = ["Rank correlation of the predicted with the actual change of A's loss, over all sets and shares:", ""]
    for case, title in titles.items():
        rows = agreement[agreement["case"] == case]
        lines.append(
            f"* {title}: {number(by_seed(rows, 'hessian'), sign=True)} with the Hessian (median error "
            f"{plain(100 * rows['error'].mean(), 0)} %), {number(by_seed(rows, 'fisher'), sign=True)} by the diagonal "
            f"Fisher, which is a divergence and no reward, so that only its order can be compared."
        )
    return "\n".join(lines)


def greedy(predicted: pd.DataFrame, size: float, titles: Mapping[str, str]) -> str:
    """Whether the set that lowers the reward's quadratic model on training prompts does so on test prompts, and in fact."""
    lines = []
    rows = predicted[(predicted["score"] == REWARD) & (predicted["percent"] == size) & (predicted["share"] == 1)]
    for case, title in titles.items():
        part = (100 * rows[rows["case"] == case].set_index("seed")[["hessian", "actual"]]).reset_index()
        model, found = by_seed(part, "hessian"), by_seed(part, "actual")
        verdict = (
            "what lowers the model on some prompts does **not** carry over to others"
            if model.value > 0
            else "it carries over"
        )
        lines.append(
            f"* {title}: {size:g} % of the parameters, chosen greedily to lower the reward's quadratic model on training "
            f"prompts, change A's loss on test prompts by {points(model, sign=True)} points by the same model and by "
            f"{points(found, sign=True)} in fact: {verdict}."
        )
    return "\n".join(lines)


def pairs(table: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """In how many pairs, among those that were hurt, the Fisher's set regains more than its controls."""
    lines = []
    for size, part in table.groupby("percent"):
        wide = part.groupby(["seed", "a", "b", "damage", "score"])["regained"].mean().unstack("score").reset_index()
        hurt = wide[wide["damage"] > 0]
        counts = ", ".join(
            f"more than {control} in {int((hurt[FISHER] > hurt[control]).sum())}" for control in (MAGNITUDE, RANDOM)
        )
        sums = part[part["damage"] > 0].groupby("score", sort=False)[["regained", "lost"]].mean()
        means = ", ".join(
            f"{score} {plain(row['regained'], 1, sign=True)} (B loses {plain(row['lost'], 1, sign=True)})"
            for score, row in sums.iterrows()
        )
        lines.append(
            f"* {size:g} % of the parameters: of {len(hurt)} pairs and seeds with damage the Fisher's set regains "
            f"{counts}. Means in points: {means}."
        )
    spared = table[table["damage"] <= 0]
    shown = sorted(set(zip(spared["a"].map(titles), spared["b"].map(titles), strict=True)))
    if shown:
        named = ", ".join(f"{a} after {b}" for a, b in shown)
        lines += ["", f"Not counted where nothing was lost in the first place, in one seed or more: {named}."]
    return "\n".join(lines)


def policy_table(policies: pd.DataFrame, case: str, titles: Mapping[str, str]) -> str:
    """HTML: scores of the rolled-back policies on all domains, T = 1 and greedy; mean ± sd over seeds."""
    rows = policies[policies["case"] == case].copy()
    named = rows["score"].isin((LEARNED, HURT))
    rows["policy"] = rows["score"].where(named, rows["score"] + ", " + rows["percent"].map("{:g} %".format))
    order = list(dict.fromkeys(rows["policy"]))
    grouped = rows.groupby(["decoding", "policy", "domain"], sort=False)["points"]
    found = grouped.agg(["mean", "std"]).reset_index()
    several = rows["seed"].nunique() > 1
    found["text"] = [
        f"{mean:.1f} ± {sd:.1f}" if several else f"{mean:.1f}"
        for mean, sd in zip(found["mean"], found["std"], strict=True)
    ]
    parts = []
    for decoding, part in found.groupby("decoding", sort=False):
        wide = part.assign(title=part["domain"].map(titles)).pivot(index="policy", columns="title", values="text")
        wide = wide.loc[order, [title for title in titles.values() if title in wide]]
        wide = wide.rename_axis(index=None, columns=str(decoding))
        kind = "mean ± standard deviation over seeds" if several else "one seed"
        caption = f'<p class="caption">Scores in points, {decoding}: {kind}.</p>'
        parts.append(f'<div class="scroll">{wide.to_html(border=0)}</div>{caption}')
    return "".join(parts)


def verdicts(
    front: pd.DataFrame, damages: pd.DataFrame, within: pd.DataFrame, agreement: pd.DataFrame, size: float
) -> dict[str, Any]:
    """The chapter's statistics by name, as the results keep them: values, or (value, low, high).

    Those of the paper's pair begin with `pair`, those of all later stages with `main`.
    """
    found: dict[str, Any] = {"percent": size}
    whole = front[front["share"] == 1]
    for case in dict.fromkeys(front["case"]):
        name = SHORT[str(case)]
        rows = whole[(whole["case"] == case) & (whole["percent"] == size)]
        budget, of_case = within[within["case"] == case], damages[damages["case"] == case]
        for key, score in (("fisher", FISHER), ("damaged", DAMAGED), ("divergence", DIVERGENCE), ("reward", REWARD)):
            part = rows[rows["score"] == score]
            found |= {f"{name}_{key}_{column}": by_seed(part, column) for column in ("regained", "lost")}
            found[f"{name}_{key}_within"] = by_seed(budget[budget["score"] == score], "regained")
        for key, control in (("magnitude", MAGNITUDE), ("random", RANDOM), ("matched", MATCHED)):
            found[f"{name}_beyond_{key}"] = difference(front, str(case), size, FISHER, control)["regained"]
            found[f"{name}_{key}_within"] = by_seed(budget[budget["score"] == control], "regained")
        found |= {f"{name}_damage": by_seed(of_case, "damage"), f"{name}_gain": by_seed(of_case, "gain")}
        own = agreement[agreement["case"] == case]
        found |= {f"{name}_prediction": by_seed(own, "hessian"), f"{name}_fisher_prediction": by_seed(own, "fisher")}
    return found


def in_short(found: dict[str, Any], titles: Mapping[str, str]) -> str:
    """The chapter's verdicts from its kept statistics."""
    lines = []
    for case, title in titles.items():
        name = SHORT[case]
        values = {
            key.removeprefix(f"{name}_"): stats.Interval(*value)
            for key, value in found.items()
            if key.startswith(f"{name}_")
        }
        controls = {"magnitude": MAGNITUDE, "random": RANDOM, "matched": MATCHED}
        beaten = [label for key, label in controls.items() if _above(values[f"beyond_{key}"])]
        unbeaten = [label for label in controls.values() if label not in beaten]
        against = f"more than {_quoted(beaten)}" if beaten else "more than no control"
        against += f", **not** surely more than {_quoted(unbeaten)}" if unbeaten else ""
        regained, lost, damage, gain = (values[key] for key in ("fisher_regained", "fisher_lost", "damage", "gain"))
        lines.append(
            f"* **C10**, {title}: of {points(damage)} points lost, taking back {found['percent']:g} % of the parameters by "
            f"the Fisher's score regains {points(regained, sign=True)} and costs the others {points(lost, sign=True)} of "
            f"their {points(gain)}: it {_verdict(regained, damage)}; {against}. The Fisher of the damaged policy regains "
            f"{points(values['damaged_regained'], sign=True)}; the greedy set of the divergence's Hessian "
            f"{points(values['divergence_regained'], sign=True)}, at {points(values['divergence_lost'], sign=True)}. "
            f"Where the others may lose {frontier.ALLOWED:g} point, the Fisher's set regains "
            f"{points(values['fisher_within'], sign=True)} and a random one "
            f"{points(values['random_within'], sign=True)}. Rank correlation of Proposition 4 with what happens: "
            f"{number(values['prediction'], sign=True)} with the Hessian, "
            f"{number(values['fisher_prediction'], sign=True)} by the diagonal Fisher."
        )
    return "\n".join(lines)


def _quoted(labels: Sequence[str]) -> str:
    return ", ".join(f"“{label}”" for label in labels)


def _verdict(regained: stats.Interval, damage: stats.Interval) -> str:
    if damage.value <= 0:
        return "has no damage to restore"
    if not _above(regained):
        return "does **not** surely restore A" if regained.value > 0 else "does **not** restore A"
    return "partially restores A" if regained.value < damage.value else "restores A and more"


def _above(interval: stats.Interval) -> bool:
    """Above 0: by its interval, or by its value where one seed gives none."""
    return bool(interval.low > 0 if not np.isnan(interval.low) else interval.value > 0)
