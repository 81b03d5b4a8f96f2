"""Label sets: any number of labels a row, each a yes or no of its own."""

from __future__ import annotations

import math

import pytest
import torch

from regraft.errors import DataError, UsageError
from regraft.tasks import multilabel
from regraft.waist import Loss, Target

TARGET = Target("tags", "multi", ("ant", "bee", "cat"), (16, 4, 1))
TASK = multilabel.make(TARGET)


def test_it_answers_label_sets_alone() -> None:
    assert multilabel.fits(TARGET)
    assert not multilabel.fits(Target("label", "class", ("a", "b"), (1, 1)))


def test_sets_become_rows_of_noughts_and_ones() -> None:
    found = TASK.encode([("cat", "ant"), (), ("bee",), ("bee", "bee")])
    assert found.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 1, 0]] and found.dtype == torch.float32
    assert TASK.encode([]).shape == (0, 3)


def test_strange_labels_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(DataError) as caught:
        TASK.encode([("ant", "dog"), (), ("eel",)])
    assert caught.value.saw == "dog, eel" and caught.value.allowed == "ant, bee, cat"


@pytest.mark.parametrize("bias", [True, False])
def test_the_head_starts_undecided(bias: bool) -> None:
    state = torch.get_rng_state()
    head = TASK.head(5, bias)
    assert torch.equal(torch.get_rng_state(), state), "random numbers were drawn"
    assert (TASK.decode(head(torch.randn(4, 5)).detach())["prob"] == 0.5).all()
    assert TASK.fold(head) is head


def test_the_loss_is_the_mean_over_labels() -> None:
    outputs, targets = torch.tensor([[0.0, 0.0, 0.0], [math.log(3), 0.0, 0.0]]), torch.tensor([[0.0, 1, 0], [1, 0, 0]])
    sure = -math.log(0.75)
    found = TASK.loss(outputs, targets, Loss()).tolist()
    assert found == pytest.approx([math.log(2), (sure + 2 * math.log(2)) / 3])
    soft = -0.95 * math.log(0.75) - 0.05 * math.log(0.25)
    found = TASK.loss(outputs, targets, Loss(smoothing=0.1)).tolist()
    assert found == pytest.approx([math.log(2), (soft + 2 * math.log(2)) / 3])


def test_balance_weighs_the_yeses_of_rare_labels() -> None:
    assert multilabel.positive_weights(TARGET.counts) == [1.0, 2.0, 4.0]
    assert multilabel.positive_weights((10_000, 1, 0)) == [1.0, 20.0, 20.0]
    found = TASK.loss(torch.zeros(3, 3), torch.eye(3), Loss(balance=0.5)) / math.log(2) * 3
    assert found.tolist() == pytest.approx([3.0, 4.0, 6.0])


def test_a_few_steps_learn() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(60, 3, generator=draw)
    targets = (features > 0).float()
    head = TASK.head(3, True)
    optimizer = torch.optim.SGD(head.parameters(), lr=5.0)
    for _ in range(40):
        optimizer.zero_grad()
        TASK.loss(head(features), targets, Loss()).mean().backward()
        optimizer.step()
    decides = TASK.metrics[0]
    pred = TASK.decode(head(features).detach())["pred"]
    assert decides.fn(pred, targets.numpy(), None) > 0.95 > decides.chance(targets.numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_label_is_given_from_one_half_on(dtype: torch.dtype) -> None:
    made = TASK.decode(torch.tensor([[-0.1, 0.0, 0.1]], dtype=dtype))
    assert made["pred"].tolist() == [[False, True, True]] and made["pred"].dtype == bool


def test_answers_name_labels_and_the_least_certainty() -> None:
    first, second = TASK.answers(torch.tensor([[3.0, 1.0, -2.0], [-4.0, -5.0, -6.0]]), {})
    assert first["labels"] == ["ant", "bee"] and list(first["probabilities"]) == ["ant", "bee", "cat"]
    assert first["confidence"] == pytest.approx(first["probabilities"]["bee"])
    assert second["labels"] == [] and second["confidence"] == pytest.approx(1 - second["probabilities"]["ant"])


def test_macro_f1_decides_unless_another_is_asked_for() -> None:
    assert TASK.metrics[0].name == "macro_f1"
    assert multilabel.make(TARGET, "mean_average_precision").metrics[0].takes == "prob"
    with pytest.raises(UsageError) as caught:
        multilabel.make(TARGET, "accuracy")
    assert caught.value.saw == "'accuracy'" and "micro_f1" in caught.value.allowed
