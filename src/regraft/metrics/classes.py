"""How well classes are told apart: accuracy, and two means in which every class counts equally."""

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
    hits, _, rows = _counts(pred, y, weight)
    there = rows > 0
    return float(np.mean(hits[there] / rows[there]))


def macro_f1(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean over the classes that occur or are predicted of each one's F1; in [0, 1].

    F1 is the harmonic mean of the share found of a class (recall) and the share that is right of what was called so
    (precision), 2 · hits / (predicted + rows).

    >>> round(macro_f1(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])), 3)
    0.429
    """
    hits, predicted, rows = _counts(pred, y, weight)
    seen = predicted + rows
    there = seen > 0
    return float(np.mean(2 * hits[there] / seen[there]))


def _counts(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class: rows found, rows predicted to be in it, rows in it, by weight.

    >>> [list(map(int, counts)) for counts in _counts(np.array([0, 0]), np.array([0, 1]), None)]
    [[1, 0], [2, 0], [1, 1]]
    """
    size, hit = int(max(pred.max(), y.max())) + 1, pred == y
    of_hits = None if weight is None else weight[hit]
    return np.bincount(y[hit], of_hits, size), np.bincount(pred, weight, size), np.bincount(y, weight, size)


def _largest_share(y: np.ndarray) -> float:
    return float(np.bincount(y).max() / len(y))


def _one_of(y: np.ndarray) -> float:
    return 1.0 / len(np.unique(y))


def _f1_of_largest(y: np.ndarray) -> float:
    share = _largest_share(y)
    return 2 * share / (1 + share) * _one_of(y)


def _many_balanced(pred: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    hits, _, there = _many_counts(pred, y, rows)
    return _mean_of(hits, there)


def _many_f1(pred: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    hits, predicted, there = _many_counts(pred, y, rows)
    return _mean_of(2 * hits, predicted + there)


def _many_counts(pred: np.ndarray, y: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_counts` for each line of `rows`, [R, C]."""
    size = int(max(pred.max(), y.max())) + 2  # the last is a place for rows that were not found
    first = np.arange(len(rows))[:, None] * size
    told = (np.where(pred == y, y, size - 1), pred, y)
    hits, predicted, there = (np.bincount((one[rows] + first).ravel(), minlength=len(rows) * size) for one in told)
    hits, predicted, there = (one.reshape(len(rows), size)[:, :-1] for one in (hits, predicted, there))
    return hits, predicted, there


def _mean_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The mean of each line's shares, over those whose whole is above 0."""
    shares = np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)
    means: np.ndarray = shares.sum(1) / (whole > 0).sum(1)
    return means


METRICS = (
    Metric("accuracy", "higher", accuracy, _largest_share, proportion=True),
    Metric("balanced_accuracy", "higher", balanced_accuracy, _one_of, equal=True, many=_many_balanced),
    Metric("macro_f1", "higher", macro_f1, _f1_of_largest, equal=True, many=_many_f1),
)
