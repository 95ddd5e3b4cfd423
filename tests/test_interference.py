"""The chapter's plan and tables, on planted numbers where an answer is known."""

import numpy as np
import pandas as pd
import pytest

from crossdomain import evaluation, interference
from crossdomain.lineage import Lineage
from crossdomain.profiles import load_profile
from crossdomain.store import Store


@pytest.fixture
def smoke_lineage(store: Store) -> Lineage:
    return Lineage(load_profile("smoke"), 0, store)


def test_over_seeds_uses_seeds_where_there_are_several_and_prompts_where_there_is_one() -> None:
    row = {"role": "base", "domain": "math", "split": "test", "decoding": "T=1"}
    several = pd.DataFrame(
        [{**row, "seed": s, "score": v, "low": 0, "high": 99} for s, v in enumerate((40.0, 50.0, 60.0))]
    )
    found = interference.over_seeds(several).iloc[0]
    assert (found["score"], found["sd"], found["seeds"]) == (50, 10, 3)
    assert found["low"] == pytest.approx(50 - 4.302652 * 10 / np.sqrt(3), abs=1e-3)
    one = interference.over_seeds(several.head(1)).iloc[0]
    assert (one["low"], one["high"]) == (0, 99)


@pytest.mark.parametrize(("score", "step"), [(0.25, 10.0), (0.5, 20.0), (0.75, 60.0), (0.05, np.nan), (1.0, np.nan)])
def test_steps_of_first_learning_are_interpolated(score: float, step: float) -> None:
    learning = pd.DataFrame({"step": [0, 20, 100], "score": [0.0 + 0.1 * (score < 0.1), 0.5, 0.95]})
    learning.loc[0, "score"] = 0.1 if score < 0.1 else 0.0
    expected = 60.0 + (0.75 - 0.725) / 0.45 * 80 if score == 0.75 else step
    assert interference.step_at(learning, score) == pytest.approx(expected, nan_ok=True)


def test_changes_are_paired_by_prompt(smoke_lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(lineage: Lineage, name: str) -> pd.DataFrame:
        gain = {"before": 0.0, "after": 0.2}[name]
        rows = [
            {"domain": "math", "split": "test", "decoding": "T=1", "item": i, "sample": 0, "score": i / 100 + gain}
            for i in range(50)
        ]
        return pd.DataFrame(rows)

    monkeypatch.setattr(evaluation, "scores", planted)
    found = interference.changes([smoke_lineage], {"Math": (["before"], ["after"])}).iloc[0]
    assert (found["change"], found["low"], found["high"]) == pytest.approx((20, 20, 20))
    assert (found["before"], found["after"]) == pytest.approx((24.5, 44.5))
