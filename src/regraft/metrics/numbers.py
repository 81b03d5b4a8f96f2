"""How well numbers are predicted: the size of errors, the variance explained, the order.

`pred` and `y` are numbers [n]; sums are taken in float64 whatever comes in.
"""

from __future__ import annotations

import math

import numpy as np

from regraft.waist import Metric


def rmse(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Root of the mean squared error, in the target's units: large errors weigh more. Lower is better.

    >>> rmse(np.array([1.0, 5.0]), np.array([1.0, 3.0])) == 2**0.5
    True
    """
    return math.sqrt(np.average(_errors(pred, y) ** 2, weights=weight))


def mae(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean size of the error, in the target's units. Lower is better.

    >>> mae(np.array([1.0, 5.0]), np.array([1.0, 3.0]))
    1.0
    """
    return float(np.average(np.abs(_errors(pred, y)), weights=weight))


def r2(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Share of the variance explained: 1 is perfect, 0 what the mean of `y` reaches, below 0 is worse than that.

    Where `y` is constant there is nothing to explain, and it is 0.

    >>> r2(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    0.5
    """
    truth = np.asarray(y, float)
    if np.ptp(truth) == 0:
        return 0.0
    left = np.average(_errors(pred, y) ** 2, weights=weight)
    return float(1 - left / np.average((truth - np.average(truth, weights=weight)) ** 2, weights=weight))


def spearman(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Correlation of the ranks, in [-1, 1]: whether the order is right, whatever the scale. Equal values share a rank.

    0 where one side is constant. A weight counts as that many equal rows. Cost: two sorts.

    >>> round(spearman(np.array([0.1, 0.2, 9.0]), np.array([1.0, 2.0, 3.0])), 9)
    1.0
    """
    return pearson(_ranks(pred, weight), _ranks(y, weight), weight)


def pearson(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Linear correlation, in [-1, 1]; 0 where one side is constant.

    >>> round(pearson(np.array([2.0, 4.0, 6.0]), np.array([3.0, 2.0, 1.0])), 9)
    -1.0
    """
    ours, theirs = np.asarray(pred, float), np.asarray(y, float)
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return 0.0
    weight = np.ones(len(ours)) if weight is None else weight
    ours, theirs = ours - np.average(ours, weights=weight), theirs - np.average(theirs, weights=weight)
    size = math.sqrt(weight @ ours**2) * math.sqrt(weight @ theirs**2)
    return float(np.clip((weight * ours) @ theirs / size, -1, 1)) if size else 0.0


def _errors(pred: np.ndarray, y: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.asarray(pred, float) - np.asarray(y, float)
    return found


def _ranks(values: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Mean rank of each value's group, less one half, which no correlation sees.

    >>> _ranks(np.array([5.0, 7.0, 7.0]), None).tolist()
    [0.5, 2.0, 2.0]
    """
    _, group = np.unique(values, return_inverse=True)
    size = np.bincount(group, weight)
    found: np.ndarray = (size.cumsum() - size / 2)[group]
    return found


METRICS = (
    Metric("rmse", "lower", rmse, lambda y: float(np.std(y, dtype=float))),
    Metric("mae", "lower", mae, lambda y: mae(np.full(len(y), np.median(y)), y)),
    Metric("r2", "higher", r2, lambda y: 0.0),
    Metric("spearman", "higher", spearman, lambda y: 0.0),
    Metric("pearson", "higher", pearson, lambda y: 0.0),
)
"""The constant guess is the best one: the mean of `y`, for absolute errors its median."""
