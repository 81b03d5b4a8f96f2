"""Metrics of ordered classes agree with scikit-learn, and chance is a constant guess."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from regraft.metrics.ranks import METRICS, mae, quadratic_kappa


@some.composite
def rows(draw: some.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and true ranks, which differ somewhere in each, and weights."""
    free = some.tuples(some.integers(0, 4), some.integers(0, 4), some.integers(1, 9))
    pred, y, weight = np.array([(0, 4, 1), (3, 1, 1), *draw(some.lists(free, max_size=30))]).T
    return pred, y, weight / 3


@given(rows(), some.booleans())
def test_values_are_those_of_scikit_learn(found: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool) -> None:
    pred, y, mass = found
    weight = mass if weighted else None
    wanted = cohen_kappa_score(y, pred, labels=range(5), weights="quadratic", sample_weight=weight)
    assert quadratic_kappa(pred, y, weight) == pytest.approx(wanted)
    assert mae(pred, y, weight) == pytest.approx(mean_absolute_error(y, pred, sample_weight=weight))


@given(rows())
def test_chance_is_the_best_constant_guess(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, y, _ = found
    guesses = [np.full(len(y), rank) for rank in range(5)]
    for metric in METRICS:
        best = max if metric.better == "higher" else min
        assert metric.chance(y) == pytest.approx(best(metric.fn(guess, y, None) for guess in guesses), abs=1e-9)


def test_one_class_alone_has_no_kappa() -> None:
    assert quadratic_kappa(np.array([2, 2]), np.array([2, 2])) == 0.0


def test_far_misses_cost_more_than_near_ones() -> None:
    y = np.array([0, 1, 2, 3, 4, 4])
    near, far = np.array([0, 1, 2, 3, 4, 3]), np.array([0, 1, 2, 3, 4, 0])
    assert quadratic_kappa(y, y) == 1.0 > quadratic_kappa(near, y) > quadratic_kappa(far, y)


def test_records_say_which_way_is_better() -> None:
    assert [(m.name, m.better) for m in METRICS] == [("quadratic_kappa", "higher"), ("mae", "lower")]
