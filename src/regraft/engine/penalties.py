"""Choose a head's family and penalty by cross-validation on the training rows, and fit it to all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regraft.engine.folds import FOLDS, SAID, Judge, Rows, at_once, judge_of, rank, rows_of, unseen
from regraft.engine.heads import temperature
from regraft.engine.logistic import logistic
from regraft.engine.ridge import Basis, basis, ridge
from regraft.engine.solve import FLAT, solve
from regraft.waist import Loss, Task

RIDGE = (-4.0, 2.0)
LOGISTIC = (-6.0, 0.0)
"""Penalties run between these powers of ten, times the mean sum of squares along an axis of the features."""
COUNT = 25


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
        groups: A name for each row; rows of one name belong together.
    Raises: as `rows_of`.
    """
    rows = rows_of(head, features, targets, task, loss, groups, seed)
    plain = replace(loss, smoothing=0.0)
    held = basis(features, rows.weights, rows.centred)
    judge = judge_of(task, targets, plain)
    path = float(held.squares.mean()) * torch.logspace(*RIDGE, COUNT).flip(0)
    best = _best(judge, _of_ridge(rows, path, held if rows.apart else None), path, task)
    if not targets.is_floating_point():
        return _of_classes(head, rows, held, (task, plain, judge), best)
    end = solve(head, features, targets, lambda made, y: task.loss(made, y, loss), 2 * best.alpha / len(targets))
    way = "leave-one-out" if rows.apart else f"{FOLDS} folds"
    told = f"{COUNT} penalties by {task.metrics[0].name} ({way}): ridge, alpha {best.alpha:.3g} ({best.score:.4g})"
    return Chosen("ridge", best.alpha, best.score, end.loss, SAID + told)


def _of_classes(head: Any, rows: Rows, held: Basis, asked: tuple[Task, Loss, Judge], ridged: _Lead) -> Chosen:
    """The better of the best ridge head and the best logistic one, fitted to all rows."""
    (task, plain, judge), name = asked, asked[0].metrics[0].name
    alone = torch.tensor([ridged.alpha])
    (answers,) = _of_ridge(rows, alone, held if rows.apart else None)
    factor = temperature(answers[..., 0], rows.targets, task.loss, plain)
    (answers,) = _of_ridge(rows, alone, None)
    ridged = _Lead(ridged.alpha, 0, *judge(answers[..., 0] * factor))
    path = float(held.squares.mean()) * torch.logspace(*LOGISTIC, COUNT).flip(0)
    grid = logistic(held, rows.wanted, path, rows.folds)
    best = _best(judge, unseen(rows, grid.weight, grid.bias), path, task)
    told = {
        "logistic": f"logistic regression, C {1 / best.alpha:.3g} ({best.score:.4g})",
        "ridge": f"ridge, alpha {ridged.alpha:.3g} ({ridged.score:.4g})",
    }
    wins = rank(best.score, best.loss, task) <= rank(ridged.score, ridged.loss, task)
    first, second = ("logistic", "ridge") if wins else ("ridge", "logistic")
    lead = best if wins else ridged
    if wins:
        whole = torch.full_like(rows.folds, -1)
        grid = logistic(held, rows.wanted, torch.tensor([best.alpha]), whole, flat=FLAT)
        weight, bias = grid.weight[0, 0], grid.bias[0, 0]
    else:
        weight, bias = (part * factor for part in ridge(held, rows.wanted, alone).head(0))
    with torch.no_grad():
        head.weight.copy_(weight)
        if rows.centred:
            head.bias.copy_(bias)
        reached = task.loss(head(rows.features), rows.targets, plain).mean()
    said = f"{COUNT} penalties each by {name} in {FOLDS} folds: {told[first]} before {told[second]}"
    return Chosen(first, lead.alpha, lead.score, float(reached), SAID + said)


def _of_ridge(rows: Rows, alphas: Tensor, held: Basis | None) -> Iterator[Tensor]:
    """Outputs [N, C, g] for a few penalties at a time: each row by heads without it, or without its fold."""
    for some in alphas.split(at_once(rows)):
        if held is not None:
            yield ridge(held, rows.wanted, some).outputs
            continue
        made = torch.empty(*rows.wanted.shape, len(some))
        for fold in range(int(rows.folds.max()) + 1):
            out = rows.folds == fold
            path = ridge(basis(rows.features[~out], rows.weights[~out], rows.centred), rows.wanted[~out], some)
            made[out] = torch.einsum("nd,gcd->ncg", rows.features[out], path.weight) + path.bias.T
        yield made


def _best(judge: Judge, outputs: Iterator[Tensor], alphas: Tensor, task: Task) -> _Lead:
    """The candidate with the best score, of equal ones that with the lower loss, then the stronger penalty."""
    found = [judge(some[..., i]) for some in outputs for i in range(some.shape[2])]
    leads = [_Lead(float(alphas[i]), i, *one) for i, one in enumerate(found)]
    return min(leads, key=lambda lead: (*rank(lead.score, lead.loss, task), -lead.alpha))
