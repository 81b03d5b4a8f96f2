"""Choose class means of features as a head: distance and shrinkage by leave-one-out on the training rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regraft.engine.folds import FOLDS, SAID, Rows, judge_of, rank, rows_of
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


AMOUNTS = (0.5, 1.0, 2.0, 4.0)
"""So many times the mass of the labelled rows all rows without labels may have together."""
ROUNDS = 3
"""How often rows without labels are shared out anew among the class means that they made."""
ALONE = 100_000
"""Up to so many pairs of a labelled row and one without a label, labelled rows are left out one by one."""
Choose = Callable[[Any, Tensor, Tensor, Task, Loss, Sequence[str], int], Chosen]

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
    return beside(None)(head, features, targets, task, loss, groups, seed)


def beside(more: Tensor | None) -> Choose:
    """`choose`, with features [M, D] of rows that have no labels beside the labelled ones, or None.

    For the kind of class means that is best without them, each row without a label is shared out among the classes by
    its probabilities, and moves their means by these shares; three times over. How much all of them weigh together,
    nothing or 0.5 to 4 times the labelled rows, is chosen as the kind of means was: by answers to labelled rows that
    were left out. Means, probabilities and centre are those of soft k-means from the labelled rows.

    Reference: Ren et al., Meta-learning for semi-supervised few-shot classification, 2018, equation 4.
    """

    def found(
        head: Any, features: Tensor, targets: Tensor, task: Task, loss: Loss, groups: Sequence[str], seed: int
    ) -> Chosen:
        rows = rows_of(head, features, targets, task, loss, groups, seed)
        return _chosen(head, rows, groups, (task, replace(loss, smoothing=0.0)), more)

    return found


class _Soft(NamedTuple):
    """Rows without labels that move class means: their features, all of their mass, the factor of the outputs."""

    features: Tensor
    mass: float
    factor: float


def _chosen(head: Any, rows: Rows, groups: Sequence[str], judged: tuple[Task, Loss], more: Tensor | None) -> Chosen:
    """The class means that answer best, put into the head."""
    (task, plain), features, targets = judged, rows.features, rows.targets
    members = functional.one_hot(targets, len(head.weight)).float()
    named: dict[str, int] = {}
    folds = torch.tensor([named.setdefault(group, len(named)) for group in groups])
    alone = len(named) <= LEFT_OUT
    folds = folds if alone else rows.folds
    ways = [(way, shrinkage) for way in (WAYS if rows.centred else WAYS[:1]) for shrinkage in SHRINKAGES]
    known = _elsewhere(targets, folds)
    if not bool(known.any()):  # one row or group of each class: nothing can be left out
        ways, known, folds = ways[:1], ~known, torch.full_like(folds, -1)
    wanted = targets[known]
    judge = judge_of(task, wanted, plain)

    def tried(way: _Way, shrinkage: float, folds: Tensor, soft: _Soft | None) -> _Tried:
        made = _left_out(way, shrinkage, features, members, folds, soft)[known]
        factor = temperature(made, wanted, task.loss, plain)
        score, lost = judge(made * factor)
        return _Tried(rank(score, lost, task), way, shrinkage, score, factor, soft)

    best = min((tried(*one, folds, None) for one in ways), key=lambda one: (one.rank, -one.shrinkage))
    if more is not None and bool((folds >= 0).any()):
        few = folds if len(features) * len(more) <= ALONE else rows.folds.where(folds >= 0, folds)
        start = best if few is folds else tried(best.way, best.shrinkage, few, None)
        mass = [amount * len(features) for amount in AMOUNTS]
        some = [tried(best.way, best.shrinkage, few, _Soft(more, one, start.factor)) for one in mass]
        best = min([start, *some], key=lambda one: one.rank)
    way, shrinkage, score, factor = best.way, best.shrinkage, best.score, best.factor
    weight, bias = _moved(way, shrinkage, features, members, best.soft)
    with torch.no_grad():
        head.weight.copy_(weight * factor)
        if rows.centred:
            head.bias.copy_(bias * factor)
        reached = task.loss(head(features), targets, plain).mean()
    how = "leave-one-out" if alone else f"{FOLDS} folds"
    told = f"{len(ways)} kinds of class means by {task.metrics[0].name} ({how}): {way.name}"
    told = f"{SAID}{told}, shrinkage {shrinkage:g} ({score:.4g})"
    if more is not None:
        amount = f"{best.soft.mass / len(features):g} times" if best.soft else "nothing beside"
        told += f"; {len(more):,} rows without labels weigh {amount} the labelled ones"
    return Chosen(way.name, shrinkage, score, float(reached), told)


class _Tried(NamedTuple):
    """A kind of class means, how good its answers to rows left out are, and what these are multiplied by."""

    rank: tuple[float, float]
    way: _Way
    shrinkage: float
    score: float
    factor: float
    soft: _Soft | None


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


def _moved(way: _Way, shrinkage: float, features: Tensor, members: Tensor, soft: _Soft | None) -> tuple[Tensor, Tensor]:
    """As `_means`, moved by rows without labels."""
    weight, bias = _means(way, shrinkage, features, members)
    for _ in range(ROUNDS if soft else 0):
        assert soft is not None
        shares = (soft.factor * (soft.features @ weight.T + bias)).softmax(1) * (soft.mass / len(soft.features))
        both = torch.cat([features, soft.features]), torch.cat([members, shares])
        weight, bias = _means(way, shrinkage, *both)
    return weight, bias


def _elsewhere(targets: Tensor, folds: Tensor) -> Tensor:
    """Whether there are rows of a row's class outside its fold, [N]."""
    homes: Tensor = torch.stack([targets, folds], 1).unique(dim=0)[:, 0].bincount()
    return homes[targets].gt(1)


def _left_out(
    way: _Way, shrinkage: float, features: Tensor, members: Tensor, folds: Tensor, soft: _Soft | None
) -> Tensor:
    """Outputs [N, C] of class means for each row without the rows of its fold; -1 is no fold, and leaves none out."""
    weight, bias = _moved(way, shrinkage, features, members, soft)
    made = features @ weight.T + bias
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        weight, bias = _moved(way, shrinkage, features[~out], members[~out], soft)
        made[out] = features[out] @ weight.T + bias
    return made
