"""How well classes are told apart: accuracy, and accuracy that every class counts in equally."""

from __future__ import annotations

import numpy as np

from regraft.waist import Metric


def accuracy(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Share of rows whose class was found. `pred`, `y`: class indices [n]; in [0, 1].

    >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1]))
    0.75
    """
    return float(np.average(pred == y, weights=weight))


def balanced_accuracy(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean over the classes that occur of the share found in each; in [0, 1], chance is 1 / classes.

    >>> balanced_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]))
    0.5
    """
    weight = np.ones(len(y)) if weight is None else weight
    return float(np.mean([np.average((pred == y)[y == c], weights=weight[y == c]) for c in np.unique(y)]))


def _largest_share(y: np.ndarray) -> float:
    return float(np.bincount(y).max() / len(y))


def _one_of(y: np.ndarray) -> float:
    return 1.0 / len(np.unique(y))


METRICS = (
    Metric("accuracy", "higher", accuracy, _largest_share, proportion=True),
    Metric("balanced_accuracy", "higher", balanced_accuracy, _one_of),
)
