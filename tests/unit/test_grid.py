"""Heads trained at once end where each would end alone."""

from __future__ import annotations

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


def alone(x: Tensor, y: Tensor, one: Setting, order: list[Tensor], weights: Tensor, factors: list[float]) -> nn.Linear:
    """The same by a plain loop of torch."""
    head = nn.Linear(7, 4)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    groups = [{"params": [head.weight], "weight_decay": one.weight_decay}, {"params": [head.bias]}]
    rule = torch.optim.SGD(groups, lr=one.lr, momentum=one.momentum)
    for index, factor in zip(order, factors, strict=True):
        for group in rule.param_groups:
            group["lr"] = one.lr * factor
        rule.zero_grad()
        (functional.cross_entropy(head(x[index]), y[index], reduction="none") * weights[y[index]]).mean().backward()
        rule.step()
    return head


@pytest.mark.parametrize("weights", [torch.ones(4), torch.tensor([0.5, 1.0, 2.0, 4.0])], ids=["equal", "weighted"])
def test_as_loops_one_by_one(weights: Tensor) -> None:
    x, y = rows()
    order = [
        part
        for epoch in range(6)
        for part in torch.randperm(90, generator=torch.Generator().manual_seed(epoch)).split(16)
    ]
    factors = [1 - i / len(order) for i in range(len(order))]
    heads = descend(x, y, 4, SETTINGS, order, weights, factors)
    for i, one in enumerate(SETTINGS):
        head = alone(x, y, one, order, weights, factors)
        torch.testing.assert_close(heads.weight[i], head.weight.detach(), rtol=0, atol=2e-5)
        torch.testing.assert_close(heads.bias[i], head.bias.detach(), rtol=0, atol=2e-5)
        torch.testing.assert_close(heads.outputs(x)[i], head(x).detach(), rtol=0, atol=1e-4)


def test_settings_do_not_disturb_each_other() -> None:
    x, y = rows()
    order = list(torch.arange(90).split(30))
    both = descend(x, y, 4, [Setting(0.1), Setting(1e6, 0.9)], order)
    torch.testing.assert_close(both.weight[0], descend(x, y, 4, [Setting(0.1)], order).weight[0], rtol=0, atol=1e-6)
