"""Sentences state the numbers they are given, and say so when a difference may be nothing."""

import numpy as np
import pandas as pd

from crossdomain import words
from crossdomain.profiles import load_profile
from crossdomain.stats import Interval

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
    return pd.DataFrame({"ratio": [ratio], "first_learning_steps": [ratio * PROFILE.refresh_steps]})


def test_points_are_written_with_their_interval_and_a_true_minus() -> None:
    assert words.points(Interval(-1.25, -2.0, -0.5), sign=True) == "−1.2 [−2.0, −0.5]"
    assert words.points(Interval(57.66, np.nan, np.nan)) == "57.7"


def test_a_refresh_that_beats_its_controls_is_said_to() -> None:
    text = words.refresh(planted(12, 1), relearning(5), PROFILE, TITLES)
    assert "It gains more than every control" in text
    assert "“control: refresh QA” with +1.0" in text
    assert "5.0 times as many" in text


def test_a_refresh_that_does_not_is_said_not_to() -> None:
    text = words.refresh(planted(2, 8), relearning(np.nan), PROFILE, TITLES)
    assert "does **not** gain more than every control" in text
    assert "first learning never passed both scores" in text


def test_stages_without_a_sure_lift_are_named() -> None:
    changes = planted(12, 1)
    changes.loc[(changes["step"] == "QA") & (changes["domain"] == "qa"), "change"] = [-3.0, 0.0, 3.0]
    text = words.gave_and_took(changes, PROFILE, TITLES)
    assert text.endswith("in Code, Math, CW; not in QA.")
    assert "not distinguishable from 0" in text
