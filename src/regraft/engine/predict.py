"""Outputs of a grafted model for a split, and scores with their 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regraft.backbone.state import State
from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.engine.cache import Table
from regraft.waist import Metric, Score, Task

RESAMPLES = 1000
Z = 1.959964


@dataclass
class Graft:
    """A backbone with a head on it: what is trained, predicts and ships."""

    view: View
    head: nn.Module

    def forward(self, state: State, k: int) -> Tensor:
        """Outputs from the state at frontier k; at 0 the state is the encoded batch, at L the features."""
        features = state.value if k == len(self.view.stages) else self.view.run(state.inputs, start=k, state=state)
        outputs: Tensor = self.head(features)
        return outputs


def outputs(graft: Graft, table: Table) -> Tensor:
    """Outputs for every row of a table, [N, …], in micro-batches of the trunk's shape: bits do not depend on N."""
    found = []
    with torch.no_grad(), freeze.mode(graft.view, graft.head, None):
        for start in range(0, len(table.rows), table.trunk.micro):
            state, count = table.padded(start)
            found.append(graft.forward(state, table.trunk.k)[:count])
    return torch.cat(found)


def score(task: Task, made: Tensor, ys: list[Any], split: str, seed: int) -> tuple[Score, ...]:
    """Every metric of the task on a split, the deciding one first."""
    pred, y = task.decode(made)["pred"], task.encode(ys).numpy()
    found = []
    for metric in task.metrics:
        value = metric.fn(pred, y, None)
        low, high = interval(metric, pred, y, value, seed)
        found.append(Score(metric.name, split, value, low, high, len(y)))
    return tuple(found)


def interval(metric: Metric, pred: np.ndarray, y: np.ndarray, value: float, seed: int) -> tuple[float, float]:
    """95 % interval of a metric over rows: Wilson's for shares of rows, otherwise percentiles of a bootstrap.

    Reference: Wilson, Probable inference, 1927; it stays sensible at 0 and 1, where resampling collapses to a point.
    """
    n = len(y)
    if metric.proportion:
        centre, spread = value + Z**2 / (2 * n), Z * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n * n))
        low, high = (centre - spread) / (1 + Z**2 / n), (centre + spread) / (1 + Z**2 / n)
        return max(0.0, min(low, value)), min(1.0, max(high, value))
    draw = np.random.default_rng(seed)
    values = [metric.fn(pred[i], y[i], None) for i in (draw.integers(0, n, n) for _ in range(RESAMPLES))]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
