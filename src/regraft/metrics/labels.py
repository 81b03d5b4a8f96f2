"""How well sets of labels are found: F1 by label and over all, whole sets, rankings.

`pred` [n, C] is true where a label is given, `y` [n, C] is 1 where it holds, `prob` [n, C] are probabilities.
"""

from __future__ import annotations

import numpy as np

from regraft.metrics import _ranking
from regraft.waist import Metric


def macro_f1(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean of the labels' F1, in [0, 1]; a label that neither holds nor is given anywhere is left out.

    >>> macro_f1(np.array([[True, False], [True, False]]), np.array([[1, 0], [1, 1]]))
    0.5
    """
    hits, seen = _counts(pred, y, weight)
    return _mean(2 * hits, seen)


def micro_f1(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """F1 over all labels of all rows at once, in [0, 1]: frequent labels decide.

    >>> micro_f1(np.array([[True, False], [True, False]]), np.array([[1, 0], [1, 1]]))
    0.8
    """
    hits, seen = (counts.sum() for counts in _counts(pred, y, weight))
    return float(2 * hits / seen) if seen > 0 else 0.0


def exact_match(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Share of rows whose set of labels is found without a fault, in [0, 1].

    >>> exact_match(np.array([[True, False], [True, False]]), np.array([[1, 0], [1, 1]]))
    0.5
    """
    return float(np.average((pred == (y > 0.5)).all(1), weights=weight))


def hamming_loss(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Share of wrong answers among all labels of all rows, in [0, 1]; lower is better.

    >>> hamming_loss(np.array([[True, False], [True, False]]), np.array([[1, 0], [1, 1]]))
    0.25
    """
    return float(np.average((pred != (y > 0.5)).mean(1), weights=weight))


def mean_average_precision(prob: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean of the labels' average precision, in [0, 1], over the labels that hold somewhere; no threshold is needed.

    Cost: a sort per label. Rows with equal probabilities share one threshold.

    >>> mean_average_precision(np.array([[0.9, 0.1], [0.8, 0.7]]), np.array([[0, 0], [1, 1]]))
    0.75
    """
    there = y > 0.5
    found = [
        _ranking.average_precision(prob[:, c], there[:, c], weight) for c in np.flatnonzero(_weigh(there, weight) > 0)
    ]
    return float(np.mean(found)) if found else 0.0


def _counts(pred: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Per label: rows where it is given and holds; rows where it is given plus rows where it holds, by weight."""
    there = y > 0.5
    return _weigh(pred & there, weight), _weigh(pred, weight) + _weigh(there, weight)


def _weigh(mask: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Rows per label where the mask is true, by weight."""
    found: np.ndarray = mask.sum(0) if weight is None else weight @ mask
    return found


def _mean(part: np.ndarray, whole: np.ndarray) -> float:
    """Mean of part / whole over the labels whose whole is above 0; 0 where there are none."""
    there = whole > 0
    return float(np.mean(part[there] / whole[there])) if there.any() else 0.0


def _shares(y: np.ndarray) -> np.ndarray:
    """How often each label holds, among those that do, the most frequent first."""
    shares = np.sort((y > 0.5).mean(0))[::-1]
    return shares[shares > 0]


def _every_label(y: np.ndarray) -> float:
    """Macro F1 of giving all rows every label that holds anywhere."""
    shares = _shares(y)
    return float(np.mean(2 * shares / (1 + shares))) if len(shares) else 0.0


def _best_set(y: np.ndarray) -> float:
    """Micro F1 of the best fixed set: for each size it is that of the most frequent labels."""
    shares = _shares(y)
    found = 2 * shares.cumsum() / (np.arange(1, len(shares) + 1) + shares.sum())
    return float(found.max()) if len(found) else 0.0


def _commonest_row(y: np.ndarray) -> float:
    return float(np.unique(y > 0.5, axis=0, return_counts=True)[1].max() / len(y))


def _rarer_answers(y: np.ndarray) -> float:
    shares = (y > 0.5).mean(0)
    return float(np.minimum(shares, 1 - shares).mean())


def _mean_share(y: np.ndarray) -> float:
    shares = _shares(y)
    return float(shares.mean()) if len(shares) else 0.0


METRICS = (
    Metric("macro_f1", "higher", macro_f1, _every_label, equal=True),
    Metric("micro_f1", "higher", micro_f1, _best_set),
    Metric("exact_match", "higher", exact_match, _commonest_row, proportion=True),
    Metric("hamming_loss", "lower", hamming_loss, _rarer_answers),
    Metric("mean_average_precision", "higher", mean_average_precision, _mean_share, takes="prob", equal=True),
)
