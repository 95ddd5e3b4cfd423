"""Measurements: computed once, keyed by what they depend on, read back as they were."""

import math

import pandas as pd

from crossdomain import measurements, pairs
from crossdomain.lineage import Checkpoint, Lineage
from crossdomain.store import Store


def lineage_in(store: Store, lineage: Lineage) -> Lineage:
    return Lineage(lineage.profile, lineage.seed, store)


def test_a_measurement_is_computed_once_and_again_where_a_setting_changed(
    store_with_base: Store, lineage: Lineage, base: Checkpoint
) -> None:
    mine, calls = lineage_in(store_with_base, lineage), []

    def compute() -> dict[str, pd.DataFrame]:
        calls.append(1)
        return {"numbers": pd.DataFrame({"x": [0.1, math.nan], "name": ["a", "None"]})}

    options = {"checkpoints": ["base"], "code": [pairs]}
    first = measurements.tables(mine, "numbers", compute, settings={"k": 1}, **options)
    again = measurements.tables(mine, "numbers", compute, settings={"k": 1}, **options)
    assert len(calls) == 1
    pd.testing.assert_frame_equal(first["numbers"], again["numbers"])
    assert first["numbers"]["x"][0] == 0.1 and math.isnan(first["numbers"]["x"][1])
    assert first["numbers"]["name"].tolist() == ["a", "None"]
    measurements.tables(mine, "numbers", compute, settings={"k": 2}, **options)
    assert len(calls) == 2


def test_a_measurement_counts_as_used_by_its_run(store_with_base: Store, lineage: Lineage, base: Checkpoint) -> None:
    mine = lineage_in(store_with_base, lineage)
    artifact = measurements.kept(
        mine, "x", checkpoints=["base"], code=[pairs], make=lambda output, work: (output / "x.txt").touch() or None
    )
    from crossdomain import paths

    assert (paths.run(mine.run, [mine.seed]) / "uses" / "x").read_text().strip() == artifact.key
