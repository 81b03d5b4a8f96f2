"""BSS: the smallest singular value of a batch's features is kept small: what carries little over is not trained up."""

from __future__ import annotations

import torch
from torch import Tensor

ACTS_ON = "features"
FEWEST = 8
"""In a batch of fewer rows the smallest singular value is no small thing: of one row it is all of its features."""


def act(features: Tensor) -> Tensor:
    """The square of the smallest singular value of features [n, D]; 0 for fewer than 8 rows.

    Reference: Chen et al., Catastrophic forgetting meets negative transfer: batch spectral shrinkage for safe transfer
    learning, 2019, with k = 1.

    >>> x = torch.diag(torch.tensor([3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0]))
    >>> round(float(act(x)), 4), float(act(x[:4]))
    (1.0, 0.0)
    """
    if len(features) < FEWEST:
        return features.new_zeros(())
    smallest: Tensor = torch.linalg.svdvals(features)[-1]
    return smallest.square()
