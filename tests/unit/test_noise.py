"""Wrong labels are estimated about as many as there are, and named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regraft.planner.noise import noise, suspects


def drawn(share: float, spread: float, n: int = 600, classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities by the true classes' centres, given labels of which a share is wrong, and which these are."""
    draw = torch.Generator().manual_seed(0)
    truth = torch.randint(classes, (n,), generator=draw)
    x = torch.eye(classes)[truth] * 4 + spread * torch.randn(n, classes, generator=draw)
    wrong = torch.rand(n, generator=draw) < share
    moved = (truth + torch.randint(1, classes, (n,), generator=draw)) % classes
    return x.softmax(1), torch.where(wrong, moved, truth), wrong


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_about_as_many_are_suspected_as_are_wrong(share: float, spread: float) -> None:
    probabilities, given, wrong = drawn(share, spread)
    found = suspects(probabilities, given)
    assert abs(float((found.double() - wrong.double()).mean())) < 0.03
    if share:
        assert float(found[wrong].double().mean()) > 0.8, "most of those that are wrong are named"
        assert float(wrong[found].double().mean()) > 0.5, "most of those that are named are wrong"


def test_a_hard_task_is_not_a_wrong_one() -> None:
    """Where classes overlap, a head errs on a fifth of the rows; few of these are called wrong."""
    probabilities, given, _ = drawn(0.0, 2.0)
    errs = float((probabilities.argmax(1) != given).double().mean())
    assert errs > 0.15 and float(suspects(probabilities, given).double().mean()) < 0.6 * errs


def test_a_class_without_rows_takes_none() -> None:
    probabilities = torch.tensor([[0.2, 0.1, 0.7], [0.3, 0.6, 0.1]])
    assert suspects(probabilities, torch.tensor([0, 1])).tolist() == [False, False]


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_share_is_found_from_features_alone(share: float) -> None:
    draw = torch.Generator().manual_seed(1)
    _, given, wrong = drawn(share, 1.0)
    truth = drawn(0.0, 1.0)[1]
    x = torch.eye(4)[truth] @ torch.randn(4, 30, generator=draw) * 2 + torch.randn(len(truth), 30, generator=draw)
    found = noise(x, given, [str(i) for i in range(len(given))])
    assert found == pytest.approx(float(wrong.double().mean()), abs=0.03)
    assert noise(x, given.double(), ["a"] * len(given)) is None, "numbers have no wrong class"


def test_copies_of_a_row_do_not_vouch_for_each_other() -> None:
    """A wrong label that was copied with its row stays a suspect: the group speaks with one voice."""
    draw = torch.Generator().manual_seed(2)
    _, given, _ = drawn(0.1, 1.0, n=200)
    truth = drawn(0.0, 1.0, n=200)[1]
    x = torch.eye(4)[truth] @ torch.randn(4, 30, generator=draw) * 2 + torch.randn(200, 30, generator=draw)
    once = noise(x, given, [str(i) for i in range(200)])
    copied = noise(x.repeat(3, 1), given.repeat(3), [str(i % 200) for i in range(600)])
    assert copied == once and once is not None and once > 0.05
