"""Heads trained at once end where each would end alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from regraft.engine.grid import Setting, descend

SETTINGS = [Setting(lr, momentum, decay) for lr in (0.03, 0.3) for momentum in (0.0, 0.9) for decay in (0.0, 1e-2)]


def rows() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(90, 7, generator=draw)
    return x, (x @ torch.randn(7, 4, generator=draw) + torch.randn(90, 4, generator=draw)).argmax(1)


def alone(
    x: Tensor, wanted: Tensor, one: Setting, order: list[Tensor], weights: Tensor, factors: list[float]
) -> nn.Linear:
    """The same by a plain loop of torch, which never sees rows that count for nothing."""
    head = nn.Linear(7, 4)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    groups = [{"params": [head.weight], "weight_decay": one.weight_decay}, {"params": [head.bias]}]
    rule = torch.optim.SGD(groups, lr=one.lr, momentum=one.momentum)
    for index, factor in zip(order, factors, strict=True):
        for group in rule.param_groups:
            group["lr"] = one.lr * factor
        rule.zero_grad()
        seen = index[weights[index] > 0]
        losses = functional.cross_entropy(head(x[seen]), wanted[seen], reduction="none") * weights[seen]
        (losses.sum() / max(1, len(seen))).backward()
        rule.step()
    return head


@pytest.mark.parametrize("weighed", [False, True], ids=["equal", "weighted and smoothed"])
def test_as_loops_one_by_one(weighed: bool) -> None:
    """Each setting without each fold, and with all rows; the last batch has rows of the first fold alone."""
    x, y = rows()
    order = [
        part
        for epoch in range(6)
        for part in torch.randperm(90, generator=torch.Generator().manual_seed(epoch)).split(16)
    ]
    folds = torch.arange(90) % 3
    order[-1] = torch.arange(0, 30, 3)
    factors = [1 - i / len(order) for i in range(len(order))]
    wanted, weights = functional.one_hot(y, 4).float(), torch.ones(90)
    if weighed:
        wanted, weights = wanted * 0.9 + 0.025, torch.tensor([0.5, 1.0, 2.0, 4.0])[y]
    own = (torch.arange(4)[:, None] != folds) * weights
    heads = descend(x, wanted, SETTINGS, order, own, factors)
    assert len(heads.weight) == 4 * len(SETTINGS)
    for i, (one, line) in enumerate(itertools.product(SETTINGS, own)):
        head = alone(x, wanted, one, order, line, factors)
        torch.testing.assert_close(heads.weight[i], head.weight.detach(), rtol=0, atol=2e-5)
        torch.testing.assert_close(heads.bias[i], head.bias.detach(), rtol=0, atol=2e-5)
        torch.testing.assert_close(heads.outputs(x)[i], head(x).detach(), rtol=0, atol=1e-4)


def test_settings_do_not_disturb_each_other() -> None:
    x, y = rows()
    order, wanted = list(torch.arange(90).split(30)), functional.one_hot(y, 4).float()
    both = descend(x, wanted, [Setting(0.1), Setting(1e6, 0.9)], order)
    torch.testing.assert_close(both.weight[0], descend(x, wanted, [Setting(0.1)], order).weight[0], rtol=0, atol=1e-6)


def test_a_head_without_a_bias_keeps_none() -> None:
    x, y = rows()
    heads = descend(x + 1, functional.one_hot(y, 4).float(), SETTINGS, torch.arange(90).split(30), bias=False)
    assert not heads.bias.any() and heads.weight.any(2).any(1).all()
