"""Outputs of a grafted model for a split, and scores with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regraft.backbone.view import View
from regraft.engine import engines, freeze
from regraft.engine.cache import Table
from regraft.engine.trunk import Side, groups
from regraft.errors import memory_watched
from regraft.waist import Metric, Score, Task, Training

RESAMPLES = 1000
AT_ONCE = 2**20
"""So many rows of resamples are looked at in one go."""
JOINED = 4
Z = 1.959964
AS_IT_STANDS = Training()


@dataclass
class Graft:
    """A backbone with a head on it: what is trained, predicts and ships.

    `pieces` is how many a training batch goes through in, one after the other: more where memory asks for it.
    `training` is how steps of training compute; all else computes as the network stands.
    """

    view: View
    head: nn.Module
    pieces: int = 1
    training: Training = AS_IT_STANDS

    def features(self, sides: Sequence[Side], k: int) -> Tensor:
        """What the head takes, from states at frontier k; at 0 a state is the encoded batch, at L the features.

        Features of a text's windows are averaged; those of a pair are joined.
        """
        found = []
        for state, count in sides:
            features = self.view.run(state.inputs, start=k, state=state)
            found.append(features.view(-1, count, features.shape[-1]).mean(1) if count > 1 else features)
        return found[0] if len(found) == 1 else joined(*found)

    def forward(self, sides: Sequence[Side], k: int) -> Tensor:
        """Outputs from states at frontier k."""
        outputs: Tensor = self.head(self.features(sides, k))
        return outputs

    def halves(self, k: int) -> bool:
        """Whether steps from frontier k on compute in bfloat16."""
        return self.training.dtype == "bfloat16" and k < len(self.view.stages)

    def descend(self, sides: Sequence[Side], k: int) -> tuple[Tensor, Tensor]:
        """Outputs from states at frontier k and the features that they are made of, float32, to take gradients of."""
        if self.training == AS_IT_STANDS or k == len(self.view.stages):
            features = self.features(sides, k)
            return self.head(features), features
        if k == 0 and self.training.engine != "eager":
            sides = [side._replace(state=side.state._replace(inputs=engines.last(side.state.inputs))) for side in sides]
        with engines.autocast(self.training):
            features = self.features(sides, k)
            return self.head(features).float(), features.float()


def joined(a: Tensor, b: Tensor) -> Tensor:
    """Features of a pair from those of its sides, [n, D] each: a, b, |a − b| and a · b at unit scale, [n, 4 D].

    Reference: Reimers & Gurevych, Sentence-BERT, 2019; Conneau et al., InferSent, 2017.

    >>> joined(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.0]])).shape
    torch.Size([1, 8])
    """
    a, b = (x * x.shape[1] ** 0.5 / x.norm(dim=1, keepdim=True).clamp(min=1e-12) for x in (a, b))
    return torch.cat([a, b, (a - b).abs(), a * b], 1)


def sides(pooling: str, columns: int) -> int:
    """How many texts of a row go through the network apart: a pair's two where tokens are averaged, otherwise one.

    Native pooling reads a pair as one sequence, as its own classifier does.
    """
    return 2 if columns == 2 and pooling == "mean" else 1


def outputs(graft: Graft, table: Table, at_once: int = 0) -> Tensor:
    """Outputs for every row of a table, [N, …], in micro-batches of fixed shapes: bits do not depend on N.

    They are what the network as it stands gives, or with so many rows `at_once` what it gives as its steps compute.
    """
    found: dict[int, Tensor] = {}
    with memory_watched(), torch.no_grad(), freeze.mode(graft.view, graft.head, None):
        some = list(table.micro_batches(at_once))
        for (index, count), (following, _) in zip(some, [*some[1:], ([], 0)], strict=True):
            batch = table.batch(index)
            if following:
                table.prepare(following)
            made = graft.descend(batch, table.trunk.k)[0] if at_once else graft.forward(batch, table.trunk.k)
            found |= dict(zip(index[:count], made[:count], strict=True))
    return torch.stack([found[i] for i in range(len(table.rows))])


def everything(graft: Graft, table: Table) -> Tensor:
    """The features of all rows of a table at once, [N, dim]; sparse where the view makes them so."""
    with torch.no_grad(), freeze.mode(graft.view, graft.head, None):
        return gathered(graft, table, range(len(table.rows)))


def gathered(graft: Graft, table: Table, index: Sequence[int]) -> Tensor:
    """The features of some rows of a table, [n, dim], whatever their shapes: those of a shape go through at once."""
    found = list(groups([table.shapes[i] for i in index]).values())
    pieces = [graft.features(table.batch([index[i] for i in members]), table.trunk.k) for members in found]
    if len(pieces) == 1:
        return pieces[0]
    order = torch.tensor([i for members in found for i in members]).argsort()
    return torch.cat(pieces)[order]


def score(task: Task, made: Tensor, ys: list[Any], split: str, seed: int) -> tuple[Score, ...]:
    """Every metric of the task on a split, the deciding one first."""
    decoded, y = task.decode(made), task.encode(ys).numpy()
    found = []
    for metric in task.metrics:
        pred = decoded[metric.takes]
        value = metric.fn(pred, y, None)
        low, high = interval(metric, pred, y, value, seed)
        found.append(Score(metric.name, split, value, low, high, len(y), metric.better))
    return tuple(found)


def share_interval(value: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n rows.

    >>> [round(end, 3) for end in share_interval(1.0, 48)]
    [0.926, 1.0]
    """
    centre, spread = value + Z**2 / (2 * n), Z * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n * n))
    low, high = (centre - spread) / (1 + Z**2 / n), (centre + spread) / (1 + Z**2 / n)
    return max(0.0, min(low, value)), min(1.0, max(high, value))


def interval(metric: Metric, pred: np.ndarray, y: np.ndarray, value: float, seed: int) -> tuple[float, float]:
    """95 % interval of a metric over rows: Wilson's for shares of rows, otherwise percentiles of a bootstrap.

    Reference: Wilson, Probable inference, 1927; it stays sensible at 0 and 1, where resampling collapses to a point.
    """
    n = len(y)
    if metric.proportion:
        return share_interval(value, n)
    values: list[float] = []
    for rows in resampled(n, seed):
        values += list(over(metric, pred, y, rows))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def over(metric: Metric, pred: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A metric on each of some resamples of rows, [R, n]."""
    if metric.many is not None:
        return metric.many(pred, y, rows)
    return np.array([metric.fn(pred[i], y[i], None) for i in rows])


def resampled(n: int, seed: int, count: int = RESAMPLES) -> Iterator[np.ndarray]:
    """The rows of `count` resamples of n rows, [R, n], some at a time so that they fit into memory many times."""
    draw, left = np.random.default_rng(seed), count
    while left:
        count = min(left, max(1, AT_ONCE // n))
        yield draw.integers(0, n, (count, n))
        left -= count
