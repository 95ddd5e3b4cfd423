"""Losses of responses against torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from crossdomain.response_losses import divergence, negative_log_likelihood, own_divergence

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, OTHER = (torch.randn(2, 4, 7, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
BATCH = {
    "targets": torch.randint(7, (2, 4), generator=GENERATOR),
    "mask": torch.tensor([[False, True, True, False], [True] * 4]),
}


def test_the_likelihood_is_that_of_the_masked_tokens() -> None:
    for row, loss in enumerate(negative_log_likelihood(LOGITS, BATCH)):
        kept = BATCH["mask"][row]
        expected = F.cross_entropy(LOGITS[row][kept], BATCH["targets"][row][kept], reduction="sum")
        torch.testing.assert_close(loss, expected)


def test_the_divergence_sums_over_masked_positions() -> None:
    for row, loss in enumerate(divergence(LOGITS, OTHER, BATCH)):
        kept = BATCH["mask"][row]
        first, second = (logits[row][kept].log_softmax(-1) for logits in (LOGITS, OTHER))
        torch.testing.assert_close(loss, F.kl_div(second, first, log_target=True, reduction="sum"))


def test_the_divergence_from_itself_is_0_with_gradient_0_and_the_fisher_matrix_of_the_next_token() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = own_divergence(logits, BATCH).sum()
    (slope,) = torch.autograd.grad(loss, logits, create_graph=True)
    assert float(loss.detach()) == 0 and float(slope.detach().abs().max()) < 1e-15
    (curved,) = torch.autograd.grad((slope * OTHER).sum(), logits)
    p = LOGITS.softmax(-1)
    expected = p * (OTHER - (p * OTHER).sum(-1, keepdim=True)) * BATCH["mask"][..., None]
    torch.testing.assert_close(curved, expected)
