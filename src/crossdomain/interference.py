"""Chapter 1: what each stage gives and takes, and what a short refresh returns (C9), against its controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from crossdomain import evaluation, paper, stats, words
from crossdomain.evaluation import GREEDY, TEMPERATURE_1
from crossdomain.lineage import BASE, Lineage
from crossdomain.run import Run
from crossdomain.staging import Plan, learned, plan, refresh_names, title

SCORES = (0.0, 100.0)  # what a score can be, in points


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """A summary's means over seeds, with intervals over seeds; over prompts where there is one seed.

    Returns:
        A row a role, domain, split and decoding: `score`, `low`, `high`, `sd` over seeds, `seeds`.
    """
    keys = ["role", "domain", "split", "decoding"]
    rows = []
    for key, group in table.groupby(keys, sort=False):
        interval = stats.seed_mean(group["score"], SCORES)
        if len(group) == 1:
            interval = stats.Interval(*group.iloc[0][["score", "low", "high"]])
        sd = group["score"].std(ddof=1) if len(group) > 1 else np.nan
        found = {"score": interval.value, "low": interval.low, "high": interval.high, "sd": sd, "seeds": len(group)}
        rows.append(dict(zip(keys, key, strict=True)) | found)
    return pd.DataFrame(rows)


def changes(lineages: Sequence[Lineage], pairs: dict[str, tuple[Sequence[str], Sequence[str]]]) -> pd.DataFrame:
    """What steps from one checkpoint to another change, on the same prompts.

    Args:
        lineages: one a seed.
        pairs: what each step is called, and the names before and after it in each lineage.

    Returns:
        A row a step, seed, domain, split and decoding: `change` with its interval over prompts, in points, and `before`,
        `after`.
    """
    rows = []
    for step, (before, after) in pairs.items():
        for lineage, old, new in zip(lineages, before, after, strict=True):
            first = evaluation.by_prompt(evaluation.scores(lineage, old))
            second = evaluation.by_prompt(evaluation.scores(lineage, new))
            for keys, values in evaluation.grouped(first):
                later = second.loc[values.index]
                interval = stats.paired_difference(100 * later, 100 * values, lineage.profile.bootstrap)
                rows.append(
                    {
                        "step": step,
                        "seed": lineage.seed,
                        **dict(zip(("domain", "split", "decoding"), keys, strict=True)),
                        "before": 100 * values.mean(),
                        "after": 100 * later.mean(),
                        "change": interval.value,
                        "low": interval.low,
                        "high": interval.high,
                    }
                )
    return pd.DataFrame(rows)


def change(changes: pd.DataFrame, step: str, domain: str, decoding: str = TEMPERATURE_1) -> stats.Interval:
    """The change of a domain's test score in a step: over seeds, or over prompts where there is one seed."""
    rows = changes.query("step == @step and domain == @domain and decoding == @decoding and split == 'test'")
    if len(rows) == 1:
        row = rows.iloc[0]
        return stats.Interval(row["change"], row["low"], row["high"])
    return stats.seed_mean(rows["change"])


def training_logs(lineages: Sequence[Lineage], roles: dict[str, list[str]]) -> pd.DataFrame:
    """The per-step logs of stages, with `role`, `seed` and the trained `domain`."""
    frames = []
    for role, names in roles.items():
        for lineage, name in zip(lineages, names, strict=True):
            if name != BASE:
                log = lineage.checkpoint(name).training_log()
                frames.append(log.assign(role=role, seed=lineage.seed, domain=lineage.stage(name).domain))
    return pd.concat(frames, ignore_index=True)


def sequence_curves(lineages: Sequence[Lineage], *, refresh: bool = True) -> pd.DataFrame:
    """Every domain's score along all steps of the sequence and the refresh.

    Returns:
        A row a point: `seed`, `stage` (checkpoint it ends in), `trained` (its domain), `step` in the stage, `total` steps
        so far, `domain`, `score` in points.
    """
    frames = []
    for lineage in lineages:
        total = 0
        for name in [*lineage.sequence[1:], *(refresh_names(lineage)[:1] if refresh else [])]:
            stage = lineage.stage(name)
            found = evaluation.curve(lineage, name)
            found["score"] *= 100
            found["total"] = total + found["step"]
            frames.append(found.assign(seed=lineage.seed, stage=name, trained=stage.domain))
            total += stage.steps
    return pd.concat(frames, ignore_index=True)


def refresh_curves(lineages: Sequence[Lineage], chosen: Plan) -> pd.DataFrame:
    """Every domain's score along each refresh of the damaged policy: `role`, `seed`, `step`, `domain`, `score`."""
    frames = []
    for role, names in chosen.refreshes.items():
        for lineage, name in zip(lineages, names, strict=True):
            found = evaluation.curve(lineage, name)
            frames.append(found.assign(role=role, seed=lineage.seed, score=100 * found["score"]))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def relearning(lineages: Sequence[Lineage]) -> pd.DataFrame:
    """Steps of first learning and of the refresh for the same points of the refreshed domain.

    The refresh goes from the damaged score to the refreshed one; first learning passes both on its own curve, where steps
    are interpolated linearly. Where it never reaches the refreshed score it is counted to its end, a lower bound; where
    it starts above the damaged score it gives NaN.

    Returns:
        A row a seed: `damaged`, `refreshed` (points, on the curve's prompts), `refresh_steps`, `first_learning_steps`,
        `ratio`, `at_least` (whether the two are lower bounds).
    """
    rows = []
    for lineage in lineages:
        first, again = (
            found[found["domain"] == lineage.profile.refresh]
            for found in (evaluation.curve(lineage, name) for name in (learned(lineage), refresh_names(lineage)[0]))
        )
        damaged, refreshed = again["score"].iloc[0], again["score"].iloc[-1]
        never = bool(first["score"].max() < refreshed)
        end = float(first["step"].iloc[-1]) if never else step_at(first, refreshed)
        steps = end - step_at(first, damaged)
        rows.append(
            {
                "seed": lineage.seed,
                "damaged": 100 * damaged,
                "refreshed": 100 * refreshed,
                "refresh_steps": lineage.profile.refresh_steps,
                "first_learning_steps": steps,
                "ratio": steps / lineage.profile.refresh_steps,
                "at_least": never,
            }
        )
    return pd.DataFrame(rows)


def step_at(learning: pd.DataFrame, score: float) -> float:
    """The first step at which a learning curve reaches a score, interpolated linearly between its points.

    Args:
        learning: a row a point of the curve, with `step` and `score`.
        score: the score to reach.

    Returns:
        The step; NaN if the curve never reaches the score, or starts at it or above.
    """
    steps, scores = learning["step"].to_numpy(float), learning["score"].to_numpy()
    above = np.flatnonzero(scores >= score)
    if len(above) == 0 or above[0] == 0:
        return float("nan")
    i = above[0]
    return float(steps[i - 1] + (steps[i] - steps[i - 1]) * (score - scores[i - 1]) / (scores[i] - scores[i - 1]))


def against_the_paper(lineages: Sequence[Lineage], chosen: Plan, scores: pd.DataFrame) -> pd.DataFrame:
    """The paper's values of claim C9 beside ours, at T = 1 and greedy; empty where the run has no refresh.

    Returns:
        A row a quantity: `meaning`, `paper` and its `source`, `here` with `low`, `high`, `greedy` with `greedy_low`,
        `greedy_high`.
    """
    if not chosen.refreshes:
        return pd.DataFrame()
    domain = lineages[0].profile.refresh
    peak = next(role for role, names in chosen.sequence.items() if names[0] == learned(lineages[0]))
    damaged, refreshed = list(chosen.sequence)[-1], next(iter(chosen.refreshes))
    where = {
        "math_peak": (peak, domain),
        "math_damaged": (damaged, domain),
        "math_refreshed": (refreshed, domain),
        "average_damaged": (damaged, None),
        "average_refreshed": (refreshed, None),
    }
    rows = []
    for quantity, (role, of) in where.items():
        meaning, reported, source = paper.REPORTED.loc[quantity, ["meaning", "value", "source"]]
        at_1, greedy = (score(scores, role, of, decoding) for decoding in (TEMPERATURE_1, GREEDY))
        ours = dict(zip(("here", "low", "high", "greedy", "greedy_low", "greedy_high"), (*at_1, *greedy), strict=True))
        rows.append({"quantity": quantity, "meaning": meaning, "paper": reported, "source": source, **ours})
    return pd.DataFrame(rows)


def score(scores: pd.DataFrame, role: str, domain: str | None, decoding: str) -> stats.Interval:
    """A checkpoint's score on a domain's test split, or the average over domains where that is None.

    The interval is over seeds; over prompts for one domain of one seed; unknown for an average of one seed.
    """
    rows = scores[(scores["role"] == role) & (scores["split"] == "test") & (scores["decoding"] == decoding)]
    if domain is None:
        return stats.seed_mean(rows.groupby("seed")["score"].mean(), SCORES)
    rows = rows[rows["domain"] == domain]
    if len(rows) == 1:
        return stats.Interval(*rows.iloc[0][["score", "low", "high"]])
    return stats.seed_mean(rows["score"], SCORES)


# What of the headline only a run with later stages and a refresh has.
RECOVERY = (
    *("peak", "peak_greedy", "damaged", "damaged_greedy", "refreshed", "refreshed_greedy"),
    *("damage", "refresh_gain", "average_refreshed"),
)


def headline(run: Run, scores: pd.DataFrame, changes: pd.DataFrame) -> dict[str, Any]:
    """The numbers that other pages quote, as text with their intervals."""
    lineages, profile = run.lineages, run.profile
    chosen = plan(lineages)
    damaged = list(chosen.sequence)[-1]
    values: dict[str, Any] = {
        "profile": profile.name,
        "scale": profile.scale,
        "parameters": words.millions(lineages[0].checkpoint(BASE).parameter_count()),
        "seeds": " ".join(map(str, run.seeds)),
        "base_seeds": " ".join(map(str, sorted({profile.base_seed(seed) for seed in run.seeds}))),
        "stages": " → ".join(title(lineages[0], stage) for stage in profile.stages),
        "refreshed_domain": title(lineages[0], profile.refresh),
        "refresh_steps": profile.refresh_steps,
        "average_damaged": words.points(score(scores, damaged, None, TEMPERATURE_1)),
        **dict.fromkeys(RECOVERY, "— (not in this run)"),
    }
    if chosen.refreshes:
        refreshed = next(iter(chosen.refreshes))
        peak = next(role for role, names in chosen.sequence.items() if names[0] == learned(lineages[0]))
        domain = profile.refresh
        for name, role in (("peak", peak), ("damaged", damaged), ("refreshed", refreshed)):
            values[name] = words.points(score(scores, role, domain, TEMPERATURE_1))
            values[f"{name}_greedy"] = words.points(score(scores, role, domain, GREEDY))
        loss = [
            scores.query("role == @r and domain == @domain and split == 'test' and decoding == 'T=1'", local_dict={
                "r": role, "domain": domain}).set_index("seed")["score"]
            for role in (damaged, peak)
        ]  # fmt: skip
        values |= {
            "damage": words.points(stats.seed_mean(loss[0] - loss[1]), sign=True),
            "refresh_gain": words.points(change(changes, refreshed, domain), sign=True),
            "average_refreshed": words.points(score(scores, refreshed, None, TEMPERATURE_1)),
        }
    return values
