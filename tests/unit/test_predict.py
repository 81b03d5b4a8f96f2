"""Outputs for any number of rows; intervals: Wilson's against scipy's, a bootstrap for the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as some
from scipy.stats import binomtest

from regraft.engine.predict import interval, outputs, score
from regraft.metrics.classes import METRICS
from regraft.tasks import classify
from regraft.waist import Target
from tests import places

SHARE, MEAN = METRICS


@given(some.integers(1, 400).flatmap(lambda n: some.tuples(some.integers(0, n), some.just(n))))
@example((0, 1))
@example((0, 20))
@example((20, 20))
def test_a_share_of_rows_has_wilsons_interval(drawn: tuple[int, int]) -> None:
    right, n = drawn
    y = np.zeros(n, int)
    pred = np.r_[np.zeros(right, int), np.ones(n - right, int)]
    low, high = interval(SHARE, pred, y, right / n, 0)
    wanted = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-7)
    assert 0 <= low <= right / n <= high <= 1


@settings(max_examples=20)
@given(some.lists(some.tuples(*[some.integers(0, 2)] * 2), min_size=2, max_size=25))
def test_a_bootstrap_holds_its_value(rows: list[tuple[int, int]]) -> None:
    pred, y = np.array(rows).T
    value = MEAN.fn(pred, y, None)
    low, high = interval(MEAN, pred, y, value, 0)
    assert 0 <= low <= value <= high <= 1


def test_a_bootstrap_follows_its_seed_and_narrows_with_rows() -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, 1000)
    pred = np.where(draw.random(1000) < 0.8, y, 1 - y)
    value = MEAN.fn(pred, y, None)
    few = interval(MEAN, pred[:50], y[:50], MEAN.fn(pred[:50], y[:50], None), 0)
    many = interval(MEAN, pred, y, value, 0)
    assert many == interval(MEAN, pred, y, value, 0) != interval(MEAN, pred, y, value, 1)
    assert 0.03 < many[1] - many[0] < 0.07 < few[1] - few[0]


def test_scores_come_with_the_deciding_one_first() -> None:
    task = classify.make(Target("label", "class", ("a", "b"), (1, 1)))
    made = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = score(task, made, ["a", "a", "b", "b"], "val", 0)
    assert [(s.metric, s.split, s.value, s.n) for s in found] == [
        ("accuracy", "val", 0.75, 4),
        ("balanced_accuracy", "val", 0.75, 4),
    ]
    assert all(s.low <= s.value <= s.high for s in found)


def test_outputs_come_a_row_each_whatever_their_number(tmp_path: Path) -> None:
    course = places.course(tmp_path, cached=False)
    graft = course.graft(places.plan(course, "partial", depth=1))
    torch.nn.init.normal_(graft.head.weight)
    rows, micro = course.data.train, course.machine.micro_batch
    assert micro < len(rows) * 3
    whole = outputs(graft, course.table(graft.view, 3, (rows * 3)[: micro + 1]))
    assert whole.shape == (micro + 1, 3) and not whole.requires_grad
    for count in (1, micro):
        some_rows = outputs(graft, course.table(graft.view, 3, (rows * 3)[:count]))
        assert torch.equal(some_rows, whole[:count])
