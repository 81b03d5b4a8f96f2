"""Classification: labels to indices and back, a head that starts without an opinion, probabilities that add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from regraft.errors import DataError
from regraft.tasks import classify
from regraft.waist import Target

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


def test_the_head_starts_with_every_class_equally_likely() -> None:
    state = torch.get_rng_state()
    head = TASK.head(5)
    assert torch.equal(torch.get_rng_state(), state), "random numbers were drawn"
    assert np.allclose(TASK.decode(head(torch.randn(4, 5)).detach())["prob"], 1 / 3)


def test_the_loss_is_one_number_a_row() -> None:
    outputs, targets = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    found = TASK.loss(outputs, targets, 0.0)
    assert found.tolist() == pytest.approx([math.log(math.exp(2) + 2) - 2, math.log(3)])


def test_smoothing_spreads_probability_over_all_classes() -> None:
    outputs, targets = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    logs = outputs.log_softmax(-1)[0]
    wanted = -(0.9 * logs[0] + 0.1 * logs.mean())
    assert TASK.loss(outputs, targets, 0.1).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_become_classes_and_probabilities(dtype: torch.dtype) -> None:
    made = TASK.decode(torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]], dtype=dtype))
    assert made["pred"].tolist() == [1, 0]
    assert np.allclose(made["prob"].sum(1), 1)


def test_answers_name_the_label_and_all_probabilities() -> None:
    (answer,) = TASK.answers(torch.tensor([[0.0, 3.0, 1.0]]))
    assert answer["label"] == "bee" and list(answer["probabilities"]) == ["ant", "bee", "cat"]
    assert answer["confidence"] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
