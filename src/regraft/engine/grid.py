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
    """Heads by setting, of each setting one for every line of weights: weight [H, C, D], bias [H, C]."""

    weight: Tensor
    bias: Tensor

    def outputs(self, features: Tensor) -> Tensor:
        """What all heads say of features [n, D]: [H, n, C]."""
        made = torch.addmm(self.bias.flatten(), features, self.weight.flatten(0, 1).T)
        return made.view(len(features), *self.bias.shape).transpose(0, 1)


def descend(
    features: Tensor,
    wanted: Tensor,
    settings: Sequence[Setting],
    batches: Iterable[Sequence[int] | Tensor],
    weights: Tensor | None = None,
    factors: Iterable[float] | None = None,
    bias: bool = True,
) -> Heads:
    """Train heads from zero on the mean cross-entropy of each batch, all of them on the same batches.

    The gradient of cross-entropy by the outputs is softmax less the truth: with it a step is [C·H, D] × [D, B] and
    [C·H, B] × [B, D], whatever H is. The weights equal those of H loops with torch.optim.SGD but for the order in which
    float32 sums up. What is held at once are four times all weights, and [C·H, B].

    Args:
        features: [N, D]; `wanted` is the share of each class in their rows [N, C], one-hot or smoothed.
        batches: Positions of the rows of each step.
        weights: What a row counts for, [F, N]: each setting has F heads. A head does not see rows that count for
            nothing; its loss is that of the others divided by their number, not by their weights. A batch without any
            row of a head gives it no gradient.
        factors: What all rates are multiplied by in each step; 1 where there are none.

    >>> x = torch.tensor([[-1.0], [1.0]])
    >>> heads = descend(x, torch.eye(2), [Setting(0.1), Setting(1.0, 0.9)], [[0, 1]] * 3)
    >>> heads.weight.shape, (heads.outputs(x).argmax(2) == torch.tensor([0, 1])).all().item()
    (torch.Size([2, 2, 1]), True)
    """
    weights = torch.ones(1, len(features)) if weights is None else weights
    shape = len(settings), len(weights), wanted.shape[1]
    rates, momenta, decays = (torch.tensor(c)[:, None, None, None] for c in zip(*settings, strict=True))
    moving, decayed = bool(momenta.any()), bool(decays.any())
    # the last feature is 1 and its weight the bias: one product moves both
    rows = torch.cat([features.float(), torch.full((len(features), 1), float(bias))], 1)
    heads = torch.zeros(*shape, rows.shape[1])
    speed, decays = torch.zeros_like(heads), decays.repeat(1, 1, 1, rows.shape[1])
    decays[..., -1] = 0.0
    steps = iter(factors) if factors is not None else None
    for index in batches:
        picked = torch.as_tensor(index)
        batch, scale = rows[picked], weights[:, picked]
        wrong = (heads.flatten(0, 2) @ batch.T).view(*shape, -1).softmax(2)
        wrong -= wanted[picked].T
        wrong *= (scale / (scale > 0).sum(1, keepdim=True).clamp(min=1))[:, None]
        slope = (wrong.flatten(0, 2) @ batch).view(heads.shape)
        if decayed:
            slope.addcmul_(heads, decays)
        if moving:
            slope = speed.mul_(momenta).add_(slope)
        heads.addcmul_(slope, rates if steps is None else rates * next(steps), value=-1.0)
    heads = heads.flatten(0, 1)
    return Heads(heads[..., :-1].contiguous(), heads[..., -1].contiguous())
