"""The losses whose derivatives are taken, as functions of a policy's named parameters on fixed data.

Each is L = −J for a domain's expected reward J, or a divergence, and a mean over prompts (theory, objectives 1 to 3):

exact_reward              minus the probability of the one right answer and its end
importance_weighted       the reward of fixed rollouts, reweighted by how much likelier the parameters make them
grpo                      what GRPO descends on, at the policy that sampled
kl                        how far the policy is from the one that sampled the rollouts
negative_log_likelihood   not a loss of the theory: minus its gradients by row are the scores that make the Fisher matrix

Second derivatives need attention written out in elementary operations (`eager`): the fused kernels have no double
backward on a CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crossdomain.domains import Domain, Item
from crossdomain.models import stop_token_ids
from crossdomain.profiles import Profile
from crossdomain.rollouts import Rollouts, microbatches

ADVANTAGE_EPSILON = 1e-4  # added to a group's standard deviation, as TRL does

Parameters = Mapping[str, Tensor]
Microbatch = Mapping[str, Tensor]
Function = Callable[[Parameters, Microbatch], Tensor]


class Estimate(NamedTuple):
    """A mean and its standard error; the error is NaN where it cannot be estimated."""

    value: float
    standard_error: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """The mean of values, shape (n,)."""
        return cls(values.mean().item(), values.std().item() / len(values) ** 0.5 if len(values) > 1 else float("nan"))


@dataclass(frozen=True)
class Objective:
    """The mean over rows of a loss that is differentiable in named parameters.

    A row is a prompt or, where there are rollouts, one of the `samples` consecutive rollouts of a prompt. Nothing here
    is about language models: any `outputs` and `losses` will do.

    Attributes:
        name: of the loss, as in "exact reward".
        data: what it is a mean over, as in "Math on 500 train prompts".
        microbatches: tensors by name, all with the same rows along their first dimension; as large as memory allows.
        outputs: what the network computes for a microbatch, shape (rows, ...).
        losses: the loss of each row from those outputs, shape (rows,).
        samples: rows a prompt.
        batch_size: rows that memory allows in a microbatch for a gradient; 0: those of the largest one.

    Raises:
        ValueError: there are no rows, or they are not `samples` for every prompt.
    """

    name: str
    data: str
    microbatches: Sequence[Microbatch]
    outputs: Function
    losses: Callable[[Tensor, Microbatch], Tensor]
    samples: int = 1
    batch_size: int = 0

    def __post_init__(self) -> None:
        if self.rows == 0 or self.rows % self.samples:
            raise ValueError(
                f"{self.describe()}: expected {self.samples} rows for each prompt, found {self.rows} in all"
            )

    @cached_property
    def rows(self) -> int:
        """Rows in all microbatches."""
        return sum(len(next(iter(batch.values()))) for batch in self.microbatches)

    def describe(self) -> str:
        """The loss and its data in words."""
        return f"{self.name} of {self.data}"

    def loss(self, params: Parameters, batch: Microbatch) -> Tensor:
        """What a microbatch adds to the mean over all rows, a scalar: the microbatches' sum is the objective's value."""
        return self.losses(self.outputs(params, batch), batch).sum() / self.rows

    def per_prompt(self, params: Parameters) -> Tensor:
        """The loss of each prompt, shape (prompts,), float64.

        Raises:
            FloatingPointError: some are not finite.
        """
        with torch.no_grad():
            rows = torch.cat([self.losses(self.outputs(params, batch), batch) for batch in self.microbatches]).double()
        if bad := int((~rows.isfinite()).sum()):
            raise FloatingPointError(
                f"{self.describe()}: {bad} of {self.rows} losses are not finite; check the weights"
            )
        return rows.view(-1, self.samples).mean(1)

    def value(self, params: Parameters) -> Estimate:
        """The loss, with its standard error over prompts."""
        return Estimate.of(self.per_prompt(params))


def parameters(model: PreTrainedModel) -> dict[str, Tensor]:
    """A model's parameters by name, sharing its memory, in its order; tied ones once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def exact_reward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    domain: Domain,
    items: Sequence[Item],
    *,
    split: str,
    batch_size: int = 256,
) -> Objective:
    """L = −mean_x π_θ(y*_x | x), the answer's probability, its end included (theory, objective 1).

    All tokens that end a response count as one: their probabilities add up.

    Args:
        model: gives the architecture; its weights do not matter.
        tokenizer: its tokenizer.
        profile: the prompt template.
        domain: one that rewards a single answer.
        items: prompts of one split.
        split: its name, for descriptions.
        batch_size: rows of a microbatch.

    Raises:
        ValueError: no items, a domain that rewards several responses, or a model that cannot be differentiated twice.
    """
    if not items:
        raise ValueError(f"{domain.title}, {split}: no prompts")
    answers = [answer for item in items if (answer := domain.answer(item)) is not None]
    if len(answers) != len(items):
        raise ValueError(f"{type(domain).__name__} rewards several responses: use importance_weighted() on rollouts")
    stop = torch.tensor(stop_token_ids(tokenizer, domain.stop), device=model.device)
    prompts = tokenizer([profile.prompt(item.prompt, item.prefill) for item in items])["input_ids"]
    targets = [[*ids, int(stop[0])] for ids in tokenizer(answers, add_special_tokens=False)["input_ids"]]

    def losses(logits: Tensor, batch: Microbatch) -> Tensor:
        logp = logits.log_softmax(-1)
        ends = (batch["targets"][..., None] == stop).any(-1)
        token = torch.where(ends, logp[..., stop].logsumexp(-1), _of_targets(logp, batch))
        return -token.masked_fill(~batch["mask"], 0).sum(1).exp()

    return Objective(
        "exact reward",
        f"{domain.title} on {len(items)} {split} prompts",
        microbatches(prompts, targets, batch_size, model.device),
        _logits(model),
        losses,
        batch_size=batch_size,
    )


def importance_weighted(model: PreTrainedModel, rollouts: Rollouts, *, batch_size: int = 256) -> Objective:
    """L = −mean_x mean_i (r_i − b_x) π_θ(y_i|x) / π_θA(y_i|x), b_x the mean of the prompt's rewards (theory, objective 2).

    At θ_A it is 0. With n rollouts a prompt, its change away from θ_A, its gradient and its Hessian are on average
    (n − 1)/n times those of −J, at θ_A and wherever the ratios have a mean: a response's own reward is part of its
    baseline. Scaling by n/(n − 1) makes them unbiased, and is the same as the mean of the other rewards for baseline.

    Args:
        model: the policy π_θA that sampled the rollouts.
        rollouts: at least two a prompt.
        batch_size: rows of a microbatch.

    Raises:
        ValueError: one rollout a prompt, or the model cannot be differentiated twice.
    """
    samples = rollouts.rewards.shape[1]
    if samples < 2:
        raise ValueError(f"{rollouts.data}: a baseline needs at least 2 rollouts a prompt; sample more")
    advantage = (rollouts.rewards - rollouts.rewards.mean(1, keepdim=True)).flatten().to(model.device, model.dtype)
    outputs, reference = _logits(model), parameters(model)
    batches = _rollout_batches(model, rollouts, batch_size, advantage=advantage)
    with torch.no_grad():
        for batch in batches:
            batch["reference"] = _log_probability(outputs(reference, batch), batch)

    def losses(logits: Tensor, batch: Microbatch) -> Tensor:
        return -batch["advantage"] * (_log_probability(logits, batch) - batch["reference"]).exp()

    return Objective("importance-weighted reward", rollouts.data, batches, outputs, losses, samples, batch_size)


def grpo(model: PreTrainedModel, rollouts: Rollouts, *, batch_size: int = 256) -> Objective:
    """GRPO's loss at the policy that sampled: L = −Σ_i A_i Σ_t ρ_it / tokens, ρ_it the ratio to the sampling policy.

    A_i is the reward minus the mean over the prompt's rollouts, over their standard deviation (`scale_rewards="group"`);
    the sum over all tokens is divided by their number (`loss_type="dapo"`). The ratios are 1 and are not clipped: only the
    gradient means anything [Shao et al. 2024, arXiv 2402.03300]. Prompts whose rollouts have equal rewards add nothing to
    it and are left out, but for their tokens.

    Args:
        model: the policy that sampled the rollouts, with eager attention.
        rollouts: at least two a prompt.
        batch_size: rows of a microbatch.

    Raises:
        ValueError: one rollout a prompt: there is no group to compare with.
    """
    samples = rollouts.rewards.shape[1]
    if samples < 2:
        raise ValueError(f"{rollouts.data}: a group needs at least 2 rollouts a prompt; sample more")
    tokens = sum(map(len, rollouts.responses))
    differ = (rollouts.rewards != rollouts.rewards[:, :1]).any(1).nonzero().flatten().tolist()
    kept = rollouts.of(differ or [0])
    rewards = kept.rewards
    scale = rewards.std(1, keepdim=True) + ADVANTAGE_EPSILON
    advantage = ((rewards - rewards.mean(1, keepdim=True)) / scale).flatten().to(model.device, model.dtype)
    per_token = advantage * (len(advantage) / tokens)

    def losses(logits: Tensor, batch: Microbatch) -> Tensor:
        logp = _of_targets(logits.log_softmax(-1), batch)
        ratio = (logp - logp.detach()).exp().masked_fill(~batch["mask"], 0)
        return -batch["advantage"] * ratio.sum(1)

    batches = _rollout_batches(model, kept, batch_size, advantage=per_token)
    return Objective("GRPO loss", rollouts.data, batches, _logits(model), losses, samples, batch_size)


def kl(model: PreTrainedModel, rollouts: Rollouts, *, batch_size: int = 256) -> Objective:
    """L = E_x KL(π_θA(·|x) ‖ π_θ(·|x)) on rollouts of π_θA (theory, objective 3).

    By the chain rule it is the mean over rollouts of the sum over their tokens of the divergence between the next-token
    distributions, each over the whole vocabulary. At θ_A the gradient is 0 and the Hessian is the Fisher matrix.

    Args:
        model: the policy π_θA that sampled the rollouts. Its weights are copied; its distributions are computed anew for
            every microbatch, since those of all tokens would not fit into memory with a large vocabulary.
        rollouts: its responses.
        batch_size: rows of a microbatch.

    Raises:
        ValueError: the model cannot be differentiated twice.
    """
    outputs = _logits(model)
    reference = {name: parameter.clone() for name, parameter in parameters(model).items()}

    def losses(logits: Tensor, batch: Microbatch) -> Tensor:
        with torch.no_grad():
            expected = outputs(reference, batch).log_softmax(-1)
        divergence = (expected.exp() * (expected - logits.log_softmax(-1))).sum(-1)  # (rows, position)
        return divergence.masked_fill(~batch["mask"], 0).sum(1)

    batches = _rollout_batches(model, rollouts, batch_size)
    return Objective("KL divergence", rollouts.data, batches, outputs, losses, rollouts.rewards.shape[1], batch_size)


def negative_log_likelihood(model: PreTrainedModel, rollouts: Rollouts, *, batch_size: int = 256) -> Objective:
    """L = −mean_x mean_i log π_θ(y_i|x), whole responses: its gradients by row are minus the scores of the rollouts.

    Args:
        model: gives the architecture; its weights do not matter.
        rollouts: responses of the policy whose scores are wanted.
        batch_size: rows of a microbatch.

    Raises:
        ValueError: the model cannot be differentiated twice.
    """
    return Objective(
        "negative log-likelihood",
        rollouts.data,
        _rollout_batches(model, rollouts, batch_size),
        _logits(model),
        lambda logits, batch: -_log_probability(logits, batch),
        rollouts.rewards.shape[1],
        batch_size,
    )


def _logits(model: PreTrainedModel) -> Function:
    """The model's logits where response tokens are predicted, (rows, position, vocabulary), from given parameters."""
    attention = model.config._attn_implementation
    if attention != "eager" or model.training:
        raise ValueError(
            f"second derivatives need eager attention and no dropout, but this model has attention {attention!r} and is "
            f"in {'training' if model.training else 'evaluation'} mode: call model.set_attn_implementation('eager') and "
            "model.eval()"
        )

    def outputs(params: Parameters, batch: Microbatch) -> Tensor:
        # No attention mask: padding is on the right, where a causal model's earlier positions never see it.
        inputs = {"input_ids": batch["ids"], "logits_to_keep": batch["targets"].shape[1], "use_cache": False}
        with _padding_like_other_tokens(model):
            logits: Tensor = functional_call(model, dict(params), kwargs=inputs).logits
        return logits

    return outputs


@contextlib.contextmanager
def _padding_like_other_tokens(model: PreTrainedModel) -> Iterator[None]:
    """Let gradients reach the embedding of the padding token.

    They stop there by default; but where it also ends a turn (SmolLM2) or is sampled, the loss depends on it, and
    backward and forward differentiation would disagree.
    """
    embedding: Any = model.get_input_embeddings()
    padding, embedding.padding_idx = embedding.padding_idx, None
    try:
        yield
    finally:
        embedding.padding_idx = padding


def _rollout_batches(
    model: PreTrainedModel, rollouts: Rollouts, size: int, **columns: Tensor
) -> list[dict[str, Tensor]]:
    prompts = [prompt for prompt in rollouts.prompts for _ in range(rollouts.rewards.shape[1])]
    return microbatches(prompts, rollouts.responses, size, model.device, **columns)


def _of_targets(logp: Tensor, batch: Microbatch) -> Tensor:
    """Log-probability of the token at each position, (rows, position)."""
    return logp.gather(2, batch["targets"][..., None]).squeeze(2)


def _log_probability(logits: Tensor, batch: Microbatch) -> Tensor:
    """Log-probability of each response, (rows,)."""
    return _of_targets(logits.log_softmax(-1), batch).masked_fill(~batch["mask"], 0).sum(1)
