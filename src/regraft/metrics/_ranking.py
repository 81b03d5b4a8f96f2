"""How well one column of scores puts the rows that count before all others, for the families that rank."""

from __future__ import annotations

import numpy as np


def average_precision(score: np.ndarray, there: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Precision averaged over the rows where `there` is true, each at its own score; 0 where there are none.

    `score`, `there`: [n]; rows with equal scores share a threshold. It is the area under the precision-recall steps,
    without interpolation, which flatters (Davis & Goadrich, 2006). Cost: a sort of values, of places where weighted.

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])) == (1 + 2 / 3) / 2
    True
    """
    places = np.flatnonzero(there)
    places = places[np.argsort(score[places])]  # looked up in order, a threshold is found twice as fast
    right, mass = score[places], None if weight is None else weight[places]
    if not (len(right) if mass is None else mass.sum()):
        return 0.0
    hits, seen = _at_least(right, right, mass), _at_least(right, score, weight)
    return float(np.average(hits / np.where(seen > 0, seen, 1), weights=mass))


def _at_least(threshold: np.ndarray, score: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """For each threshold, how many rows have at least that score, by weight.

    >>> _at_least(np.array([0.3, 0.5]), np.array([0.5, 0.1, 0.3]), None).tolist()
    [2, 1]
    """
    if weight is None:
        return len(score) - np.searchsorted(np.sort(score), threshold)
    order = np.argsort(score)
    above: np.ndarray = weight[order][::-1].cumsum()[::-1]
    return above[np.searchsorted(score[order], threshold)]
