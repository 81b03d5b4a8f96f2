"""Metrics of label sets agree with scikit-learn; chance is the best fixed set, searched for."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss

from regraft.metrics.labels import METRICS

BY_NAME = {metric.name: metric for metric in METRICS}
C = 3


@some.composite
def rows(draw: some.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities with many ties, truth, weights."""
    n = draw(some.integers(1, 12))
    fill = draw(some.integers(0, 2**31))
    dice = np.random.default_rng(fill)
    share = dice.choice([0.0, 0.2, 0.8], C)
    return dice.integers(0, 5, (n, C)) / 4, (dice.random((n, C)) < share).astype(np.float32), dice.integers(1, 9, n) / 3


def theirs(name: str, prob: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> float:
    pred, truth = prob >= 0.5, y.astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs warns where every label is left out
        if name == "macro_f1":
            found = f1_score(truth, pred, average="macro", sample_weight=weight, zero_division=np.nan)
        elif name == "micro_f1":
            found = f1_score(truth, pred, average="micro", sample_weight=weight, zero_division=0)
        elif name == "exact_match":
            found = accuracy_score(truth, pred, sample_weight=weight)
        elif name == "hamming_loss":
            found = hamming_loss(truth, pred, sample_weight=weight)
        else:
            held = [c for c in range(C) if y[:, c].any()]
            each = [average_precision_score(y[:, c], prob[:, c], sample_weight=weight) for c in held]
            found = np.mean(each) if each else 0.0
    return 0.0 if np.isnan(found) else float(found)


@given(rows(), some.booleans())
def test_values_are_those_of_scikit_learn(found: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool) -> None:
    prob, y, mass = found
    weight = mass if weighted else None
    for name, metric in BY_NAME.items():
        taken = prob if metric.takes == "prob" else prob >= 0.5
        assert metric.fn(taken, y, weight) == pytest.approx(theirs(name, prob, y, weight)), name


@given(rows())
def test_chance_is_the_best_fixed_set(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, y, _ = found
    fixed = [np.tile(np.array(given_, bool), (len(y), 1)) for given_ in itertools.product([0, 1], repeat=C)]
    for metric in METRICS:
        best = max if metric.better == "higher" else min
        assert metric.chance(y) == pytest.approx(best(metric.fn(guess, y, None) for guess in fixed)), metric.name


def test_a_label_that_is_nowhere_is_left_out_and_a_wrong_guess_of_it_is_not() -> None:
    y = np.array([[1, 0], [1, 0]], np.float32)
    right, wrong = np.array([[True, False]] * 2), np.array([[True, False], [True, True]])
    assert BY_NAME["macro_f1"].fn(right, y, None) == 1.0
    assert BY_NAME["macro_f1"].fn(wrong, y, None) == 0.5


def test_rows_without_any_label_have_values() -> None:
    y, nothing = np.zeros((2, C), np.float32), np.zeros((2, C), bool)
    values = {m.name: m.fn(nothing, y, None) for m in METRICS}
    assert values == {
        "macro_f1": 0.0,
        "micro_f1": 0.0,
        "exact_match": 1.0,
        "hamming_loss": 0.0,
        "mean_average_precision": 0.0,
    }


def test_records_say_which_way_is_better_and_what_they_take() -> None:
    assert [m.name for m in METRICS if m.better == "lower"] == ["hamming_loss"]
    assert [m.name for m in METRICS if m.takes == "prob"] == ["mean_average_precision"]
    assert [m.name for m in METRICS if m.proportion] == ["exact_match"]
