"""Fit a linear head to features that do not change, with all rows at once, to the minimum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from regraft.errors import DataError

MOST = 1000
FLAT = 1e-5
STILL = 1e-9
MEMORY = 10
SEARCHED = 4
ALIKE = 1e-6
"""A feature that spreads less than this share of its mean is always the same: what is left is rounding."""
SHOWN = 3


class Solved(NamedTuple):
    """How a fit ended: iterations taken, and the objective reached, the penalty in it."""

    iterations: int
    loss: float


def solve(
    head: Any,
    features: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    l2: float,
    *,
    flat: float = FLAT,
    most: int = MOST,
) -> Solved:
    """Set a linear head to the minimum of the mean loss of a row plus l2/2 · ‖weight‖²; the bias costs nothing.

    L-BFGS with a strong Wolfe search, from the head as it stands. It works on weights that are scaled by each feature's
    spread, about the features' means, where the objective is nearly as steep in all directions; minimum and penalty are
    those of the weights as they ship. The same inputs give the same bits.

    In terms of scikit-learn on N rows: of three classes or more l2 = 1 / (C · N) is LogisticRegression(C). Two classes
    have two outputs here, which share the one weight vector there, and half its penalty: l2 = 2 / (C · N). For a yes or
    no on each of K labels, whose mean is the loss, l2 = 1 / (C · N · K); for numbers in units of their standard
    deviation l2 = 2 · alpha / N is Ridge(alpha).

    Args:
        head: A head of tasks/: a linear layer, whatever it does to its outputs.
        features: [N, dim], dense or sparse in compressed rows; float32.
        loss: (outputs, targets) → one loss a row, [N], smooth in the outputs.
        flat: It ends where no derivative by a scaled weight is steeper than this.
        most: Iterations after which it ends in any case.
    Raises: DataError: a row's loss is not finite at the start; the rows are named.
    Reference: Liu & Nocedal, On the limited memory BFGS method for large scale optimization, 1989.

    >>> head = nn.Linear(1, 1)
    >>> half = lambda made, wanted: (made.flatten() - wanted).square() / 2
    >>> _ = solve(head, torch.tensor([[0.0], [2.0]]), torch.tensor([1.0, 5.0]), half, l2=1.0)
    >>> [round(p.item(), 3) for p in head.parameters()]
    [1.0, 2.0]
    """
    product = _product(features)
    with torch.no_grad():
        require_finite(loss(head(features), targets))
    mean, spread = _moments(features)
    scale = (spread.square() + l2).sqrt()
    scale[scale == 0] = 1.0  # a feature that is always the same: nothing depends on it
    if head.bias is None:
        mean = torch.zeros_like(mean)
    start = head.weight.detach()
    weight = nn.Parameter(start * scale)
    bias = nn.Parameter((head.bias.detach() if head.bias is not None else start.new_zeros(len(start))) + start @ mean)
    free = [weight, bias] if head.bias is not None else [weight]
    one = torch.eye(len(start), dtype=start.dtype)

    def layer() -> tuple[Tensor, Tensor]:
        true = weight / scale
        return true, bias - true @ mean

    def losses() -> tuple[Tensor, Tensor]:
        true, offset = layer()
        inside = {"weight": one} | ({"bias": offset} if head.bias is not None else {})
        found = loss(functional_call(head, inside, (product(true),)), targets)
        return found, l2 / 2 * true.double().square().sum()

    def closure() -> Tensor:
        rule.zero_grad()
        found, penalty = losses()
        whole = found.double().mean() + penalty
        whole.backward()
        return whole

    rule = torch.optim.LBFGS(
        free,
        max_iter=most,
        max_eval=SEARCHED * most,
        tolerance_grad=flat,
        tolerance_change=STILL,
        history_size=MEMORY,
        line_search_fn="strong_wolfe",
    )
    rule.step(closure)
    with torch.no_grad():
        found, penalty = losses()
        true, offset = layer()
        head.weight.copy_(true)
        if head.bias is not None:
            head.bias.copy_(offset)
    return Solved(int(rule.state[weight]["n_iter"]), float(found.double().mean() + penalty))


class _Sparse(torch.autograd.Function):
    """Sparse rows [N, dim] times a weight [C, dim]; the rows come with their transpose, made once for all gradients."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.columns = columns
        made: Tensor = rows @ weight.T
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return (ctx.columns @ grads[0]).T, None, None


def _product(features: Tensor) -> Callable[[Tensor], Tensor]:
    """A weight [C, dim] → features times it, [N, C], differentiable by the weight."""
    if features.layout != torch.sparse_csr:
        return lambda weight: features @ weight.T
    columns = features.t().to_sparse_csr()
    return lambda weight: cast(Tensor, _Sparse.apply(weight, features, columns))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, [dim] each; of sparse ones, too, without filling them up."""
    if features.layout != torch.sparse_csr:
        spread, mean = torch.std_mean(features, 0, correction=0)
        return mean, spread.where(spread > ALIKE * mean.abs(), 0.0)
    held, n = features.values().double(), len(features)
    empty = held.new_zeros(features.shape[1])
    mean, square = (empty.index_add(0, features.col_indices().long(), part) / n for part in (held, held.square()))
    return mean.float(), (square - mean.square()).clamp(min=0).sqrt().float()


def require_finite(losses: Tensor) -> None:
    """Go on only where every row has a loss.

    Raises: DataError: one has none.
    """
    wrong = (~losses.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise DataError(
            f"the loss of {len(wrong):,} of {len(losses):,} training rows is not finite",
            saw="rows " + ", ".join(f"{i + 1} ({float(losses[i])})" for i in wrong[:SHOWN]),
            allowed="features and targets that are finite numbers",
            do="look at these rows, and leave them out if they are not sound",
        )
