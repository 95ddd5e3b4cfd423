"""Gradients and curvature of an objective, as vectors over all parameters and as products of a matrix with a vector.

No matrix is ever formed. Data are taken a microbatch at a time, so that memory does not grow with the number of prompts.
Precision is that of the parameters given: float32, or float64 for checks.

hvp              H v, the Hessian: a gradient of ⟨∇L, v⟩ (Pearlmutter, 1994)
ggn_vp           G v, the generalised Gauss–Newton matrix JᵀH_out J (Schraudolph, 2002): curvature of the loss in the
                 network's outputs, leaving out that of the network. Of `objectives.kl` it is the Fisher matrix at the
                 parameters given, exact in each next token, and at θ_A it is the Hessian
fisher_vp        F v, F = mean g gᵀ over the gradients g of the rows' losses. Of `objectives.negative_log_likelihood` it
                 estimates the same Fisher matrix from the scores of whole sampled responses
fisher_diagonal  the diagonal of that F
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from crossdomain.objectives import Function, Microbatch, Objective, Parameters

HVP_PARTS = 3  # double backward keeps about three times the activations of one backward
PER_ROW_ELEMENTS = 2**24  # numbers held at a time by gradients taken row by row (or one row's)


class ParameterSpace:
    """Named parameters as one vector, in their own order (that of `model.named_parameters()`)."""

    def __init__(self, params: Parameters) -> None:
        self.shapes = {name: parameter.shape for name, parameter in params.items()}
        self.size = sum(shape.numel() for shape in self.shapes.values())

    def flatten(self, tensors: Parameters) -> Tensor:
        """The vector made of tensors, such as parameters, a difference of them or a mask; shape (p,).

        Raises:
            ValueError: a name is missing or unknown, or a shape is another.
        """
        found = {name: tensor.shape for name, tensor in tensors.items()}
        if found != self.shapes:
            name = next(n for n in [*self.shapes, *found] if found.get(n) != self.shapes.get(n))
            expected, got = self.shapes.get(name), found.get(name)
            raise ValueError(
                f"parameter {name!r}: expected {'none of that name' if expected is None else f'shape {tuple(expected)}'}, "
                f"got {'none' if got is None else f'shape {tuple(got)}'}"
            )
        return torch.cat([tensors[name].reshape(-1) for name in self.shapes])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """The tensors that a vector of shape (p,) is made of, sharing its memory.

        Raises:
            ValueError: it has another shape.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"expected a vector of shape ({self.size},), got {tuple(vector.shape)}")
        parts: tuple[Tensor, ...] = vector.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def coordinates(self, selection: Tensor) -> Tensor:
        """Ascending indices of a set of coordinates, given by a mask of shape (p,) or by indices in any order.

        Raises:
            ValueError: the set is empty, the mask has another shape, or an index is out of range.
        """
        if selection.dtype == torch.bool:
            if selection.shape != (self.size,):
                raise ValueError(f"expected a mask of shape ({self.size},), got {tuple(selection.shape)}")
            selection = selection.nonzero().squeeze(1)
        index: Tensor = selection.unique()
        if len(index) == 0:
            raise ValueError("the set of coordinates is empty: expected at least one (does the mask select anything?)")
        if index[0] < 0 or index[-1] >= self.size:
            raise ValueError(f"expected indices of 0 to {self.size - 1}, got {int(index[0])} to {int(index[-1])}")
        return index


def gradient(objective: Objective, params: Parameters) -> Tensor:
    """∇L at the parameters, shape (p,).

    Raises:
        FloatingPointError: it is not finite.
    """
    return _total_gradient(objective.loss, objective.microbatches, params, f"gradient: {objective.describe()}")


def hvp(objective: Objective, params: Parameters, vector: Tensor) -> Tensor:
    """H v, with H = ∇²L at the parameters and v of shape (p,); for several v, see `Hessian`.

    Raises:
        ValueError: the vector has another shape or precision than the parameters, or is not finite.
        FloatingPointError: the product is not finite.
    """
    return Hessian(objective, params, keep=False)(vector)


class Hessian:
    """v ↦ H v, with H = ∇²L at fixed parameters, for one product after another.

    Args:
        objective: L.
        params: where H is taken.
        keep: the graph of ∇L from one product to the next, which is a third of the work, if memory allows all rows at once.
    """

    def __init__(self, objective: Objective, params: Parameters, *, keep: bool = True) -> None:
        self.objective, self.params = objective, params
        most = objective.batch_size or max(map(_rows, objective.microbatches))
        self._parts = [part for batch in objective.microbatches for part in _parts(batch, math.ceil(most / HVP_PARTS))]
        self._keeps = keep and len(self._parts) == 1
        self._kept: tuple[Parameters, tuple[Tensor, ...]] | None = None

    def __call__(self, vector: Tensor) -> Tensor:
        """H v, shape (p,).

        Raises:
            ValueError: the vector has another shape or precision than the parameters, or is not finite.
            FloatingPointError: the product is not finite.
        """
        direction = _direction(self.params, vector).values()
        total = _zeros(self.params)
        for part in self._parts:
            leaves, gradients = self._kept or self._gradient(part)
            if self._keeps:
                self._kept = leaves, gradients
            pairs = [(g, d) for g, d in zip(gradients, direction, strict=True) if g.requires_grad]
            if pairs:
                slopes, along = zip(*pairs, strict=True)
                products = torch.autograd.grad(
                    slopes,
                    list(leaves.values()),
                    along,
                    retain_graph=self._keeps,
                    materialize_grads=True,
                )
                _add(total, products)
        return _finite(total, f"Hessian-vector product: {self.objective.describe()}")

    def _gradient(self, part: Microbatch) -> tuple[Parameters, tuple[Tensor, ...]]:
        """The parameters as leaves of a graph, and ∇L as a function of them."""
        leaves = {name: parameter.detach().requires_grad_() for name, parameter in self.params.items()}
        return leaves, _derivative(self.objective.loss(leaves, part), leaves, create_graph=True)


def ggn_vp(objective: Objective, params: Parameters, vector: Tensor) -> Tensor:
    """G v, with G = mean JᵀH_out J: J the outputs' Jacobian, H_out the loss's Hessian in the outputs.

    Positive semi-definite where the loss is convex in the outputs, as KL is.

    Raises:
        ValueError: the vector has another shape or precision than the parameters, or is not finite.
        FloatingPointError: the product is not finite.
    """
    direction = _direction(params, vector)

    def pulled_back(leaves: Parameters, batch: Microbatch) -> Tensor:
        outputs, tangent = _pushed_forward(lambda q: objective.outputs(q, batch), params, direction)
        outputs.requires_grad_()
        (slope,) = _derivative(
            objective.losses(outputs, batch).sum() / objective.rows, {"": outputs}, create_graph=True
        )
        (curved,) = _derivative((slope * tangent).sum(), {"": outputs})
        return (objective.outputs(leaves, batch) * curved).sum()

    return _total_gradient(
        pulled_back, objective.microbatches, params, f"Gauss–Newton-vector product: {objective.describe()}"
    )


def fisher_vp(objective: Objective, params: Parameters, vector: Tensor) -> Tensor:
    """F v, with F = mean g gᵀ over rows, g the gradient of a row's loss.

    Raises:
        ValueError: the vector has another shape or precision than the parameters, or is not finite.
        FloatingPointError: the product is not finite.
    """
    direction = _direction(params, vector)

    def weighted(leaves: Parameters, batch: Microbatch) -> Tensor:
        def losses(q: Parameters) -> Tensor:
            return objective.losses(objective.outputs(q, batch), batch)

        _, slopes = _pushed_forward(losses, params, direction)  # ⟨g, v⟩ of each row
        return (losses(leaves) * slopes).sum() / objective.rows

    return _total_gradient(weighted, objective.microbatches, params, f"Fisher-vector product: {objective.describe()}")


def fisher_diagonal(objective: Objective, params: Parameters) -> Tensor:
    """The diagonal of F = mean g gᵀ over rows, g the gradient of a row's loss; shape (p,).

    Of `objectives.negative_log_likelihood` on a policy's own rollouts it is unbiased for the Fisher matrix of whole
    responses; squaring the gradient of a batch, or of single tokens, would not be.

    Raises:
        FloatingPointError: it is not finite.
    """

    def loss(q: Parameters, row: Microbatch) -> Tensor:
        batch = {name: tensor[None] for name, tensor in row.items()}
        return objective.losses(objective.outputs(q, batch), batch).sum()

    by_row = vmap(grad(loss), in_dims=(None, 0))
    total = _zeros(params)
    rows_at_once = max(1, PER_ROW_ELEMENTS // len(total))
    for batch in objective.microbatches:
        for part in _parts(batch, rows_at_once):
            _add(total, (g.square().sum(0) for g in by_row(dict(params), part).values()))
    return _finite(total / objective.rows, f"Fisher diagonal: {objective.describe()}")


def _total_gradient(function: Function, batches: Iterable[Microbatch], params: Parameters, what: str) -> Tensor:
    """The gradient, shape (p,), of the sum of a scalar function over microbatches."""
    total = _zeros(params)
    for batch in batches:
        leaves = {name: parameter.detach().requires_grad_() for name, parameter in params.items()}
        _add(total, _derivative(function(leaves, batch), leaves))
    return _finite(total, what)


def _derivative(scalar: Tensor, leaves: Parameters, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Derivatives of a scalar by leaves: zero where it does not depend on them."""
    if not scalar.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves.values())
    return torch.autograd.grad(scalar, list(leaves.values()), create_graph=create_graph, materialize_grads=True)


def _pushed_forward(
    function: Callable[[Parameters], Tensor], params: Parameters, direction: Parameters
) -> tuple[Tensor, Tensor]:
    """The function's value, and its derivative along a direction."""
    with torch.no_grad():
        value, tangent, *_ = jvp(function, (dict(params),), (dict(direction),))
    return value, tangent


def _direction(params: Parameters, vector: Tensor) -> dict[str, Tensor]:
    direction = ParameterSpace(params).unflatten(vector)
    dtype = next(iter(params.values())).dtype
    if vector.dtype != dtype:
        raise ValueError(f"expected a vector of {dtype} as the parameters are, got {vector.dtype}: convert it")
    if bad := not_finite(vector):
        raise ValueError(f"expected a vector of finite numbers, {bad} of its {len(vector)} are not")
    return direction


def _zeros(params: Parameters) -> Tensor:
    first = next(iter(params.values()))
    return first.new_zeros(ParameterSpace(params).size)


def _rows(batch: Microbatch) -> int:
    return len(next(iter(batch.values())))


def _parts(batch: Microbatch, size: int) -> Iterator[Microbatch]:
    """The microbatch in parts of at most so many rows."""
    for start in range(0, _rows(batch), size):
        yield {name: tensor[start : start + size] for name, tensor in batch.items()}


def _add(total: Tensor, tensors: Iterable[Tensor]) -> None:
    """Add tensors to the vector they are the parts of, one after the other, without another vector of its size."""
    start = 0
    for tensor in tensors:
        total[start : start + tensor.numel()] += tensor.reshape(-1)
        start += tensor.numel()


def not_finite(vector: Tensor) -> int:
    """How many numbers are not finite. They are counted where the sum is not, which costs a tenth of counting."""
    return 0 if vector.sum().isfinite() else int((~vector.isfinite()).sum())


def _finite(vector: Tensor, what: str) -> Tensor:
    if bad := not_finite(vector):
        raise FloatingPointError(
            f"{what}: {bad} of {len(vector)} numbers are not finite; check the parameters (float64 has a wider range)"
        )
    return vector
