"""Choose class means of features as a head: distance and shrinkage by leave-one-out on the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regraft.engine.folds import FOLDS, SAID, judge_of, rank, rows_of
from regraft.engine.heads import temperature
from regraft.engine.penalties import Chosen
from regraft.waist import Loss, Task

SHRINKAGES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""So many rows at the mean of all are added to each class."""
LEFT_OUT = 500
"""Up to so many rows or groups each is left out alone, above it a fifth of the rows."""


class _Way(NamedTuple):
    """A kind of class means: whether features are centred at the mean of all, and scaled to unit length."""

    name: str
    centred: bool
    unit: bool


WAYS = (_Way("cosine", False, True), _Way("centred cosine", True, True), _Way("euclidean", True, False))


def choose(
    head: Any, features: Tensor, targets: Tensor, task: Task, loss: Loss, groups: Sequence[str], seed: int
) -> Chosen:
    """Set a linear head to the class means that answer best where a row, and all of its group, is left out of them.

    Nearest by the cosine, by the cosine about the mean of all rows, or by Euclidean distance; each mean is drawn to
    that of all rows as if some rows more of the class lay there. Of equal ones the lower loss decides, then the more
    shrinkage. A head without a bias has the first way alone. Outputs are made as large as the answers to rows that were
    left out ask for, so that probabilities fit.

    Args:
        groups: A name for each row; rows of one name belong together.
    Raises: as `rows_of`.
    Reference: Snell et al., Prototypical networks for few-shot learning, 2017; Wang et al., SimpleShot, 2019 (CL2N);
        Tibshirani et al., Diagnosis of multiple cancer types by shrunken centroids, 2002.

    >>> from regraft.kit import shelf
    >>> from regraft.waist import Target
    >>> task = shelf.find("tasks", "classify").make(Target("y", "class", ("a", "b"), (2, 2)))
    >>> head, rows = task.head(2, True), torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> choose(head, rows, torch.tensor([0, 0, 1, 1]), task, Loss(), list("abcd"), 0).score
    1.0
    >>> head(torch.tensor([[3.0, 0.0]])).argmax().item()
    0
    """
    rows = rows_of(head, features, targets, task, loss, groups, seed)
    plain = replace(loss, smoothing=0.0)
    members = functional.one_hot(targets, len(head.weight)).float()
    named: dict[str, int] = {}
    folds = torch.tensor([named.setdefault(group, len(named)) for group in groups])
    alone = len(named) <= LEFT_OUT
    folds = folds if alone else rows.folds
    ways = [(way, shrinkage) for way in (WAYS if rows.centred else WAYS[:1]) for shrinkage in SHRINKAGES]
    known = _elsewhere(targets, folds)
    if not bool(known.any()):  # one row or group of each class: nothing can be left out
        ways, known, folds = ways[:1], ~known, torch.full_like(folds, -1)
    wanted, found = targets[known], []
    judge = judge_of(task, wanted, plain)
    for way, shrinkage in ways:
        made = _left_out(way, shrinkage, features, members, folds)[known]
        factor = temperature(made, wanted, task.loss, plain)
        score, lost = judge(made * factor)
        found.append((rank(score, lost, task), -shrinkage, way, score, factor))
    _, less, way, score, factor = min(found, key=lambda one: one[:2])
    weight, bias = _means(way, -less, features, members)
    with torch.no_grad():
        head.weight.copy_(weight * factor)
        if rows.centred:
            head.bias.copy_(bias * factor)
        reached = task.loss(head(features), targets, plain).mean()
    how = "leave-one-out" if alone else f"{FOLDS} folds"
    told = f"{len(ways)} kinds of class means by {task.metrics[0].name} ({how}): {way.name}"
    return Chosen(way.name, -less, score, float(reached), f"{SAID}{told}, shrinkage {-less:g} ({score:.4g})")


def _means(way: _Way, shrinkage: float, features: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] that answer with the nearest class mean; a class without rows has the mean of all."""
    count = members.sum(0)
    balanced = members @ (1 / count.clamp(min=1))
    middle = (balanced @ features) / balanced.sum()
    moved = features - middle if way.centred else features
    moved = functional.normalize(moved, dim=1) if way.unit else moved
    whole = (balanced @ moved) / balanced.sum()
    mean = (members.T @ moved + max(shrinkage, 1e-6) * whole) / (count + max(shrinkage, 1e-6))[:, None]
    weight = functional.normalize(mean, dim=1) if way.unit else mean
    bias = -(weight @ middle) if way.centred else torch.zeros(len(mean))
    return weight, bias if way.unit else bias - mean.square().sum(1) / 2


def _elsewhere(targets: Tensor, folds: Tensor) -> Tensor:
    """Whether there are rows of a row's class outside its fold, [N]."""
    homes: Tensor = torch.stack([targets, folds], 1).unique(dim=0)[:, 0].bincount()
    return homes[targets].gt(1)


def _left_out(way: _Way, shrinkage: float, features: Tensor, members: Tensor, folds: Tensor) -> Tensor:
    """Outputs [N, C] of class means for each row without the rows of its fold; -1 is no fold, and leaves none out."""
    weight, bias = _means(way, shrinkage, features, members)
    made = features @ weight.T + bias
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        weight, bias = _means(way, shrinkage, features[~out], members[~out])
        made[out] = features[out] @ weight.T + bias
    return made
