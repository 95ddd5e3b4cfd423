"""The recovery matrix, from the scores of a small lineage and from numbers set by hand."""

import numpy as np
import pandas as pd
import pytest

from crossdomain import evaluation, selectivity, stats
from crossdomain.lineage import Lineage

MATRIX = pd.DataFrame(
    [
        (seed, refreshed, domain, gain + seed, gain - 1, gain + 1, 3.0)
        for seed in (0, 1)
        for refreshed, domain, gain in (
            ("math", "math", 8.0), ("qa", "math", 2.0), ("cw", "math", -1.0),
            ("math", "qa", 1.0), ("qa", "qa", 0.0), ("cw", "qa", 0.5),
        )
    ],
    columns=["seed", "refreshed", "domain", "change", "low", "high", "lost"],
)  # fmt: skip


def test_the_matrix_is_the_change_of_scores_from_the_damaged_policy(lineage: Lineage) -> None:
    small = lineage.variant({"stages": ["qa", "cw"], "refresh": "qa", "refresh_steps": 4, "test_prompts": 20})
    found = selectivity.recovery_matrix([small]).set_index(["refreshed", "domain"])
    assert set(found.index) == {(a, b) for a in ("qa", "cw") for b in ("qa", "cw")}

    def score(name: str, domain: str) -> float:
        return 100 * evaluation.test_scores(small, name, ["qa", "cw"])[domain].mean()

    for refreshed, domain in found.index:
        row = found.loc[(refreshed, domain)]
        change = score(f"qa-cw-re{refreshed}", domain) - score("qa-cw", domain)
        assert row["change"] == pytest.approx(change, abs=1e-4)
        assert row["low"] <= row["change"] <= row["high"]
    assert found.loc[("cw", "qa"), "lost"] == pytest.approx(score("qa", "qa") - score("qa-cw", "qa"), abs=1e-4)
    assert (found.xs("cw", level="domain")["lost"] == 0).all()  # nothing came after it


def test_intervals_are_over_seeds_and_over_prompts_where_there_is_one() -> None:
    both = selectivity.matrix_over_seeds(MATRIX).set_index(["refreshed", "domain"])
    assert both.loc[("math", "math"), ["change", "low", "high"]].tolist() == pytest.approx(stats.seed_mean([8.0, 9.0]))
    one = selectivity.matrix_over_seeds(MATRIX[MATRIX["seed"] == 0]).set_index(["refreshed", "domain"])
    assert one.loc[("qa", "math"), ["change", "low", "high", "lost"]].tolist() == [2, 1, 3, 3]


def test_selectivity_is_against_the_strongest_other_refresh() -> None:
    found = selectivity.selectivity(MATRIX).set_index(["seed", "domain"])
    assert found.loc[(0, "math")].to_dict() == {"own": 8.0, "other": 2.0, "beyond": 6.0, "best": "qa"}
    assert found.loc[(1, "qa")].to_dict() == {"own": 1.0, "other": 2.0, "beyond": -1.0, "best": "math"}
    np.testing.assert_allclose(found["beyond"], [6, -1, 6, -1])
