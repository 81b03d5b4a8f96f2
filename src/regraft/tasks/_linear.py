"""Linear heads that start at zero: without an opinion, and without drawing a random number."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Scaled(nn.Linear):
    """One number per row in the target's units: a linear layer on features, times `spread`, plus `centre`.

    At zero it says `centre`, and weights of ordinary size reach targets of any unit. Without a bias there is no
    `centre` either. Shapes: [n, dim] → [n, 1].

    >>> Scaled(3, True, centre=40.0, spread=12.0)(torch.ones(1, 3)).tolist()
    [[40.0]]
    """

    def __init__(self, dim: int, bias: bool, centre: float, spread: float) -> None:
        super().__init__(dim, 1, bias=bias, device="meta")
        self.centre, self.spread = centre if bias else 0.0, spread
        _fill(self)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.spread + self.centre

    def folded(self) -> nn.Linear:
        """The same function as a plain layer.

        >>> Scaled(3, True, centre=40.0, spread=12.0).folded().bias.tolist()
        [40.0]
        """
        layer = plain(self.in_features, 1, self.bias is not None)
        with torch.no_grad():
            layer.weight.copy_(self.weight * self.spread)
            if self.bias is not None:
                layer.bias.copy_(self.bias * self.spread + self.centre)
        return layer


def plain(dim: int, count: int, bias: bool) -> nn.Linear:
    """A linear layer from features [n, dim] to outputs [n, count], all zero.

    >>> plain(2, 3, True)(torch.ones(1, 2)).tolist(), plain(2, 3, False).bias
    ([[0.0, 0.0, 0.0]], None)
    """
    layer = nn.Linear(dim, count, bias=bias, device="meta")
    _fill(layer)
    return layer


def _fill(layer: nn.Module) -> None:
    """Give a layer that was made without memory its memory, with zeros in it."""
    layer.to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
