"""Average precision of one column: scikit-learn's, with ties and weights."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from regraft.metrics._ranking import average_precision


@pytest.mark.parametrize("levels", [2, 20, 10**6])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_that_of_scikit_learn(levels: int, weighted: bool) -> None:
    draw = np.random.default_rng(levels)
    score, there = draw.integers(0, levels, 400).astype(np.float32), draw.random(400) < 0.1
    weight = draw.random(400) if weighted else None
    wanted = average_precision_score(there, score, sample_weight=weight)
    assert average_precision(score, there, weight) == pytest.approx(wanted, rel=1e-12)


def test_without_rows_that_count_it_is_zero() -> None:
    assert average_precision(np.array([0.5, 0.6]), np.array([False, False])) == 0.0
    assert average_precision(np.array([0.5, 0.6]), np.array([True, False]), np.array([0.0, 1.0])) == 0.0
