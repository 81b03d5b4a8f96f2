"""What takes the place of cross-entropy where classes are far apart in size, or labels are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regraft.waist import Loss

TINY = torch.finfo(torch.float32).tiny


def lost(logs: Tensor, options: Loss) -> Tensor:
    """What a probability p of what is true loses, from its logarithm; any shape.

    -log p for cross-entropy; (1 - p)^γ · -log p for the focal loss, which lets rows that are right already weigh less;
    (1 - p^q) / q for generalised cross-entropy, which is bounded: a row that is called wrong ever more surely no longer
    gets ever more weight. At γ = 0 and for q → 0 both are cross-entropy, at q = 1 the latter is 1 - p.

    Reference: Lin et al., Focal loss for dense object detection, 2017; Zhang & Sabuncu, Generalized cross entropy loss
    for training deep neural networks with noisy labels, 2018.

    >>> half = torch.tensor([0.5]).log()
    >>> [round(lost(half, Loss(focal=gamma)).item(), 4) for gamma in (0.0, 1.0, 2.0)]
    [0.6931, 0.3466, 0.1733]
    >>> round(lost(half, Loss(robust=1.0)).item(), 4)
    0.5
    """
    if options.robust:
        return -torch.expm1(options.robust * logs) / options.robust
    if options.focal:
        # a power below 1 has no slope at 0: there the loss has none either
        return -logs * (-torch.expm1(logs)).clamp(min=TINY) ** options.focal
    return -logs


def offsets(counts: Sequence[int], tau: float) -> Tensor:
    """What is added to the logits in training, [C]: tau times the logarithm of how frequent each class is.

    The network then learns logits without the frequencies: its answers as they are suit classes that count equally.
    Reference: Menon et al., Long-tail learning via logit adjustment, 2021, equation 10.

    >>> offsets([3, 1], 1.0).exp().tolist()
    [0.75, 0.25]
    """
    seen = torch.tensor([max(1, n) for n in counts], dtype=torch.float64)
    return (tau * (seen / seen.sum()).log()).float()
