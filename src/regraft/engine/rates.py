"""Choose a head's rate, momentum and weight decay by cross-validation on the training rows, all folds in one loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regraft.engine.folds import SAID, Rows, judge_of, rank, unseen
from regraft.engine.grid import Setting, descend
from regraft.errors import Diverged
from regraft.waist import Loss, Task

NEAR = 2**19
"""Weights of heads that are trained at once, if one setting has no more: they stay in the processor's cache."""


class Picked(NamedTuple):
    """What cross-validation chose, its score there, the mean loss of the fit to all rows, and all that in words."""

    setting: Setting
    score: float
    loss: float
    told: str


class _Lead(NamedTuple):
    """A setting, its score and loss on rows that its heads were not fitted to, and its head of all rows."""

    setting: Setting
    score: float
    loss: float
    weight: Tensor
    bias: Tensor


def choose(
    head: Any,
    rows: Rows,
    task: Task,
    loss: Loss,
    settings: Sequence[Setting],
    batches: Sequence[Sequence[int]],
    factors: Sequence[float],
) -> Picked:
    """Set a head for classes by the setting that does best on rows that its heads were not fitted to.

    A setting has a head without each fold and one of all rows; they take the same batches, of which a head sees the
    rows that are its own. The task's deciding metric on all rows, each answered by the head without its fold, chooses;
    of equal settings the lower loss, then the smaller rate. The winner's head of all rows is the one that is set. All
    heads minimise cross-entropy, weighted as the task weighs its rows. A setting that ends in no finite numbers is out.

    As many settings are trained at once as hold `NEAR` weights: of many classes or wide features fewer, at least one.

    Args:
        settings: In ascending order of rates.
        batches: Positions of the rows of each step; `factors`, as many, are what rates are multiplied by in it.
    Raises: Diverged: no setting ends in finite numbers.
    """
    judge, count = judge_of(task, rows.targets, replace(loss, smoothing=0.0)), int(rows.folds.max()) + 1
    own = torch.arange(count + 1)[:, None] != rows.folds  # the last head of a setting sees all rows
    most = max(1, NEAR // (len(own) * rows.wanted.shape[1] * (rows.features.shape[1] + 1)))
    leads: list[_Lead] = []
    for start in range(0, len(settings), most):
        some = settings[start : start + most]
        heads = descend(rows.features, rows.wanted, some, batches, own * rows.weights, factors, rows.centred)
        weight, bias = (made.unflatten(0, (len(some), -1)) for made in heads)
        answers = (one for made in unseen(rows, weight[:, :-1], bias[:, :-1]) for one in made.unbind(2))
        found = [
            _Lead(one, *judge(made), weight[i, -1], bias[i, -1])
            for i, (one, made) in enumerate(zip(some, answers, strict=True))
            if made.isfinite().all() and weight[i].isfinite().all()
        ]
        leads = sorted([*leads, *found], key=lambda lead: rank(lead.score, lead.loss, task))[:1]  # a stable order
    if not leads:
        raise Diverged(
            "no setting of SGD ends in finite numbers",
            saw=f"rates from {settings[0].lr:g} to {settings[-1].lr:g}, weight decay {settings[-1].weight_decay:g}",
            allowed="finite weights",
            do="--probe.lr or --probe.decay with a smaller number",
        )
    (lead,) = leads
    with torch.no_grad():
        head.weight.copy_(lead.weight)
        if rows.centred:
            head.bias.copy_(lead.bias)
        reached = task.loss(head(rows.features), rows.targets, replace(loss, smoothing=0.0)).mean()
    (rate, momentum, decay), name = lead.setting, task.metrics[0].name
    told = f"{len(settings)} settings of SGD by {name} in {count} folds: rate {rate:.3g}, momentum {momentum:g}, "
    told += f"weight decay {decay:g} ({lead.score:.4g})"
    return Picked(lead.setting, lead.score, float(reached), SAID + told)
