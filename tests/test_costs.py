"""Costs of runs: by what, and in which order they are shown."""

import pandas as pd
import pytest

from crossdomain import costs


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ({"kind": "base"}, "base"),
        ({"kind": "stage"}, "stage"),
        ({"kind": "measurement", "what": "routes-code-math"}, "gradients"),
        ({"kind": "measurement", "what": "damage-path"}, "damage"),
        ({"kind": "policy"}, "other"),
    ],
)
def test_an_artifact_is_counted_with_its_kind_or_what_is_measured(inputs: dict[str, str], part: str) -> None:
    assert costs._part(inputs) == part


def test_parts_add_up_in_the_order_of_the_book() -> None:
    made = pd.DataFrame(
        {
            "name": ["a", "b", "c"],
            "part": ["damage", "stage", "stage"],
            "core_seconds": [30.0, 60.0, 90.0],
            "peak_memory_gib": [3.0, 1.0, 2.0],
        }
    )
    found = costs.by_part(made)
    assert found["part"].tolist() == ["stage", "damage"]
    assert found["core_minutes"].tolist() == [2.5, 0.5] and found["peak_memory_gib"].tolist() == [2.0, 3.0]
    assert found["artifacts"].tolist() == [2, 1]
