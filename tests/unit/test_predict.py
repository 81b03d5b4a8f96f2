"""Outputs for any number of rows; intervals: Wilson's against scipy's, a bootstrap for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest
from torch import nn

from regraft.backbone.state import State, as_state
from regraft.engine.predict import Graft, interval, joined, outputs, score, sides
from regraft.engine.trunk import Side
from regraft.metrics.classes import METRICS
from regraft.tasks import classify, regress
from regraft.waist import Target
from tests import places

SHARE, MEAN, *_ = METRICS


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
    assert [(s.metric, s.split, s.value, s.n) for s in found[:2]] == [
        ("accuracy", "val", 0.75, 4),
        ("balanced_accuracy", "val", 0.75, 4),
    ]
    assert [s.metric for s in found] == [m.name for m in task.metrics]
    assert all(s.low <= s.value <= s.high for s in found)


def test_a_metric_is_given_the_array_that_it_takes() -> None:
    """ROC AUC looks at probabilities: the order among rows that are all called "b" counts."""
    task = classify.make(Target("label", "class", ("a", "b"), (1, 1)), "roc_auc")
    made = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 4.0]])
    assert score(task, made, ["a", "a", "b", "b"], "val", 0)[0].value == 1.0
    assert score(task, made, ["b", "b", "a", "a"], "val", 0)[0].value == 0.0


def test_errors_in_numbers_are_scored_with_their_direction() -> None:
    task = regress.make(Target("age", "number", centre=2.0, spread=1.0))
    ys = [float(i % 7) for i in range(40)]
    found = score(task, torch.tensor(ys)[:, None] + 0.5, ys, "test", 0)[0]
    assert (found.metric, found.better, found.n) == ("rmse", "lower", 40) and found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5) == found.high


# ---------------------------------------------------------------- windows and pairs


def features(*values: list[float]) -> State:
    """States at the last frontier: the features themselves."""
    return as_state(torch.tensor(values), {"x": torch.zeros(len(values), 1)})


class Top:
    """A view of two stages, whose states at the last frontier are its features."""

    stages = (None, None)

    def run(self, batch: Any, start: int, state: State) -> torch.Tensor:
        assert start == len(self.stages)
        features: torch.Tensor = state.value
        return features


GRAFT = Graft(Top(), nn.Identity())  # type: ignore[arg-type]


def test_features_of_a_text_s_windows_are_averaged() -> None:
    side = Side(features([1.0, 0.0], [3.0, 4.0], [5.0, 8.0], [9.0, 0.0]), 2)
    assert GRAFT.forward([side], 2).tolist() == [[2.0, 2.0], [7.0, 4.0]]
    assert GRAFT.forward([side._replace(windows=1)], 2).tolist() == [[1.0, 0.0], [3.0, 4.0], [5.0, 8.0], [9.0, 0.0]]
    assert GRAFT.forward([side._replace(windows=4)], 2).tolist() == [[4.5, 3.0]]


def test_the_windows_of_either_side_are_averaged_before_they_are_joined() -> None:
    a, b = Side(features([1.0, 0.0], [3.0, 4.0]), 2), Side(features([2.0, 2.0]), 1)
    assert torch.equal(GRAFT.forward([a, b], 2), joined(torch.tensor([[2.0, 2.0]]), torch.tensor([[2.0, 2.0]])))


@given(arrays(np.float32, (3, 5), elements=some.floats(-9, 9, width=32)), some.floats(0.125, 8.0, width=32))
def test_a_pair_is_joined_as_it_is_written(a: np.ndarray, scale: float) -> None:
    b = a[::-1] * np.float32(scale) + np.float32(1)
    found = joined(torch.from_numpy(a), torch.from_numpy(b.copy()))
    one, other = (x.astype(np.float64) for x in (a, b))
    one, other = (x * np.sqrt(5) / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (one, other))
    wanted = np.concatenate([one, other, np.abs(one - other), one * other], 1)
    assert found.shape == (3, 20) and np.allclose(found.numpy(), wanted, atol=1e-4)


def test_equal_texts_do_not_differ_and_a_text_of_nothing_gives_numbers() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    found = joined(x, x)
    assert found[0].tolist() == pytest.approx([0.6 * 2**0.5, 0.8 * 2**0.5] * 2 + [0.0, 0.0, 0.72, 1.28])
    assert found[1].tolist() == [0.0] * 8


@pytest.mark.parametrize(
    ("pooling", "columns", "count"),
    [("mean", 2, 2), ("native", 2, 1), ("mean", 1, 1), ("native", 1, 1), ("native", 0, 1)],
)
def test_only_a_pair_of_averaged_texts_has_two_sides(pooling: str, columns: int, count: int) -> None:
    assert sides(pooling, columns) == count


def test_outputs_of_texts_stand_in_the_order_of_their_rows(tmp_path: Path) -> None:
    """Rows go through in micro-batches of one shape each; alone or in any order they come out bit-equal."""
    course = places.text_course(tmp_path, "pairs", cached=False)
    graft = course.graft(places.plan(course, "probe", pooling="mean"))
    torch.nn.init.normal_(graft.head.weight)
    rows = course.data.train[:12]
    assert len(set(course.table(graft.view, 0, rows).shapes)) > 3
    whole = outputs(graft, course.table(graft.view, 0, rows))
    assert whole.shape == (12, 1) and len({*whole.flatten().tolist()}) == 12
    turned = outputs(graft, course.table(graft.view, 0, rows[::-1]))
    assert torch.equal(turned.flip(0), whole)
    for i in (0, 7):
        assert torch.equal(outputs(graft, course.table(graft.view, 0, rows[i : i + 1])), whole[i : i + 1])


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
