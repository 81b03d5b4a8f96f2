"""Numbers: in their own units from the head to the answer, with an interval that covers what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from regraft.errors import DataError, UsageError
from regraft.tasks import regress
from regraft.waist import Loss, Target

TARGET = Target("price", "number", centre=250_000.0, spread=50_000.0)
TASK = regress.make(TARGET)


def test_it_answers_numbers_alone() -> None:
    assert regress.fits(TARGET)
    assert not regress.fits(Target("label", "class", ("a", "b"), (1, 1)))


def test_numbers_become_a_row_each() -> None:
    found = TASK.encode([1, 2.5, "3", np.float64(4)])
    assert found.tolist() == [1.0, 2.5, 3.0, 4.0] and found.dtype == torch.float32
    assert TASK.encode([]).shape == (0,)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39, 10**400, "tall", None])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(DataError) as caught:
        TASK.encode([1.0, value])
    assert caught.value.what == "1 of 2 values of price are no numbers to learn from"
    assert caught.value.saw == repr(value) and caught.value.allowed == "finite numbers that fit into float32"


def test_the_head_starts_at_the_mean_and_folds() -> None:
    head = TASK.head(3, True)
    features = torch.randn(8, 3)
    assert head(features).tolist() == [[250_000.0]] * 8
    assert TASK.head(3, False)(features).tolist() == [[0.0]] * 8
    nn.init.normal_(head.weight)
    folded = TASK.fold(head)
    assert type(folded) is nn.Linear
    # Two float32 roads to one value: they differ by roundings of its largest summand, not of the sum.
    assert torch.allclose(folded(features), head(features), rtol=1e-6, atol=0.25)


def test_the_loss_counts_in_standard_deviations() -> None:
    outputs, targets = torch.tensor([[250_000.0], [300_000.0]]), torch.tensor([350_000.0, 275_000.0])
    assert TASK.loss(outputs, targets, Loss()).tolist() == [4.0, 0.25]


def test_a_few_steps_learn_whatever_the_unit() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(60, 3, generator=draw)
    targets = 250_000 + 50_000 * features[:, 0]
    head = TASK.head(3, True)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        TASK.loss(head(features), targets, Loss()).mean().backward()
        optimizer.step()
    pred = TASK.decode(head(features).detach())["pred"]
    values = {m.name: m.fn(pred, targets.numpy(), None) for m in TASK.metrics}
    assert values["rmse"] < 2_000 and values["r2"] > 0.99 and values["spearman"] > 0.99


def test_the_margin_covers_nine_in_ten_new_rows() -> None:
    draw = torch.Generator().manual_seed(1)
    covered = []
    for _ in range(20):
        seen, new = torch.randn(500, generator=draw), torch.randn(2000, generator=draw)
        numbers = dict(TASK.calibrate(torch.zeros(500, 1), seen))
        covered.append((new.abs() <= numbers["margin"]).float().mean().item())
        assert numbers["coverage"] == 0.9
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)
    assert covered == pytest.approx([0.9] * 20, abs=0.06)


@pytest.mark.parametrize(
    ("n", "place", "coverage"), [(1, 1, 0.5), (8, 8, 8 / 9), (9, 9, 0.9), (10, 10, 0.9), (99, 90, 0.9)]
)
def test_the_margin_is_a_residual_and_says_what_it_covers(n: int, place: int, coverage: float) -> None:
    residuals = [(-1.0) ** i * i for i in range(n, 0, -1)]
    assert regress.margin(residuals) == (("margin", place), ("coverage", coverage))


def test_answers_carry_an_interval_where_one_was_found() -> None:
    outputs = torch.tensor([[10.0], [12.5]])
    assert TASK.answers(outputs, {}) == [{"value": 10.0}, {"value": 12.5}]
    numbers = dict(TASK.calibrate(torch.zeros(3, 1), torch.tensor([1.0, -2.0, 0.5])))
    assert TASK.answers(outputs, numbers) == [
        {"value": 10.0, "low": 8.0, "high": 12.0},
        {"value": 12.5, "low": 10.5, "high": 14.5},
    ]


def test_the_root_mean_squared_error_decides_unless_another_is_asked_for() -> None:
    assert [m.name for m in TASK.metrics] == ["rmse", "mae", "r2", "spearman", "pearson"]
    assert regress.make(TARGET, "spearman").metrics[0].name == "spearman"
    with pytest.raises(UsageError) as caught:
        regress.make(TARGET, "accuracy")
    assert caught.value.saw == "'accuracy'"
