"""Rows dealt into folds, and heads judged by what they answer to the rows that they were not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regraft.engine.solve import require_finite
from regraft.errors import UsageError
from regraft.waist import Loss, Task

FOLDS = 5
LARGEST = 2**25
"""Outputs that are held at once, for all rows and some heads."""
SAID = "head chosen on the training rows among "
Judge = Callable[[Tensor], tuple[float, float]]


class Rows(NamedTuple):
    """The training rows of a choice: what is wanted of the outputs [N, C], a weight and a fold for each row."""

    features: Tensor
    targets: Tensor
    wanted: Tensor
    weights: Tensor
    folds: Tensor
    centred: bool
    apart: bool


def rows_of(
    head: Any, features: Tensor, targets: Tensor, task: Task, loss: Loss, groups: Sequence[str], seed: int
) -> Rows:
    """Rows for a choice: each with its fold, its weight in the loss and, of classes, its smoothed share of each.

    Rows of one name in `groups` are in one fold.

    Args:
        head: A head of tasks/ for classes or for numbers, on features [N, D].
    Raises: UsageError: the targets are neither classes nor numbers. DataError: features that are not finite.
    """
    if targets.ndim != 1:
        raise UsageError(
            "a head cannot be chosen by cross-validation for this target",
            saw=f"the task {task.name}",
            allowed="one class or one number for each row",
            do="--probe.by steps",
        )
    with torch.no_grad():
        require_finite(task.loss(head(features), targets, loss))
    wanted, weights = targets[:, None], torch.ones(len(targets))
    if not targets.is_floating_point():
        count = len(head.weight)
        zeros = torch.zeros(len(targets), count)
        # at zero every row loses the same, but for its weight
        weights = task.loss(zeros, targets, loss) / task.loss(zeros, targets, replace(loss, balance=0.0))
        wanted = functional.one_hot(targets, count) * (1 - loss.smoothing) + loss.smoothing / count
    apart = len(set(groups)) == len(groups)
    folds = dealt(targets, groups, seed)
    return Rows(features, targets, wanted.float(), weights, folds, head.bias is not None, apart)


def dealt(targets: Tensor, groups: Sequence[str], seed: int, count: int = FOLDS) -> Tensor:
    """A fold for each row, [N]: seeded, each class in its share, rows of one group in one fold.

    >>> found = dealt(torch.tensor([0] * 10 + [1] * 5), [str(i) for i in range(15)], 0)
    >>> found[:10].bincount().tolist(), found[10:].bincount().tolist()
    ([2, 2, 2, 2, 2], [1, 1, 1, 1, 1])
    """
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=draw)
    named: dict[str, int] = {}
    whose = torch.tensor([named.setdefault(group, len(named)) for group in groups])
    # a group stands where its first row does; classes one after the other, so that dealing out shares each of them
    first = torch.full((len(named),), len(order)).scatter_reduce(0, whose[order], torch.arange(len(order)), "amin")
    kind = targets[order[first]] if not targets.is_floating_point() else targets.new_zeros(len(named))
    place = np.lexsort((first.numpy(), kind.numpy()))
    fold = torch.empty(len(named), dtype=torch.long)
    fold[torch.from_numpy(place)] = torch.arange(len(named)) % min(count, len(named))
    return fold[whose]


def judge_of(task: Task, targets: Tensor, plain: Loss) -> Judge:
    """Outputs [N, C] → the deciding metric, and the mean loss."""
    metric, y = task.metrics[0], targets.numpy()

    def judge(outputs: Tensor) -> tuple[float, float]:
        made = outputs.contiguous()
        return metric.fn(task.decode(made)[metric.takes], y, None), float(task.loss(made, targets, plain).mean())

    return judge


def unseen(rows: Rows, weight: Tensor, bias: Tensor) -> Iterator[Tensor]:
    """Outputs [N, C, g] of heads [G, K, C, D] a few at a time: each row by those without its fold."""
    for some, shift in zip(weight.split(at_once(rows)), bias.split(at_once(rows)), strict=True):
        made = torch.empty(*rows.wanted.shape, len(some))
        for fold in range(weight.shape[1]):
            out = rows.folds == fold
            made[out] = torch.einsum("nd,gcd->ncg", rows.features[out], some[:, fold]) + shift[:, fold].T
        yield made


def at_once(rows: Rows) -> int:
    """How many heads may answer all rows at once."""
    return max(1, LARGEST // rows.wanted.numel())


def rank(score: float, loss: float, task: Task) -> tuple[float, float]:
    """Sorts the best score first, of equal ones the lower loss."""
    return (score if task.metrics[0].better == "lower" else -score), loss
