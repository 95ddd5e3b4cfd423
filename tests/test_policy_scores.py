import numpy as np
import pytest
import torch

from crossdomain import evaluation, objectives
from crossdomain.evaluation import GREEDY
from crossdomain.lineage import Lineage
from crossdomain.policy_scores import PolicyScores


@pytest.fixture(scope="module")
def small(lineage: Lineage) -> Lineage:
    return lineage.variant({"stages": ["qa", "cw"], "refresh": "qa", "curve_prompts": 12, "test_prompts": 12})


def test_a_checkpoints_parameters_score_as_the_checkpoint_does(small: Lineage) -> None:
    scores, params = PolicyScores(small, "qa-cw"), objectives.parameters(small.checkpoint("qa").model())
    expected = evaluation.by_prompt(evaluation.scores(small, "qa"))
    for domain, found, decoding in (
        ("qa", scores.expected(params, "qa"), "T=1"),
        ("qa", scores.greedy(params, "qa"), GREEDY),
        ("cw", scores.expected(params, "cw"), "T=1"),
        ("cw", scores.greedy(params, "cw"), GREEDY),
    ):
        reported = 100 * expected.loc[domain, "test", decoding].to_numpy()
        np.testing.assert_allclose(found.numpy(), reported, atol=1e-3)


def test_scoring_leaves_the_parameters_and_the_next_policy_alone(small: Lineage) -> None:
    scores = PolicyScores(small, "qa-cw")
    one, other = (objectives.parameters(small.checkpoint(name).model()) for name in ("qa", "qa-cw"))
    before = {name: value.clone() for name, value in one.items()}
    first = scores.expected(one, "qa")
    second = scores.expected(other, "qa")
    assert not torch.equal(first, second)
    assert torch.equal(scores.expected(one, "qa"), first)
    assert all(torch.equal(one[name], value) for name, value in before.items())
