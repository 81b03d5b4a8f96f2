"""Metrics of classes agree with scikit-learn, and chance is the best constant guess."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from regraft.metrics.classes import METRICS, accuracy, balanced_accuracy, macro_f1


def theirs(name: str, y: np.ndarray, pred: np.ndarray, weight: np.ndarray | None) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs warns of predicted classes that do not occur
        if name == "macro_f1":
            return float(f1_score(y, pred, average="macro", sample_weight=weight, zero_division=0))
        measure = {"accuracy": accuracy_score, "balanced_accuracy": balanced_accuracy_score}[name]
        return float(measure(y, pred, sample_weight=weight))


@some.composite
def guesses(draw: some.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, truth and weights of up to 30 rows in up to four classes."""
    pairs = draw(some.lists(some.tuples(*[some.integers(0, 3)] * 2, some.integers(1, 9)), min_size=1, max_size=30))
    pred, y, weight = np.array(pairs).T
    return pred, y, weight / 3


@given(guesses(), some.booleans())
def test_values_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool) -> None:
    pred, y, weight = rows
    for metric in METRICS:
        given_ = weight if weighted else None
        assert metric.fn(pred, y, given_) == pytest.approx(theirs(metric.name, y, pred, given_))


@given(guesses())
def test_chance_is_the_best_constant_guess(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, y, _ = rows
    for metric in METRICS:
        reached = max(metric.fn(np.full(len(y), c), y, None) for c in np.unique(y))
        assert metric.chance(y) == pytest.approx(reached)


def test_a_class_that_is_never_found_counts_in_full() -> None:
    pred, y = np.zeros(10, int), np.array([0] * 9 + [1])
    assert accuracy(pred, y) == 0.9 and balanced_accuracy(pred, y) == 0.5
    assert macro_f1(pred, y) == pytest.approx(9 / 19)


def test_records_say_which_way_is_better_and_what_is_a_share() -> None:
    assert [(m.name, m.better, m.proportion, m.takes) for m in METRICS] == [
        ("accuracy", "higher", True, "pred"),
        ("balanced_accuracy", "higher", False, "pred"),
        ("macro_f1", "higher", False, "pred"),
    ]
