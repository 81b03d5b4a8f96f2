"""Estimate how many labels are wrong, from what heads that never saw a row say of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from regraft.engine.heads import temperature
from regraft.engine.penalties import COUNT, RIDGE
from regraft.engine.ridge import basis, ridge
from regraft.waist import Loss

FEWEST = 200
"""Rows from which on an estimate of wrong labels says something: a head of fewer is wrong where labels are not."""


def suspects(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Which rows [N] are called another class with as much confidence as rows of that class are called their own.

    A class's threshold is the mean probability that its own rows give it; a row is suspected where some other class
    reaches its threshold and is likelier than every other class that does so, its own among them.

    Args:
        probabilities: [N, C] of each row, by heads that were fitted without it.
        targets: [N] the given classes.
    Reference: Northcutt, Jiang & Chuang, Confident learning, 2021.

    >>> sure = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9], [0.05, 0.95]])
    >>> suspects(sure, torch.tensor([0, 0, 1, 1, 0])).tolist()
    [False, False, False, False, True]
    """
    classes = torch.arange(probabilities.shape[1])
    own = (targets[:, None] == classes).to(probabilities.dtype)
    threshold = (own * probabilities).sum(0) / own.sum(0).clamp(min=1)
    threshold[own.sum(0) == 0] = torch.inf  # a class without rows takes none
    confident = torch.where(probabilities >= threshold, probabilities, -torch.inf)
    best: Tensor = confident.max(1).values
    mine = confident.gather(1, targets[:, None])[:, 0]
    return (best > mine) & best.isfinite()


def noise(features: Tensor, targets: Tensor, groups: Sequence[str]) -> float | None:
    """The estimated share of wrong labels, by ridge heads that answer each row without it; None for numbers.

    Of the rows of a group the first one speaks for all. Probabilities are the heads' outputs, scaled to fit.

    Args:
        features: [N, D].
        targets: [N] classes.
    """
    if targets.is_floating_point() or targets.ndim != 1:
        return None
    first = [i for i, group in enumerate(groups) if group not in groups[:i]] if len(set(groups)) < len(groups) else []
    x, y = (features[first], targets[first]) if first else (features, targets)
    y = y.unique(return_inverse=True)[1]
    held, wanted = basis(x), functional.one_hot(y).float()
    path = float(held.squares.mean()) * torch.logspace(*RIDGE, COUNT)
    made = ridge(held, wanted, path).outputs
    best = int((made.argmax(1) == y[:, None]).double().mean(0).argmax())

    def loss(outputs: Tensor, truth: Tensor, _: Loss) -> Tensor:
        return functional.cross_entropy(outputs, truth, reduction="none")

    factor = temperature(made[..., best], y, loss, Loss())
    return float(suspects((made[..., best] * factor).softmax(1), y).double().mean())
