"""L2-SP: half the squared distance of trained weights from the pretrained ones is added to the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ACTS_ON = "weights"


def act(now: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor:
    """½ Σ (w - w₀)² over all weights that came from the checkpoint; their own weight decay is off then.

    The head is not among them and keeps its weight decay, which is the second half of the paper's penalty.

    Reference: Li et al., Explicit inductive bias for transfer learning with convolutional networks, 2018.

    >>> act([torch.tensor([3.0, 1.0])], [torch.tensor([1.0, 0.0])])
    tensor(2.5000)
    """
    gaps = [torch.nn.functional.mse_loss(w, begun, reduction="sum") for w, begun in zip(now, start, strict=True)]
    return torch.stack(gaps).sum() / 2
