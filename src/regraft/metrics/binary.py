"""How well one of two classes is found: class 1, the positive one, judged by its predictions or its probabilities.

`pred` and `y` are class indices [n], 0 or 1; `prob` is [n, 2], of which column 1 is looked at. All lie in [0, 1].
"""

from __future__ import annotations

import numpy as np

from regraft.metrics import _ranking
from regraft.waist import Metric


def f1(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is positive, in truth or by prediction.

    >>> f1(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1]))
    0.5
    """
    hits, called, there = _totals(pred, y, weight)
    return _share(2 * hits, called + there)


def precision(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Share of the rows called positive that are; 0 where none is called so.

    >>> precision(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1])) == 2 / 3
    True
    """
    hits, called, _ = _totals(pred, y, weight)
    return _share(hits, called)


def recall(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Share of the positive rows that are called so; 0 where there are none.

    >>> recall(np.array([0, 1, 0, 0]), np.array([0, 1, 0, 1]))
    0.5
    """
    hits, _, there = _totals(pred, y, weight)
    return _share(hits, there)


def roc_auc(prob: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """How often a positive row is given a higher probability than a negative one, equal ones counting half.

    0.5 where rows of one class are missing: nothing was ranked. Cost: a sort.
    Reference: Hanley & McNeil, The meaning and use of the area under a ROC curve, 1982.

    >>> roc_auc(np.array([[0.8, 0.2], [0.4, 0.6], [0.4, 0.6]]), np.array([0, 1, 0]))
    0.75
    """
    positive, negative = _levels(prob[:, 1], y, weight)
    pairs = positive.sum() * negative.sum()
    below = negative.cumsum() - negative / 2
    return float((positive * below).sum() / pairs) if pairs else 0.5


def average_precision(prob: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Precision averaged over the positive rows, each at its own threshold; 0 where there are none. Cost: a sort.

    >>> average_precision(np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]), np.array([1, 0, 1])) == (1 + 2 / 3) / 2
    True
    """
    return _ranking.average_precision(prob[:, 1], y == 1, weight)


def _totals(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> tuple[float, float, float]:
    """Rows that are called positive and are, rows called so, rows that are so, by weight."""
    called, there = pred == 1, y == 1
    masks = (called & there, called, there)
    hits, n_called, n_there = (float(m.sum() if weight is None else weight[m].sum()) for m in masks)
    return hits, n_called, n_there


def _levels(score: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative rows, by weight, at each distinct score, the lowest first."""
    weight = np.ones(len(y)) if weight is None else weight
    _, level = np.unique(score, return_inverse=True)
    size = int(level.max()) + 1
    return np.bincount(level, weight * (y == 1), size), np.bincount(level, weight * (y != 1), size)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _positives(y: np.ndarray) -> float:
    return float(np.mean(y == 1))


def _f1_of_all(y: np.ndarray) -> float:
    share = _positives(y)
    return 2 * share / (1 + share)


def _many_f1(pred: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return _shares(2 * _many(pred * y, rows), _many(pred, rows) + _many(y, rows))


def _many_precision(pred: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return _shares(_many(pred * y, rows), _many(pred, rows))


def _many_recall(pred: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return _shares(_many(pred * y, rows), _many(y, rows))


def _many_roc_auc(prob: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    positive, negative = _many_levels(prob[:, 1], y, rows)
    pairs = positive.sum(1) * negative.sum(1)
    below = negative.cumsum(1) - negative / 2
    return np.where(pairs > 0, (positive * below).sum(1) / np.maximum(pairs, 1), 0.5)


def _many_average_precision(prob: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    positive, negative = _many_levels(-prob[:, 1], y, rows)
    hits, seen = positive.cumsum(1), (positive + negative).cumsum(1)
    return _shares((positive * hits / np.maximum(seen, 1)).sum(1), positive.sum(1))


def _many(mask: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How many rows of each line are 1."""
    counts: np.ndarray = (mask == 1)[rows].sum(1)
    return counts


def _many_levels(score: np.ndarray, y: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_levels` for each line of `rows`, [R, levels]."""
    _, level = np.unique(score, return_inverse=True)
    size = int(level.max()) + 1
    places = (np.arange(len(rows))[:, None] * size + level[rows]).ravel()
    there = (y == 1)[rows].ravel()
    found = (np.bincount(places[mask], minlength=len(rows) * size) for mask in (there, ~there))
    positive, negative = (counts.reshape(len(rows), size).astype(float) for counts in found)
    return positive, negative


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Shares, 0 where there is nothing to share."""
    shares: np.ndarray = np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)
    return shares


METRICS = (
    Metric("f1", "higher", f1, _f1_of_all, many=_many_f1),
    Metric("precision", "higher", precision, _positives, many=_many_precision),
    Metric("recall", "higher", recall, lambda y: float((y == 1).any()), many=_many_recall),
    Metric("roc_auc", "higher", roc_auc, lambda y: 0.5, takes="prob", many=_many_roc_auc),
    Metric("average_precision", "higher", average_precision, _positives, takes="prob", many=_many_average_precision),
)
"""The constant guess of the first three calls every row positive, so that nobody beats its recall."""
