"""Linear heads of many settings trained at once with minibatches: one product a step for all, no autograd."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Setting(NamedTuple):
    """How one head is trained: as torch.optim.SGD with these, the bias never decayed."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0


class Heads(NamedTuple):
    """Heads by setting: weight [T, C, D], bias [T, C]."""

    weight: Tensor
    bias: Tensor

    def outputs(self, features: Tensor) -> Tensor:
        """What all heads say of features [n, D]: [T, n, C]."""
        made = torch.addmm(self.bias.flatten(), features, self.weight.flatten(0, 1).T)
        return made.view(len(features), *self.bias.shape).transpose(0, 1)


def descend(
    features: Tensor,
    targets: Tensor,
    classes: int,
    settings: Sequence[Setting],
    batches: Iterable[Sequence[int] | Tensor],
    weights: Tensor | None = None,
    factors: Iterable[float] | None = None,
) -> Heads:
    """Train a head per setting from zero on the mean cross-entropy of each batch, all of them on the same batches.

    The gradient of cross-entropy by the outputs is softmax less the truth: with it a step is [C·T, D] × [D, B] and
    [C·T, B] × [B, D], whatever T is. The weights equal those of T loops with torch.optim.SGD but for the order in which
    float32 sums up.

    Args:
        features: [N, D]; `targets` are their classes [N].
        batches: Positions of the rows of each step.
        weights: What a class counts for, [C]; a batch's loss is divided by its rows, not by their weights.
        factors: What all rates are multiplied by in each step; 1 where there are none.

    >>> x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    >>> heads = descend(x, y, 2, [Setting(0.1), Setting(1.0, 0.9)], [[0, 1]] * 3)
    >>> heads.weight.shape, (heads.outputs(x).argmax(2) == y).all().item()
    (torch.Size([2, 2, 1]), True)
    """
    count, width = len(settings), features.shape[1]
    rates, momenta, decays = (torch.tensor(column)[:, None, None] for column in zip(*settings, strict=True))
    moving, decayed = bool(momenta.any()), bool(decays.any())
    # the last feature is 1 and its weight the bias: one product moves both
    rows = torch.cat([features.float(), torch.ones(len(features), 1)], 1)
    heads = torch.zeros(count, classes, width + 1)
    speed, decays = torch.zeros_like(heads), decays.repeat(1, 1, width + 1)
    decays[..., -1] = 0.0
    scale = torch.ones(classes) if weights is None else weights
    steps = iter(factors) if factors is not None else None
    for index in batches:
        picked = torch.as_tensor(index)
        batch, truth = rows[picked], targets[picked]
        wrong = (heads.flatten(0, 1) @ batch.T).view(count, classes, -1).softmax(1)
        wrong[:, truth, torch.arange(len(truth))] -= 1.0
        wrong *= scale[truth] / len(truth)
        slope = (wrong.flatten(0, 1) @ batch).view(heads.shape)
        if decayed:
            slope.addcmul_(heads, decays)
        if moving:
            slope = speed.mul_(momenta).add_(slope)
        heads.addcmul_(slope, rates if steps is None else rates * next(steps), value=-1.0)
    return Heads(heads[..., :-1].contiguous(), heads[..., -1].contiguous())
