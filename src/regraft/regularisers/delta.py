"""DELTA: half the squared distance of a row's features from those that the pretrained network gives for it."""

from __future__ import annotations

from torch import Tensor

ACTS_ON = "change of features"


def act(features: Tensor, before: Tensor) -> Tensor:
    """½ ‖f(x) - f₀(x)‖², the mean over rows, of features [n, D] as the head takes them.

    The simplest form of the paper's: the last feature map after pooling, every feature with the same weight.

    Reference: Li et al., DELTA: deep learning transfer using feature map with attention, 2019.

    >>> import torch
    >>> act(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    tensor(1.)
    """
    return (features - before).square().sum(1).mean() / 2
