"""Words and tables of chapter 1."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import pandas as pd

from crossdomain import evaluation, paper, stats
from crossdomain.evaluation import GREEDY, TEMPERATURE_1
from crossdomain.interference import change
from crossdomain.lineage import Lineage
from crossdomain.profiles import Profile
from crossdomain.words import points, sure


def learning(logs: pd.DataFrame, titles: dict[str, str]) -> str:
    """What each stage's reward did, first against last tenth of its steps."""
    sentences = []
    for role, part in logs.groupby("role", sort=False):
        tenth = max(1, int(part["step"].max()) // 10)
        first = 100 * part[part["step"] <= tenth]["reward"].mean()
        last = 100 * part[part["step"] > part["step"].max() - tenth]["reward"].mean()
        silent = 100 * part["groups_without_signal"].mean()
        trained = titles[part["domain"].iloc[0]]
        sentences.append(
            f"* **{role}** (trains {trained}): mean reward {first:.1f} → {last:.1f} points; {silent:.0f} % of the groups "
            "had equal rewards and taught nothing."
        )
    head = "**The paper** shows no training curves. **We measured** the mean reward of the first and the last tenth:"
    return "\n".join([head, "", *sentences])


def score_table(table: pd.DataFrame, titles: dict[str, str]) -> str:
    """HTML, a table a decoding: a row a checkpoint, a column a test split; mean ± sd over seeds, or the interval."""

    def cell(row: pd.Series) -> str:
        if not np.isnan(row["sd"]):
            return f"{row['score']:.1f} ± {row['sd']:.1f}"
        return points(stats.Interval(row["score"], row["low"], row["high"]))

    shown = table.assign(text=table.apply(cell, axis=1), title=table["domain"].map(titles))
    extra = shown["split"].ne("test")
    shown.loc[extra, "title"] += shown.loc[extra, "split"].str.removeprefix("test").str.replace("_", " ")
    roles, order = list(dict.fromkeys(table["role"])), list(dict.fromkeys(shown["title"]))
    kind = "mean ± standard deviation over seeds" if table["seeds"].max() > 1 else "mean and 95 % interval over prompts"
    parts = []
    for decoding, part in shown.groupby("decoding", sort=False):
        wide = (
            part.pivot(index="role", columns="title", values="text")
            .loc[roles, order]
            .rename_axis(index=None, columns=str(decoding))
        )
        caption = f'<p class="caption">Scores in points, {decoding}: {kind}.</p>'
        parts.append(f'<div class="scroll">{wide.to_html(border=0)}</div>{caption}')
    return "".join(parts)


def score_summary(table: pd.DataFrame, titles: dict[str, str]) -> str:
    """The first and the last shown row of the table in words, for those who cannot see the figure."""
    main = table[(table["split"] == "test") & (table["decoding"] == TEMPERATURE_1)]
    sentences = []
    for role in (main["role"].iloc[0], main["role"].iloc[-1]):
        scores = main[main["role"] == role].set_index("domain")["score"]
        sentences.append(f"{role}: " + ", ".join(f"{title} {scores[name]:.1f}" for name, title in titles.items()))
    return "; ".join(sentences) + "."


def comparison(found: pd.DataFrame) -> str:
    """HTML of the paper's values beside ours."""
    if found.empty:
        return "<p>This run has no refresh to compare with the paper's.</p>"
    shown = pd.DataFrame(
        {
            "the paper": [f"{value:.2f}" for value in found["paper"]],
            "here (T = 1)": [points(stats.Interval(*row)) for row in found[["here", "low", "high"]].to_numpy()],
            "here (greedy)": [
                points(stats.Interval(*row)) for row in found[["greedy", "greedy_low", "greedy_high"]].to_numpy()
            ],
            "source of the paper's value": found["source"].to_list(),
        },
        index=found["meaning"].to_list(),
    )
    return f'<div class="scroll">{shown.to_html(border=0)}</div>'


def agreement(found: pd.DataFrame, table: pd.DataFrame) -> str:
    """Where our pattern agrees with the paper's and where it does not: loss, recovery, and which policy is best."""
    if found.empty:
        return ""
    scores: dict[str, dict[str, float]] = {
        who: dict(zip(found["quantity"], found[who].astype(float), strict=True)) for who in ("paper", "here", "greedy")
    }
    lines = []
    for column, decoding in (("here", "T = 1"), ("greedy", "greedy")):
        lost = {who: scores[who]["math_peak"] - scores[who]["math_damaged"] for who in ("paper", column)}
        back = {who: scores[who]["math_refreshed"] - scores[who]["math_damaged"] for who in ("paper", column)}
        shares = {who: f"{100 * back[who] / lost[who]:.0f} %" if lost[who] > 0 else "nothing" for who in lost}
        agrees = lost[column] > 0 and back[column] > 0
        lines.append(
            f"* **{decoding}**: in the paper the later stages take {lost['paper']:.1f} points and the refresh returns "
            f"{shares['paper']} of them; here they take {lost[column]:.1f} and it returns {shares[column]}. The pattern "
            f"{'agrees' if agrees else 'does **not** agree'}."
        )
    main = table[(table["split"] == "test") & (table["decoding"] == TEMPERATURE_1)]
    averages = main.groupby("role", sort=False)["score"].mean().sort_values()
    best, refreshed = str(averages.index[-1]), str(next(role for role in averages.index if role.startswith("refresh ")))
    verdict = "That agrees." if best == refreshed else "That does **not** agree."
    lines.append(
        f"* In the paper the refreshed policy has the best average of all. Here the best average at T = 1 is that of "
        f"“{best}” ({averages.iloc[-1]:.1f}); “{refreshed}” has {averages[refreshed]:.1f}. {verdict}"
    )
    return "\n".join(lines)


def story(curves: pd.DataFrame, titles: dict[str, str]) -> str:
    """Start, best and end of every domain along the whole run, means over seeds."""
    mean = curves.groupby(["domain", "total"], sort=False)["score"].mean().reset_index()
    sentences = []
    for domain, title in titles.items():
        line = mean[mean["domain"] == domain].sort_values("total")
        best = line.sort_values("score").iloc[-1]
        first, last = line.iloc[0]["score"], line.iloc[-1]["score"]
        sentences.append(
            f"{title} starts at {first:.1f}, is best at {best['score']:.1f} (step {best['total']:.0f}) and "
            f"ends at {last:.1f}."
        )
    return " ".join(sentences)


def gave_and_took(changes: pd.DataFrame, profile: Profile, titles: dict[str, str]) -> str:
    """What every stage changed in the domain it trains and in the others."""
    total = paper.value("math_peak") - paper.value("math_damaged")
    lines = [
        f"**The paper** reports that the stages after Math take {total:.2f} points of it, without intervals. "
        "**What we measured**, change in points at T = 1 (greedy in brackets):\n"
    ]
    steps = list(dict.fromkeys(changes["step"]))[: len(profile.stages)]
    for step, trained in zip(steps, profile.stages, strict=True):
        parts = []
        for domain in [trained, *(d for d in titles if d != trained)]:
            interval, greedy = change(changes, step, domain), change(changes, step, domain, GREEDY)
            mark = "" if sure(interval) else ", not distinguishable from 0"
            parts.append(
                f"{titles[domain]} {points(interval, sign=True)} ({greedy.value:+.1f}){mark}".replace("-", "−")
            )
        lines.append(f"* **{step}** gives {parts[0]}; " + "; ".join(parts[1:]) + ".")
    lifts = [change(changes, step, trained) for step, trained in zip(steps, profile.stages, strict=True)]
    lifted = [titles[d] for d, lift in zip(profile.stages, lifts, strict=True) if lift.low > 0]
    missed = [titles[d] for d, lift in zip(profile.stages, lifts, strict=True) if not lift.low > 0]
    verdict = f"A stage lifts its own domain by more than the interval in {', '.join(lifted) or 'no domain'}"
    lines.append(f"\n{verdict}" + (f"; not in {', '.join(missed)}." if missed else "."))
    own = {d: change(changes, step, d, GREEDY) for step, d in zip(steps, profile.stages, strict=True)}
    flat = [titles[d] for d, found in own.items() if not found.low > 0]
    if flat:
        lines.append(f"Greedy decoding does **not** show the lift, or not surely, in {', '.join(flat)}.")
    return "\n".join(lines)


def lift(changes: pd.DataFrame, titles: dict[str, str]) -> str:
    """What the stages of a run without a refresh changed, at T = 1 and greedy."""
    lines = []
    for step in dict.fromkeys(changes["step"]):
        for domain, title in titles.items():
            at_1, greedy = change(changes, step, domain), change(changes, step, domain, GREEDY)
            lines.append(
                f"* The {step} stage changes {title} by {points(at_1, sign=True)} points at T = 1 and by "
                f"{points(greedy, sign=True)} greedy."
            )
    return "\n".join(lines)


def refresh(changes: pd.DataFrame, relearning: pd.DataFrame, profile: Profile, titles: dict[str, str]) -> str:
    """What the refresh gained against its controls, what it cost elsewhere, and what first learning needed."""
    domain = profile.refresh
    steps = list(dict.fromkeys(changes["step"]))[len(profile.stages) :]
    gains = {step: change(changes, step, domain) for step in steps}
    lines = [
        f"**The paper** says that a refresh of about 3 optimisation steps recovers {titles[domain]} and leaves the "
        f"others "
        f"largely as they were. **We measured** for {profile.refresh_steps} steps, change of {titles[domain]} at T = 1 "
        "(greedy in brackets):\n"
    ]
    for step, gain in gains.items():
        greedy = change(changes, step, domain, GREEDY)
        lines.append(f"* {step}: {points(gain, sign=True)} ({points(greedy, sign=True)})")
    others = [d for d in titles if d != domain]
    costs = [f"{titles[d]} {points(change(changes, steps[0], d), sign=True)}" for d in others]
    lines.append(f"\nThe refresh changes the other domains by {', '.join(costs)}.")
    rivals = {step: gain.value for step, gain in list(gains.items())[1:]}
    strongest = max(rivals, key=lambda step: rivals[step])
    if gains[steps[0]].value > rivals[strongest]:
        lines.append(f"It gains more than every control; the strongest is “{strongest}” with {rivals[strongest]:+.1f}.")
    else:
        lines.append(f"It does **not** gain more than every control: “{strongest}” gains {rivals[strongest]:+.1f}.")
    if relearning["ratio"].notna().any():
        ratio, needed = relearning["ratio"].mean(), relearning["first_learning_steps"].mean()
        bounds = int(relearning["at_least"].sum())
        lines.append(
            f"First learning needed {'at least ' if bounds else ''}{needed:.0f} steps for the points that the refresh "
            f"regained in {profile.refresh_steps}: {ratio:.1f} times as many."
        )
        if bounds:
            lines.append(
                f"(For {bounds} of {len(relearning)} seeds the refresh reached more than first learning ever did; its "
                "stage is counted to the end there.)"
            )
    else:
        lines.append("First learning started above the damaged score, so its steps cannot be compared.")
    return "\n".join(lines).replace(" -", " −").replace("(-", "(−")


def answers(lineage: Lineage, names: list[str], titles: dict[str, str], items: int = 3) -> str:
    """HTML of held-out items with the greedy responses of several checkpoints."""
    rows = []
    for domain, title in titles.items():
        for item_index, item in enumerate(lineage.domains[domain].items("test")[:items]):
            for name in names:
                found = evaluation.scores(lineage, name)
                row = found.query(
                    "domain == @domain and split == 'test' and decoding == @GREEDY and item == @item_index",
                    local_dict={"domain": domain, "GREEDY": GREEDY, "item_index": item_index},
                ).iloc[0]
                shown = html.escape(lineage.domains[domain].render(item, row["response"]))
                rows.append(f"<tr><td>{title}</td><td>{name}</td><td>{shown}</td></tr>")
    head = "<tr><th>domain</th><th>checkpoint</th><th>item and response</th></tr>"
    return f'<div class="scroll"><table class="answers">{head}{"".join(rows)}</table></div>'


def in_short(headline: dict[str, Any]) -> str:
    """The chapter's result in one paragraph."""
    if "refresh_gain" not in headline:
        return f"After the last stage the average over the domains is {headline['average_damaged']} points at T = 1."
    return (
        f"{headline['refreshed_domain']} rises to {headline['peak']} points, falls to {headline['damaged']} after the "
        f"later stages ({headline['damage']} points) and is back at {headline['refreshed']} after "
        f"{headline['refresh_steps']} steps of refresh ({headline['refresh_gain']}); the average over the domains goes "
        f"from {headline['average_damaged']} to {headline['average_refreshed']}. Greedy: {headline['peak_greedy']} → "
        f"{headline['damaged_greedy']} → {headline['refreshed_greedy']}."
    )
