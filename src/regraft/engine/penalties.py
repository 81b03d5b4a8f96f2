"""Choose a head's family and penalty by cross-validation on the training rows, and fit it to all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regraft.engine.heads import temperature
from regraft.engine.logistic import Grid, logistic
from regraft.engine.ridge import Basis, basis, ridge
from regraft.engine.solve import FLAT, require_finite, solve
from regraft.errors import UsageError
from regraft.waist import Loss, Task

FOLDS = 5
RIDGE = (-4.0, 2.0)
LOGISTIC = (-6.0, 0.0)
"""Penalties run between these powers of ten, times the mean sum of squares along an axis of the features."""
COUNT = 25
LARGEST = 2**25
"""Outputs that are held at once, for all rows and some penalties."""
SAID = "head chosen on the training rows among "


class Chosen(NamedTuple):
    """What cross-validation chose, its score there, the objective of the fit to all rows, and all that in words."""

    family: str
    alpha: float
    score: float
    loss: float
    told: str


class _Lead(NamedTuple):
    """A candidate: its penalty, its place on the path, its score and loss in cross-validation."""

    alpha: float
    place: int
    score: float
    loss: float


class _Rows(NamedTuple):
    """The training rows of a choice: what is wanted of the outputs [N, C], a weight and a fold for each row."""

    features: Tensor
    targets: Tensor
    wanted: Tensor
    weights: Tensor
    folds: Tensor
    centred: bool
    apart: bool


def choose(
    head: Any, features: Tensor, targets: Tensor, task: Task, loss: Loss, groups: Sequence[str], seed: int
) -> Chosen:
    """Set a head by the family and the penalty that do best on rows that they were not fitted to.

    Ridge answers each row by a head without it, logistic regression by one without a fifth of the rows, which has each
    class in its share; the best of each then meet on the same fifths. The task's deciding metric chooses, of equal ones
    the lower loss, then the stronger penalty. Numbers have ridge alone. Rows of one group are never on both sides: with
    groups of several rows, ridge leaves out fifths as well.

    A ridge head's outputs are made as large as their leave-one-out answers ask for, so that its probabilities fit.

    Args:
        head: A head of tasks/ for classes or for numbers, on features [N, D].
        groups: A name for each row; rows of one name belong together.
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
    rows = _rows(head, features, targets, task, loss, groups, seed)
    plain = replace(loss, smoothing=0.0)
    held = basis(features, rows.weights, rows.centred)
    judge = _judge(task, targets, plain)
    path = float(held.squares.mean()) * torch.logspace(*RIDGE, COUNT).flip(0)
    best = _best(judge, _of_ridge(rows, path, held if rows.apart else None), path, task)
    if not targets.is_floating_point():
        return _of_classes(head, rows, held, (task, plain, judge), best)
    end = solve(head, features, targets, lambda made, y: task.loss(made, y, loss), 2 * best.alpha / len(targets))
    way = "leave-one-out" if rows.apart else f"{FOLDS} folds"
    told = f"{COUNT} penalties by {task.metrics[0].name} ({way}): ridge, alpha {best.alpha:.3g} ({best.score:.4g})"
    return Chosen("ridge", best.alpha, best.score, end.loss, SAID + told)


Judge = Callable[[Tensor], tuple[float, float]]


def _of_classes(head: Any, rows: _Rows, held: Basis, asked: tuple[Task, Loss, Judge], ridged: _Lead) -> Chosen:
    """The better of the best ridge head and the best logistic one, fitted to all rows."""
    (task, plain, judge), name = asked, asked[0].metrics[0].name
    alone = torch.tensor([ridged.alpha])
    (answers,) = _of_ridge(rows, alone, held if rows.apart else None)
    factor = temperature(answers[..., 0], rows.targets, task.loss, plain)
    (answers,) = _of_ridge(rows, alone, None)
    ridged = _Lead(ridged.alpha, 0, *judge(answers[..., 0] * factor))
    path = float(held.squares.mean()) * torch.logspace(*LOGISTIC, COUNT).flip(0)
    grid = logistic(held, rows.wanted, path, rows.folds)
    best = _best(judge, _of_grid(rows, grid), path, task)
    told = {
        "logistic": f"logistic regression, C {1 / best.alpha:.3g} ({best.score:.4g})",
        "ridge": f"ridge, alpha {ridged.alpha:.3g} ({ridged.score:.4g})",
    }
    wins = _rank(best, task) <= _rank(ridged, task)
    first, second = ("logistic", "ridge") if wins else ("ridge", "logistic")
    lead = best if wins else ridged
    if wins:
        whole = torch.full_like(rows.folds, -1)
        grid = logistic(held, rows.wanted, torch.tensor([best.alpha]), whole, flat=FLAT)
        weight, bias = grid.weight[0, 0], grid.bias[0, 0]
    else:
        found = ridge(held, rows.wanted, alone)
        weight, bias = found.weight[0] * factor, found.bias[0] * factor
    with torch.no_grad():
        head.weight.copy_(weight)
        if rows.centred:
            head.bias.copy_(bias)
        reached = task.loss(head(rows.features), rows.targets, plain).mean()
    said = f"{COUNT} penalties each by {name} in {FOLDS} folds: {told[first]} before {told[second]}"
    return Chosen(first, lead.alpha, lead.score, float(reached), SAID + said)


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


def _rows(
    head: Any, features: Tensor, targets: Tensor, task: Task, loss: Loss, groups: Sequence[str], seed: int
) -> _Rows:
    wanted, weights = targets[:, None], torch.ones(len(targets))
    if not targets.is_floating_point():
        count = len(head.weight)
        zeros = torch.zeros(len(targets), count)
        # at zero every row loses the same, but for its weight
        weights = task.loss(zeros, targets, loss) / task.loss(zeros, targets, replace(loss, balance=0.0))
        wanted = functional.one_hot(targets, count) * (1 - loss.smoothing) + loss.smoothing / count
    apart = len(set(groups)) == len(groups)
    folds = dealt(targets, groups, seed)
    return _Rows(features, targets, wanted.float(), weights, folds, head.bias is not None, apart)


def _judge(task: Task, targets: Tensor, plain: Loss) -> Judge:
    """Outputs [N, C] → the deciding metric, and the mean loss."""
    metric, y = task.metrics[0], targets.numpy()

    def judge(outputs: Tensor) -> tuple[float, float]:
        made = outputs.contiguous()
        return metric.fn(task.decode(made)[metric.takes], y, None), float(task.loss(made, targets, plain).mean())

    return judge


def _of_ridge(rows: _Rows, alphas: Tensor, held: Basis | None) -> Iterator[Tensor]:
    """Outputs [N, C, g] for a few penalties at a time: each row by heads without it, or without its fold."""
    for some in alphas.split(_at_once(rows)):
        if held is not None:
            yield ridge(held, rows.wanted, some).outputs
            continue
        made = torch.empty(*rows.wanted.shape, len(some))
        for fold in range(int(rows.folds.max()) + 1):
            out = rows.folds == fold
            path = ridge(basis(rows.features[~out], rows.weights[~out], rows.centred), rows.wanted[~out], some)
            made[out] = torch.einsum("nd,gcd->ncg", rows.features[out], path.weight) + path.bias.T
        yield made


def _of_grid(rows: _Rows, grid: Grid) -> Iterator[Tensor]:
    """Outputs [N, C, g] for a few penalties at a time: each row by heads without its fold."""
    for weight, bias in zip(grid.weight.split(_at_once(rows)), grid.bias.split(_at_once(rows)), strict=True):
        made = torch.empty(*rows.wanted.shape, len(weight))
        for fold in range(weight.shape[1]):
            out = rows.folds == fold
            made[out] = torch.einsum("nd,gcd->ncg", rows.features[out], weight[:, fold]) + bias[:, fold].T
        yield made


def _at_once(rows: _Rows) -> int:
    return max(1, LARGEST // rows.wanted.numel())


def _best(judge: Judge, outputs: Iterator[Tensor], alphas: Tensor, task: Task) -> _Lead:
    """The candidate with the best score, of equal ones that with the lower loss, then the stronger penalty."""
    found = [judge(some[..., i]) for some in outputs for i in range(some.shape[2])]
    leads = [_Lead(float(alphas[i]), i, *one) for i, one in enumerate(found)]
    return min(leads, key=lambda lead: (*_rank(lead, task), -lead.alpha))


def _rank(lead: _Lead, task: Task) -> tuple[float, float]:
    return (lead.score if task.metrics[0].better == "lower" else -lead.score), lead.loss
