"""Classification: labels to indices and back, a head that starts without an opinion, probabilities that add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from regraft.errors import DataError, UsageError
from regraft.tasks import classify
from regraft.waist import Loss, Target

TARGET = Target("label", "class", ("ant", "bee", "cat"), (3, 3, 3))
TASK = classify.make(TARGET)


def test_it_answers_classes_alone() -> None:
    assert classify.fits(TARGET)
    assert not classify.fits(Target("age", "number"))


def test_labels_keep_the_order_of_the_target() -> None:
    assert TASK.encode(["cat", "ant", "ant"]).tolist() == [2, 0, 0]
    assert TASK.encode([]).tolist() == [] and TASK.encode([]).dtype == torch.long


def test_a_strange_label_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(DataError) as caught:
        TASK.encode(["ant", "dog", "eel", "dog"])
    assert caught.value.what == "a label is not one of the training labels"
    assert caught.value.saw == "dog, eel" and caught.value.allowed == "ant, bee, cat"


@pytest.mark.parametrize("bias", [True, False])
def test_the_head_starts_with_every_class_equally_likely(bias: bool) -> None:
    state = torch.get_rng_state()
    head = TASK.head(5, bias)
    assert torch.equal(torch.get_rng_state(), state), "random numbers were drawn"
    assert sorted(dict(head.named_parameters())) == (["bias", "weight"] if bias else ["weight"])
    assert np.allclose(TASK.decode(head(torch.randn(4, 5)).detach())["prob"], 1 / 3)
    assert TASK.fold(head) is head


def test_the_loss_is_one_number_a_row() -> None:
    outputs, targets = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    found = TASK.loss(outputs, targets, Loss())
    assert found.tolist() == pytest.approx([math.log(math.exp(2) + 2) - 2, math.log(3)])


def test_smoothing_spreads_probability_over_all_classes() -> None:
    outputs, targets = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    logs = outputs.log_softmax(-1)[0]
    wanted = -(0.9 * logs[0] + 0.1 * logs.mean())
    assert TASK.loss(outputs, targets, Loss(smoothing=0.1)).item() == pytest.approx(wanted.item())


def test_balance_lets_a_rare_class_count_as_much_as_a_frequent_one() -> None:
    task = classify.make(Target("label", "class", ("ant", "bee"), (6, 2)))
    outputs, targets = torch.zeros(8, 2), torch.tensor([0] * 6 + [1] * 2)
    found = task.loss(outputs, targets, Loss(balance=True)) / math.log(2)
    assert found.tolist() == pytest.approx([2 / 3] * 6 + [2.0] * 2)
    assert found.mean().item() == pytest.approx(1), "the rate of learning stays what it was"


def test_balance_finds_the_rare_class() -> None:
    task = classify.make(Target("label", "class", ("ant", "bee"), (95, 5)))
    draw = torch.Generator().manual_seed(0)
    targets = torch.tensor([0] * 95 + [1] * 5)
    features = torch.randn(100, 2, generator=draw) + targets[:, None]
    found = {}
    for balance in (False, True):
        head = task.head(2, True)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
        losses = []
        for _ in range(50):
            loss = task.loss(head(features), targets, Loss(balance=balance)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        found[balance] = (task.decode(head(features).detach())["pred"][95:] == 1).sum()
    assert found[False] < 3 <= found[True]


@pytest.mark.parametrize(
    ("counts", "lopsided", "decides"),
    [((5, 5), False, "accuracy"), ((5, 14), False, "accuracy"), ((5, 15), True, "balanced_accuracy")],
)
def test_imbalance_changes_what_decides(counts: tuple[int, ...], lopsided: bool, decides: str) -> None:
    target = Target("label", "class", ("ant", "bee"), counts)
    assert target.unequal is lopsided
    names = [metric.name for metric in classify.make(target).metrics]
    assert names[0] == decides and {"accuracy", "balanced_accuracy", "macro_f1"} <= set(names)


def test_two_classes_are_also_judged_by_the_positive_one() -> None:
    two = {m.name for m in classify.make(Target("label", "class", ("no", "yes"), (5, 5))).metrics}
    assert two - {m.name for m in TASK.metrics} == {"f1", "precision", "recall", "roc_auc", "average_precision"}


def test_a_metric_that_is_asked_for_decides() -> None:
    assert [m.name for m in classify.make(TARGET, "macro_f1").metrics] == ["macro_f1", "accuracy", "balanced_accuracy"]
    with pytest.raises(UsageError) as caught:
        classify.make(TARGET, "roc_auc")
    assert caught.value.saw == "'roc_auc'" and caught.value.allowed == "accuracy, balanced_accuracy, macro_f1"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_become_classes_and_probabilities(dtype: torch.dtype) -> None:
    made = TASK.decode(torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]], dtype=dtype))
    assert made["pred"].tolist() == [1, 0]
    assert np.allclose(made["prob"].sum(1), 1)


def test_answers_name_the_label_and_all_probabilities() -> None:
    (answer,) = TASK.answers(torch.tensor([[0.0, 3.0, 1.0]]), dict(TASK.calibrate(torch.zeros(1, 3), torch.zeros(1))))
    assert answer["label"] == "bee" and list(answer["probabilities"]) == ["ant", "bee", "cat"]
    assert answer["confidence"] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
