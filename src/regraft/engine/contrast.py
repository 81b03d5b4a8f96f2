"""Pull rows of a class together and others apart: a loss of features, over all pairs of rows in a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

STEPS = 8
"""An epoch has so many steps at least: where rows are few it passes over them several times."""
TOGETHER = 4
"""So many rows of a class at least share a batch, where there are as many."""


def contrast(features: Tensor, targets: Tensor) -> Tensor:
    """How far the cosines of each row to all others, [n], are from 1 within its class and from 0 outside of it.

    For row i with the cosines s of features [n, D]: half the mean of (1 - s)² over the others of its class, and half
    the mean of s² over rows of other classes, so that both kinds of pairs count the same. Memory: n² numbers.

    Reference: Tunstall et al., Efficient few-shot learning without prompts, 2022, whose pairs are drawn one by one.

    >>> far = contrast(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]), torch.tensor([0, 0, 1]))
    >>> near = contrast(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
    >>> bool((near < far).all())
    True
    """
    unit = functional.normalize(features, dim=1)
    cosines, same = unit @ unit.T, targets[:, None] == targets[None, :]
    together = same & ~torch.eye(len(targets), dtype=torch.bool)
    near, far = (1 - cosines).square() * together, cosines.square() * ~same
    return near.sum(1) / together.sum(1).clamp(min=1) / 2 + far.sum(1) / (~same).sum(1).clamp(min=1) / 2


def passes(rows: int, size: int) -> int:
    """How many passes over the rows an epoch has, in batches of about `size`.

    >>> passes(16, 16), passes(48, 16), passes(800, 16)
    (8, 3, 1)
    """
    return math.ceil(STEPS / _count(rows, size))


def batches(targets: Tensor, size: int, seed: int) -> list[list[int]]:
    """Positions of all rows in batches of about `size`, at least a few rows of a class together; pass after pass.

    The rows of a class are drawn into groups of four or more, and groups are dealt out. So there are as many pairs in a
    pass as rows times `size`, however many rows there are.

    >>> [len(one) for one in batches(torch.tensor([0, 1] * 32), 8, 0)]
    [8, 8, 8, 8, 8, 8, 8, 8]
    """
    draw = torch.Generator().manual_seed(seed)
    return [one for _ in range(passes(len(targets), size)) for one in _pass(targets, size, draw)]


def _pass(targets: Tensor, size: int, draw: torch.Generator) -> list[list[int]]:
    """Each row once."""
    count = _count(len(targets), size)
    found: list[list[int]] = [[] for _ in range(count)]
    pieces = []
    for kind in targets.unique().tolist():
        members = (targets == kind).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=draw)]
        pieces += [piece.tolist() for piece in members.tensor_split(max(1, min(count, len(members) // TOGETHER)))]
    for i in torch.randperm(len(pieces), generator=draw).tolist():
        min(found, key=len).extend(pieces[i])
    return [one for one in found if one]


def _count(rows: int, size: int) -> int:
    return max(1, round(rows / size))
