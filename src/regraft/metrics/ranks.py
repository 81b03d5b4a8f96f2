"""How well classes in an order are found, where a near miss is better than a far one.

`pred` and `y` are ranks [n], which are class indices: 0 … C-1.
"""

from __future__ import annotations

import numpy as np

from regraft.waist import Metric


def quadratic_kappa(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Agreement beyond chance with squared distances as its cost: 1 is perfect, 0 is chance, below 0 is worse.

    It is 1 - (mean squared distance of the rows) / (the same if predictions were dealt out anew), which the means and
    variances of both sides give: no table of classes is needed. 0 where both sides are one and the same class.
    Reference: Cohen, Weighted kappa, 1968.

    >>> quadratic_kappa(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 1]))
    0.5
    """
    pred_mean, y_mean = np.average(pred, weights=weight), np.average(y, weights=weight)
    spread = np.average((pred - pred_mean) ** 2, weights=weight) + np.average((y - y_mean) ** 2, weights=weight)
    dealt = spread + (pred_mean - y_mean) ** 2
    return float(1 - np.average((pred - y) ** 2, weights=weight) / dealt) if dealt > 0 else 0.0


def mae(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """How many ranks a prediction is off, in the mean; lower is better.

    >>> mae(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1]))
    0.25
    """
    return float(np.average(np.abs(pred - y), weights=weight))


METRICS = (
    Metric("quadratic_kappa", "higher", quadratic_kappa, lambda y: 0.0),
    Metric("mae", "lower", mae, lambda y: float(np.abs(y - np.median(y)).mean())),
)
"""The constant guess of the second is the median rank."""
