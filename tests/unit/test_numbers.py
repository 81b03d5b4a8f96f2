"""Metrics of numbers agree with scikit-learn and scipy; chance is the best constant guess."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from regraft.metrics.numbers import METRICS

BY_NAME = {metric.name: metric for metric in METRICS}
ERRORS = {"rmse": root_mean_squared_error, "mae": mean_absolute_error, "r2": r2_score}
ORDERS = {"spearman": spearmanr, "pearson": pearsonr}


@some.composite
def rows(draw: some.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions and truth with ties, neither constant, and whole weights."""
    free = some.tuples(some.integers(-4, 4), some.integers(-4, 4), some.integers(1, 4))
    pred, y, weight = np.array([(5, -5, 1), (-5, 5, 2), *draw(some.lists(free, max_size=30))]).T
    return (pred / 2).astype(np.float32), (y + 100).astype(np.float32), weight


@given(rows(), some.booleans())
def test_errors_are_those_of_scikit_learn(found: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool) -> None:
    pred, y, mass = found
    weight = mass if weighted else None
    for name, theirs in ERRORS.items():
        wanted = theirs(y.astype(float), pred.astype(float), sample_weight=weight)
        assert BY_NAME[name].fn(pred, y, weight) == pytest.approx(wanted)


@given(rows())
def test_correlations_are_those_of_scipy(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    pred, y, weight = found
    again = np.repeat(np.arange(len(y)), weight)
    for name, theirs in ORDERS.items():
        assert BY_NAME[name].fn(pred, y, None) == pytest.approx(theirs(pred, y).statistic, abs=1e-6)
        wanted = theirs(pred[again], y[again]).statistic
        assert BY_NAME[name].fn(pred, y, weight) == pytest.approx(wanted, abs=1e-6), "a weight is that many rows"


def test_a_constant_guess_has_no_correlation_and_warns_of_nothing() -> None:
    y, guess = np.array([0.1, 0.7, 0.3], np.float32), np.full(3, 0.3, np.float32)
    for name in ORDERS:
        assert BY_NAME[name].fn(guess, y, None) == BY_NAME[name].fn(y, guess, None) == 0.0
    assert BY_NAME["r2"].fn(y, guess, None) == 0.0


@given(rows())
def test_chance_is_the_best_constant_guess(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, y, _ = found
    guesses = [np.full(len(y), value) for value in (*y, y.mean(dtype=float), np.median(y))]
    for metric in METRICS:
        best = max if metric.better == "higher" else min
        assert metric.chance(y) == pytest.approx(best(metric.fn(guess, y, None) for guess in guesses), abs=1e-9)


def test_chance_by_hand() -> None:
    y = np.array([0.0, 0.0, 0.0, 4.0], np.float32)
    assert {m.name: m.chance(y) for m in METRICS} == {
        "rmse": 3**0.5,
        "mae": 1.0,
        "r2": 0.0,
        "spearman": 0.0,
        "pearson": 0.0,
    }


def test_records_say_which_way_is_better() -> None:
    assert [m.name for m in METRICS if m.better == "lower"] == ["rmse", "mae"]
    assert {m.takes for m in METRICS} == {"pred"}
