"""What takes the place of cross-entropy where classes are far apart in size, or labels are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regraft.waist import Loss

MARGIN = 0.05
"""A no to which so little probability was given loses nothing in the asymmetric loss."""
TINY = torch.finfo(torch.float32).tiny


def lost(logs: Tensor, options: Loss) -> Tensor:
    """What a probability p of what is true loses, from its logarithm; any shape.

    -log p for cross-entropy; (1 - p)^γ · -log p for the focal loss, which lets rows that are right already weigh less;
    (1 - p^q) / q for generalised cross-entropy, which is bounded: a row that is called wrong ever more surely no longer
    gets ever more weight. At γ = 0 and for q → 0 both are cross-entropy, at q = 1 the latter is 1 - p.
    -log p + r (1 - p) for symmetric cross-entropy: beside it stands the cross-entropy of what is said under what is
    true, with a bound; r is β |A| / α of the paper.

    Reference: Lin et al., Focal loss for dense object detection, 2017; Zhang & Sabuncu, Generalized cross entropy loss
    for training deep neural networks with noisy labels, 2018; Wang et al., Symmetric cross entropy for robust learning
    with noisy labels, 2019.

    >>> half = torch.tensor([0.5]).log()
    >>> [round(lost(half, Loss(focal=gamma)).item(), 4) for gamma in (0.0, 1.0, 2.0)]
    [0.6931, 0.3466, 0.1733]
    >>> round(lost(half, Loss(robust=1.0)).item(), 4)
    0.5
    """
    if options.robust:
        return -torch.expm1(options.robust * logs) / options.robust
    if options.reverse:
        return -logs - options.reverse * torch.expm1(logs)
    if options.focal:
        # a power below 1 has no slope at 0: there the loss has none either
        return -logs * (-torch.expm1(logs)).clamp(min=TINY) ** options.focal
    return -logs


def refused(outputs: Tensor, gamma: float) -> Tensor:
    """What a no loses in the asymmetric loss, from logits of a yes; any shape.

    q^γ · -log(1 - q) with q = max(0, p - `MARGIN`): a no that is nearly certain loses nothing, and one that is called
    wrong ever more surely gets ever less gradient, since it may be a yes that nobody noted.

    Reference: Ridnik et al., Asymmetric loss for multi-label classification, 2021, equation 6.

    >>> [round(one, 4) for one in refused(torch.tensor([0.55, 0.05]).logit(), 1.0).tolist()]
    [0.3466, 0.0]
    """
    q = (outputs.sigmoid() - MARGIN).clamp(min=TINY)  # a power below 1 has no slope at 0
    return -(q**gamma) * torch.log1p(-q)


def offsets(counts: Sequence[int], tau: float) -> Tensor:
    """What is added to the logits in training, [C]: tau times the logarithm of how frequent each class is.

    The network then learns logits without the frequencies: its answers as they are suit classes that count equally.
    Reference: Menon et al., Long-tail learning via logit adjustment, 2021, equation 10.

    >>> offsets([3, 1], 1.0).exp().tolist()
    [0.75, 0.25]
    """
    seen = torch.tensor([max(1, n) for n in counts], dtype=torch.float64)
    return (tau * (seen / seen.sum()).log()).float()
