"""Pull rows of a class together and others apart: a loss of features, over all pairs of rows in a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TOGETHER = 4
"""So many rows of a class at least share a batch, where there are as many."""


def contrast(features: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """The supervised contrastive loss of each row, [n], among features [n, D] of classes [n].

    For row i with the cosines s to the others, divided by the temperature: the mean over rows p of its class of
    -log softmax(s)ₚ; 0 for a row that is alone in its class. Memory: n² numbers.

    Reference: Khosla et al., Supervised contrastive learning, 2020, equation 2.

    >>> far = contrast(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]), torch.tensor([0, 0, 1]), 0.5)
    >>> near = contrast(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 1]), 0.5)
    >>> bool((near[:2] < far[:2]).all()), bool(near[2] == 0)
    (True, True)
    """
    unit = functional.normalize(features, dim=1)
    own = torch.eye(len(targets), dtype=torch.bool)
    same = (targets[:, None] == targets[None, :]) & ~own
    share = (unit @ unit.T / temperature).masked_fill(own, -torch.inf).log_softmax(1)
    return -share.masked_fill(~same, 0.0).sum(1) / same.sum(1).clamp(min=1)


def batches(targets: Tensor, size: int, seed: int) -> list[list[int]]:
    """Positions of all rows in batches of about `size`, each row once, at least a few rows of a class together.

    The rows of a class are drawn into groups of four or more, and groups are dealt out. So there are as many pairs in a
    pass as rows times `size`, however many rows there are.

    >>> [len(one) for one in batches(torch.tensor([0, 1] * 16), 8, 0)]
    [8, 8, 8, 8]
    """
    draw = torch.Generator().manual_seed(seed)
    count = max(1, round(len(targets) / size))
    found: list[list[int]] = [[] for _ in range(count)]
    pieces = []
    for kind in targets.unique().tolist():
        members = (targets == kind).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=draw)]
        pieces += [piece.tolist() for piece in members.tensor_split(max(1, min(count, len(members) // TOGETHER)))]
    for i in torch.randperm(len(pieces), generator=draw).tolist():
        min(found, key=len).extend(pieces[i])
    return [one for one in found if one]
