"""Ordered classes: it is a classifier to the outside, and far misses cost more than near ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from regraft.errors import DataError, UsageError
from regraft.tasks import classify, ordinal
from regraft.waist import Loss, Target

TARGET = Target("grade", "class", ("poor", "fair", "good", "best"), (6, 3, 3, 2), ordered=True)
TASK = ordinal.make(TARGET)


def test_it_is_never_guessed() -> None:
    assert not ordinal.fits(TARGET)


def test_what_has_no_classes_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        ordinal.make(Target("age", "number"))
    assert caught.value.saw == "age, a target of kind 'number'" and caught.value.allowed == "a target of kind 'class'"


def test_to_the_outside_it_is_a_classifier() -> None:
    plain, outputs = classify.make(TARGET), torch.randn(20, 4)
    assert TASK.encode(["best", "poor"]).tolist() == [3, 0]
    assert not TASK.head(3, True)(torch.randn(2, 3)).any()
    for name, array in plain.decode(outputs).items():
        assert np.array_equal(TASK.decode(outputs)[name], array)
    with pytest.raises(DataError) as caught:
        TASK.encode(["awful"])
    assert caught.value.saw == "awful"


def test_the_loss_is_the_squared_distance_and_a_share_of_cross_entropy() -> None:
    outputs, targets = torch.zeros(2, 4), torch.tensor([0, 1])
    distances = [0.75**2 + 0.5**2 + 0.25**2, 0.25**2 + 0.5**2 + 0.25**2]
    found = TASK.loss(outputs, targets, Loss()).tolist()
    assert found == pytest.approx([d + 0.1 * math.log(4) for d in distances])


def test_balance_weighs_both_parts() -> None:
    outputs, targets = torch.randn(4, 4), torch.arange(4)
    once, balanced = TASK.loss(outputs, targets, Loss()), TASK.loss(outputs, targets, Loss(balance=True))
    assert (balanced / once).tolist() == pytest.approx([14 / 24, 14 / 12, 14 / 12, 14 / 8])


def test_a_far_miss_costs_more_than_a_near_one() -> None:
    near, far = torch.tensor([[0.0, 5.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 5.0]])
    target = torch.tensor([0])
    assert TASK.loss(far, target, Loss()) > TASK.loss(near, target, Loss()) + 1
    plain = classify.make(TARGET)
    assert torch.equal(plain.loss(far, target, Loss()), plain.loss(near, target, Loss()))


def test_a_sure_and_wrong_head_is_pulled_away() -> None:
    outputs = torch.tensor([[0.0, 0.0, 0.0, 30.0]], requires_grad=True)
    TASK.loss(outputs, torch.tensor([0]), Loss()).sum().backward()
    assert outputs.grad is not None and outputs.grad[0, 3] > 0.09 and outputs.grad[0, 0] < -0.09


def test_a_few_steps_learn() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(200, 1, generator=draw)
    targets = (features[:, 0] > -1).long() + (features[:, 0] > 0).long() + (features[:, 0] > 1).long()
    head = TASK.head(1, True)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        TASK.loss(head(features), targets, Loss()).mean().backward()
        optimizer.step()
    pred = TASK.decode(head(features).detach())["pred"]
    assert TASK.metrics[0].name == "quadratic_kappa" and TASK.metrics[0].fn(pred, targets.numpy(), None) > 0.9


def test_answers_tell_the_expected_rank_too() -> None:
    sure, split = TASK.answers(torch.tensor([[0.0, 0.0, 0.0, 50.0], [30.0, 0.0, 30.0, 0.0]]), {})
    assert sure["label"] == "best" and sure["rank"] == pytest.approx(4.0)
    assert split["rank"] == pytest.approx(2.0) and list(split["probabilities"]) == list(TARGET.labels)


def test_the_kappa_decides_unless_another_is_asked_for() -> None:
    assert [m.name for m in TASK.metrics] == ["quadratic_kappa", "mae", "accuracy"]
    assert ordinal.make(TARGET, "accuracy").metrics[0].name == "accuracy"
    with pytest.raises(UsageError) as caught:
        ordinal.make(TARGET, "rmse")
    assert caught.value.saw == "'rmse'" and caught.value.allowed == "accuracy, mae, quadratic_kappa"


def test_an_order_that_nobody_told_is_not_made_up() -> None:
    with pytest.raises(UsageError) as caught:
        ordinal.make(Target("grade", "class", ("fair", "good", "poor"), (3, 3, 3)))
    assert caught.value.what == "the order of these labels is not known"
    assert caught.value.saw == "fair, good, poor" and caught.value.do.startswith("--order fair,good,poor")
