"""Chapter 2's study on the smallest lineage, and its sums on planted tables."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from crossdomain import overlap, sparsity
from crossdomain.lineage import Lineage


def test_the_steps_are_the_experts_the_later_stages_and_the_refresh(lineage: Lineage) -> None:
    found = sparsity.steps(lineage)
    assert found["Code expert"] == ("base", "code") and found["CW expert"] == ("base", "cw")
    assert found["Math stage"] == ("code", "code-math") and "Code stage" not in found
    assert found["refresh"] == ("code-math-qa-cw", "code-math-qa-cw-remath")


def test_edits_of_a_step_are_those_of_its_two_checkpoints(lineage: Lineage) -> None:
    tables = sparsity.step_edits(lineage, "base", "cw")
    before, after = (lineage.checkpoint(name).model().state_dict() for name in ("base", "cw"))
    name = "model.layers.1.mlp.up_proj.weight"
    row = tables["tensors"].set_index("name").loc[name]
    expected = (after[name] - before[name]).double()
    assert row["norm_delta"] == pytest.approx(expected.norm().item(), rel=1e-5)
    assert row["max_abs"] == pytest.approx(expected.abs().max().item(), rel=1e-6)


def test_shares_are_of_all_weights() -> None:
    shares = pd.DataFrame(
        {
            "role": "x", "domain": "math", "seed": 0, "subtraction": "float32",
            "kind": ["absolute", "absolute", "paper", "paper"], "threshold": [0.0, 0.0, np.nan, np.nan],
            "unchanged": [1, 8, 2, 0], "parameters": [10, 30, 10, 30],
        }
    )  # fmt: skip
    found = sparsity.unchanged(shares).set_index("kind")["share"]
    assert found["absolute"] == pytest.approx(22.5) and found["paper"] == pytest.approx(5.0)


def test_the_relative_norm_is_that_of_the_whole_edit() -> None:
    tensors = pd.DataFrame(
        {"role": "x", "domain": "math", "seed": 0, "norm_delta": [3.0, 4.0], "norm_before": [30.0, 40.0]}
    )
    assert sparsity.relative_norms(tensors)["relative_norm"].tolist() == [pytest.approx(10.0)]


def planted(magnitudes: dict[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"layer": np.repeat([0, 1], 50), "index": np.tile(np.arange(50), 2), "magnitude": values}).assign(
            role=role, seed=seed, domain=role
        )
        for (role, seed), values in magnitudes.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_overlaps_are_those_of_the_top_tenth_globally_and_within_layers() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=100), rng.normal(size=100)
    a[:50] += 5  # both change the first layer most
    b[:50] += 5
    found = sparsity.neuron_overlaps(planted({("a", 0): a, ("b", 0): b}), ["a", "b"]).set_index("scope")
    layers = np.repeat([0, 1], 50)
    assert found.loc["global", "jaccard"] == overlap.jaccard(overlap.top(a, 0.1), overlap.top(b, 0.1))
    within = (overlap.top(values, 0.1, within=layers) for values in (a, b))
    assert found.loc["within layers", "jaccard"] == overlap.jaccard(*within)
    assert found.loc["global", "layer_chance"] > 1.5 * found.loc["global", "chance"]


def test_stability_compares_seeds_of_one_base_alone(lineage: Lineage) -> None:
    other = Lineage(lineage.profile, 1, lineage.store)
    values = np.arange(100.0)
    neurons = planted({("a", 0): values, ("a", 1): values})
    found = sparsity.neuron_stability([lineage, other], neurons, ["a"])  # smoke's seeds share their base
    assert found["seeds"].tolist() == ["0 1"] * 2 and found["jaccard"].tolist() == [1.0, 1.0]
    assert sparsity.neuron_stability([lineage], neurons, ["a"]).empty


def test_the_profile_of_layers_averages_to_the_share_taken() -> None:
    rng = np.random.default_rng(0)
    found = sparsity.layer_profile(planted({("a", 0): rng.normal(size=100) + np.repeat([3, 0], 50)}))
    assert found["share"].mean() == pytest.approx(10) and found["share"][0] > found["share"][1]


def test_rounding_at_a_small_rate_makes_edits_sparse_that_are_dense(lineage: Lineage) -> None:
    small = lineage.variant({"precision_rates": [1e-6], "precision_steps": 2, "refresh": "cw", "stages": ["cw"]})
    found = sparsity.precision([small]).set_index("variant")
    assert found.loc["float32, stored as bfloat16", "equal"] > 50 > found.loc["float32", "equal"]
    assert found.loc["bfloat16", "equal"] >= found.loc["float32, stored as bfloat16", "equal"]
    assert found.loc["float32", "gain"] == found.loc["float32, stored as bfloat16", "gain"]


def test_bfloat16_weights_are_kept_in_bfloat16(lineage: Lineage) -> None:
    rounded = lineage.variant({"weights": "bfloat16"}).checkpoint("cw_2")
    weights = load_file(rounded.path / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert rounded.key != lineage.checkpoint("cw_2").key
    assert rounded.model().dtype == torch.float32
