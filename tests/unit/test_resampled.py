"""Metrics over a thousand resamples at once say what they say of each alone."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.engine import predict
from regraft.metrics import binary, classes
from regraft.waist import Metric

MANY = [(metric, 2) for metric in binary.METRICS] + [(m, c) for m in classes.METRICS if m.many for c in (2, 5)]


@pytest.mark.parametrize(("metric", "count"), MANY, ids=lambda of: getattr(of, "name", str(of)))
@pytest.mark.parametrize("n", [1, 2, 7, 61])
def test_many_resamples_at_once_are_those_one_by_one(metric: Metric, count: int, n: int) -> None:
    draw = np.random.default_rng(n)
    y = draw.integers(0, count, n)
    prob = draw.random((n, count)).round(1)  # ties among scores
    pred = prob.argmax(1) if metric.takes == "prob" else np.where(draw.random(n) < 0.6, y, draw.integers(0, count, n))
    given = prob if metric.takes == "prob" else pred
    (rows,) = predict.resampled(n, 3)
    assert metric.many is not None
    alone = [metric.fn(given[i], y[i], None) for i in rows]
    np.testing.assert_allclose(metric.many(given, y, rows), alone, rtol=1e-12, atol=1e-12)


def test_resamples_are_the_same_however_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(predict.resampled(7, 5)))
    draw = np.random.default_rng(5)
    assert (whole == [draw.integers(0, 7, 7) for _ in range(predict.RESAMPLES)]).all()
    monkeypatch.setattr(predict, "AT_ONCE", 20)
    parts = list(predict.resampled(7, 5))
    assert len(parts[0]) == 2 and (np.concatenate(parts) == whole).all()
