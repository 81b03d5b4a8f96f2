"""Linear heads that start at zero: without an opinion, and without drawing a random number."""

from __future__ import annotations

from typing import Any

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


def nearest(layer: Any, features: Tensor, members: Tensor) -> None:
    """Set a layer so that the largest output is the class with the nearest centroid.

    Shapes: features [n, dim], members [n, C], above 0.5 where a row belongs to the class. By Euclidean distance, which
    is linear: -‖x - μ‖² / 2 = μ·x - ‖μ‖² / 2 but for what all classes share. Without a bias by the cosine.
    Reference: Tibshirani et al., Diagnosis of multiple cancer types by shrunken centroids, 2002.

    >>> layer = plain(1, 2, True)
    >>> nearest(layer, torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([[1, 0], [1, 0], [0, 1]]))
    >>> layer(torch.tensor([[4.0], [7.0]])).argmax(1).tolist()
    [0, 1]
    """
    yes = (members > 0.5).to(features.dtype)
    means = yes.T @ features / yes.sum(0).clamp(min=1)[:, None]
    with torch.no_grad():
        if layer.bias is None:
            layer.weight.copy_(means / means.norm(dim=1, keepdim=True).clamp(min=1e-12))
        else:
            layer.weight.copy_(means)
            layer.bias.copy_(-means.square().sum(1) / 2)


def between(layer: Any, features: Tensor, members: Tensor) -> None:
    """Set a layer so that an output is above 0 where a row is nearer to the mean of the yeses than to that of the noes.

    Shapes: as `nearest`; every output is a label of its own.

    >>> layer = plain(1, 1, True)
    >>> between(layer, torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([[0], [0], [1]]))
    >>> (layer(torch.tensor([[5.0], [6.0]])) > 0).tolist()
    [[False], [True]]
    """
    yes = (members > 0.5).to(features.dtype)
    means = [side.T @ features / side.sum(0).clamp(min=1)[:, None] for side in (yes, 1 - yes)]
    with torch.no_grad():
        layer.weight.copy_(means[0] - means[1])
        if layer.bias is not None:
            layer.bias.copy_((means[1].square().sum(1) - means[0].square().sum(1)) / 2)


def line(layer: Any, features: Tensor, targets: Tensor) -> None:
    """Set a layer to the line of least squares through rows of one feature, [n, 1].

    Raises: ValueError: there are more features: a fit to those would be training.

    >>> layer = Scaled(1, True, centre=0.0, spread=1.0)
    >>> line(layer, torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([1.0, 3.0, 5.0]))
    >>> [round(v, 4) for v in layer(torch.tensor([[3.0]]))[0].tolist()]
    [7.0]
    """
    if features.shape[1] != 1:
        raise ValueError(f"{features.shape[1]} features")
    x, y = features[:, 0].double(), targets.double()
    centre = x.mean() if layer.bias is not None else torch.zeros((), dtype=torch.double)
    offset = y.mean() if layer.bias is not None else torch.zeros((), dtype=torch.double)
    slope = ((x - centre) * (y - offset)).sum() / (x - centre).square().sum().clamp(min=1e-12)
    with torch.no_grad():
        layer.weight.fill_(slope / layer.spread)
        if layer.bias is not None:
            layer.bias.fill_((offset - slope * centre - layer.centre) / layer.spread)


def _fill(layer: nn.Module) -> None:
    """Give a layer that was made without memory its memory, with zeros in it."""
    layer.to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
