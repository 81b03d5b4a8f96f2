"""Metrics of two classes agree with scikit-learn, with ties and weights; a class that is missing is no error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from regraft.metrics.binary import METRICS
from regraft.waist import Metric

BY_NAME = {metric.name: metric for metric in METRICS}
OF_CALLS = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
OF_SCORES = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}


@some.composite
def rows(draw: some.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, truth with both classes, weights."""
    free = some.tuples(some.integers(0, 5), some.integers(0, 1), some.integers(1, 9))
    both = [(draw(some.integers(0, 5)), c, 1) for c in (0, 1)]
    score, y, weight = np.array(both + draw(some.lists(free, max_size=30))).T
    return score / 5, y, weight / 3


def given_to(metric: Metric, score: np.ndarray) -> np.ndarray:
    prob = np.stack([1 - score, score], 1)
    return prob if metric.takes == "prob" else (score >= 0.5).astype(int)


@given(rows(), some.booleans())
def test_values_are_those_of_scikit_learn(found: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool) -> None:
    score, y, mass = found
    weight = mass if weighted else None
    for name, theirs in OF_CALLS.items():
        wanted = theirs(y, score >= 0.5, sample_weight=weight, zero_division=0)
        assert BY_NAME[name].fn(given_to(BY_NAME[name], score), y, weight) == pytest.approx(wanted)
    for name, theirs in OF_SCORES.items():
        wanted = theirs(y, score, sample_weight=weight)
        assert BY_NAME[name].fn(given_to(BY_NAME[name], score), y, weight) == pytest.approx(wanted)


@given(rows())
def test_chance_is_the_best_constant_guess(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, y, _ = found
    for metric in METRICS:
        reached = max(metric.fn(given_to(metric, np.full(len(y), score)), y, None) for score in (0.0, 1.0))
        assert metric.chance(y) == pytest.approx(reached)


@pytest.mark.parametrize(("label", "precision"), [(0, 0.0), (1, 1.0)])
def test_one_class_alone_has_a_value(label: int, precision: float) -> None:
    score, y = np.array([0.2, 0.9, 0.6]), np.full(3, label)
    values = {name: metric.fn(given_to(metric, score), y, None) for name, metric in BY_NAME.items()}
    assert values["roc_auc"] == 0.5
    assert values["average_precision"] == values["precision"] == precision
    assert BY_NAME["average_precision"].chance(y) == precision


def test_nothing_called_positive_is_no_error() -> None:
    calls, y = np.zeros(3, int), np.array([0, 1, 1])
    assert [BY_NAME[name].fn(calls, y, None) for name in OF_CALLS] == [0.0, 0.0, 0.0]


def test_rows_without_weight_do_not_count() -> None:
    score, y, weight = np.array([0.9, 0.5, 0.1]), np.array([0, 1, 0]), np.array([0.0, 1.0, 1.0])
    for name in OF_SCORES:
        assert BY_NAME[name].fn(given_to(BY_NAME[name], score), y, weight) == 1.0


def test_records_say_what_they_take() -> None:
    assert {metric.name for metric in METRICS if metric.takes == "prob"} == set(OF_SCORES)
    assert {metric.better for metric in METRICS} == {"higher"}
