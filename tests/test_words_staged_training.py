"""Sentences state the numbers they are given, and say so when a difference may be nothing."""

import numpy as np
import pandas as pd

from crossdomain import words
from crossdomain.profiles import load_profile
from crossdomain.stats import Interval
from crossdomain.words import staged_training as say

TITLES = {"code": "Code", "math": "Math", "qa": "QA", "cw": "CW"}
PROFILE = load_profile("smoke")
STAGES = ["Code", "Math", "QA", "CW"]
REFRESHES = ["refresh Math", "control: refresh QA"]


def planted(refresh: float, control: float) -> pd.DataFrame:
    gains = dict.fromkeys(STAGES, 9.0) | {"refresh Math": refresh, "control: refresh QA": control}
    return pd.DataFrame(
        [
            {"step": step, "seed": seed, "domain": domain, "split": "test", "decoding": decoding, "before": 40.0,
             "after": 40.0 + gain, "change": gain + noise, "low": gain - 1, "high": gain + 1}
            for step, gain in gains.items()
            for domain in TITLES
            for decoding in ("T=1", "greedy")
            for seed, noise in enumerate((-0.5, 0.0, 0.5))
        ]
    )  # fmt: skip


def relearning(ratio: float) -> pd.DataFrame:
    return pd.DataFrame({"ratio": [ratio], "first_learning_steps": [ratio * PROFILE.refresh_steps], "at_least": [True]})


def test_points_are_written_with_their_interval_and_a_true_minus() -> None:
    assert words.points(Interval(-1.25, -2.0, -0.5), sign=True) == "−1.2 [−2.0, −0.5]"
    assert words.points(Interval(57.66, np.nan, np.nan)) == "57.7"


def test_a_refresh_that_beats_its_controls_is_said_to() -> None:
    text = say.refresh(planted(12, 1), relearning(5), PROFILE, TITLES)
    assert "It gains more than every control" in text
    assert "“control: refresh QA” with +1.0" in text
    assert "at least 10 steps" in text and "5.0 times as many" in text


def test_a_refresh_that_does_not_is_said_not_to() -> None:
    text = say.refresh(planted(2, 8), relearning(np.nan), PROFILE, TITLES)
    assert "does **not** gain more than every control" in text
    assert "its steps cannot be compared" in text


def test_stages_without_a_sure_lift_are_named() -> None:
    changes = planted(12, 1)
    changes.loc[(changes["step"] == "QA") & (changes["domain"] == "qa"), "change"] = [
        -3.0,
        0.0,
        3.0,
    ] * 2  # T = 1 and greedy
    text = say.gave_and_took(changes, PROFILE, TITLES)
    assert "in Code, Math, CW; not in QA." in text
    assert text.endswith("not surely, in QA.")
    assert "not distinguishable from 0" in text


def compared(refreshed: float) -> pd.DataFrame:
    values = {"math_peak": (66.49, 72.0), "math_damaged": (57.66, 62.0), "math_refreshed": (66.04, refreshed)}
    return pd.DataFrame([{"quantity": q, "paper": p, "here": h, "greedy": h} for q, (p, h) in values.items()])


def averages(refreshed: float, control: float) -> pd.DataFrame:
    rows = {"base": 30.0, "refresh Math": refreshed, "control: refresh Code": control}
    return pd.DataFrame([{"role": r, "split": "test", "decoding": "T=1", "score": v} for r, v in rows.items()])


def test_agreement_and_disagreement_with_the_paper_are_both_said() -> None:
    good = say.agreement(compared(71.0), averages(60, 55))
    assert "returns 95 % of them; here they take 10.0 and it returns 90 %" in good
    assert "not** agree" not in good
    bad = say.agreement(compared(60.0), averages(55, 60))
    assert bad.count("does **not** agree") == 3
    assert "“control: refresh Code” (60.0)" in bad
