"""Losses in place of cross-entropy: against plain torch and closed forms, at their limits, far from them, refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from regraft.engine.losses import refuse
from regraft.errors import UsageError
from regraft.kit import shelf
from regraft.tasks._losses import lost, offsets
from regraft.waist import Loss, Optimizer, Plan, Target, Task

COUNTS = (60, 30, 10)
TARGET = Target("y", "class", ("a", "b", "c"), COUNTS, ordered=True)
CLASSIFY: Task = shelf.find("tasks", "classify").make(TARGET)
MULTI: Task = shelf.find("tasks", "multilabel").make(Target("y", "multi", ("a", "b", "c"), COUNTS))
ORDINAL: Task = shelf.find("tasks", "ordinal").make(TARGET)
REGRESS: Task = shelf.find("tasks", "regress").make(Target("y", "number"))


def rows(n: int = 40) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return 3 * torch.randn(n, 3, generator=draw), torch.randint(0, 3, (n,), generator=draw)


def probability(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.softmax(1).gather(1, targets[:, None])[:, 0]


def near(found: Tensor, wanted: Tensor, rel: float = 1e-5) -> bool:
    return found.tolist() == pytest.approx(wanted.tolist(), rel=rel, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_the_focal_loss_is_the_published_one(gamma: float) -> None:
    outputs, targets = rows()
    p = probability(outputs, targets)
    assert near(CLASSIFY.loss(outputs, targets, Loss(focal=gamma)), -((1 - p) ** gamma) * p.log(), 1e-4)


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_the_robust_loss_is_the_published_one(q: float) -> None:
    outputs, targets = rows()
    p = probability(outputs, targets)
    assert near(CLASSIFY.loss(outputs, targets, Loss(robust=q)), (1 - p**q) / q)
    assert CLASSIFY.loss(outputs * 1e4, targets, Loss(robust=q)).max() <= 1 / q + 1e-6, "it has a bound"


@pytest.mark.parametrize("weight", [0.5, 10.0])
def test_the_symmetric_loss_is_the_published_one(weight: float) -> None:
    """α CE + β RCE over α, the logarithm of zero being A: here α = 1, β = 1, A = -weight."""
    outputs, targets = rows()
    p, truth = outputs.softmax(1), functional.one_hot(targets, 3)
    reverse = -(p * torch.where(truth > 0, 0.0, -weight)).sum(1)
    assert near(CLASSIFY.loss(outputs, targets, Loss(reverse=weight)), -probability(outputs, targets).log() + reverse)


@pytest.mark.parametrize(("yes", "no"), [(0.0, 4.0), (1.0, 4.0), (0.0, 1.0)])
def test_the_asymmetric_loss_is_the_published_one(yes: float, no: float) -> None:
    outputs, _ = rows()
    targets = (outputs.roll(1, 0) > 0).float()
    p = outputs.sigmoid()
    shifted = (p - 0.05).clamp(min=0)
    wanted = torch.where(targets == 1, -((1 - p) ** yes) * p.log(), -(shifted**no) * (1 - shifted).log()).mean(1)
    assert near(MULTI.loss(outputs, targets, Loss(focal=yes, asymmetric=no)), wanted, 1e-4)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_logits_are_adjusted_by_the_frequencies_of_training(tau: float) -> None:
    outputs, targets = rows()
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    wanted = functional.cross_entropy(outputs + tau * prior.log(), targets, reduction="none")
    assert near(CLASSIFY.loss(outputs, targets, Loss(adjust=tau)), wanted)
    assert offsets((3, 0), 1.0).isfinite().all(), "a class without rows"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("small", [Loss(focal=1e-6), Loss(adjust=1e-6), Loss(robust=1e-6), Loss(reverse=1e-6)], ids=str)
def test_at_its_limit_every_loss_is_cross_entropy(small: Loss, smoothing: float) -> None:
    outputs, targets = rows()
    for balance in (0.0, 1.0):
        plain = Loss(smoothing, balance)
        asked = dataclasses.replace(small, smoothing=smoothing, balance=balance)
        assert near(CLASSIFY.loss(outputs, targets, asked), CLASSIFY.loss(outputs, targets, plain), 1e-4)


def test_of_smoothed_shares_every_class_loses_its_own() -> None:
    outputs, targets = rows()
    p = outputs.softmax(1)
    share = functional.one_hot(targets, 3) * 0.7 + 0.1
    wanted = (share * (1 - p.sqrt()) / 0.5).sum(1)
    assert near(CLASSIFY.loss(outputs, targets, Loss(smoothing=0.3, robust=0.5)), wanted)


SHAPES = [Loss(focal=0.1), Loss(focal=2.0), Loss(robust=0.7), Loss(reverse=10.0), Loss(asymmetric=0.5)]


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_gradients_are_finite_where_the_answer_is_sure(options: Loss) -> None:
    for sign in (1.0, -1.0):
        outputs = torch.tensor([[200.0 * sign, 0.0, 0.0]], requires_grad=True)
        CLASSIFY.loss(outputs, torch.tensor([0]), dataclasses.replace(options, asymmetric=0.0)).sum().backward()
        assert outputs.grad is not None and outputs.grad.isfinite().all()
        yeses = torch.tensor([[200.0 * sign, 0.0, 0.0]], requires_grad=True)
        MULTI.loss(
            yeses, torch.tensor([[1.0, 0.0, 1.0]]), dataclasses.replace(options, robust=0.0, reverse=0.0)
        ).sum().backward()
        assert yeses.grad is not None and yeses.grad.isfinite().all()


def test_a_yes_and_a_no_each_have_their_focal_loss() -> None:
    outputs, _ = rows()
    targets = (outputs.roll(1, 0) > 0).float()
    p = outputs.sigmoid()
    right = torch.where(targets == 1, p, 1 - p)
    wanted = (-((1 - right) ** 2) * right.log()).mean(1)
    assert near(MULTI.loss(outputs, targets, Loss(focal=2.0)), wanted, 1e-4)
    for plain in (Loss(), Loss(0.1, 0.5)):
        least = dataclasses.replace(plain, focal=1e-6)
        assert near(MULTI.loss(outputs, targets, least), MULTI.loss(outputs, targets, plain), 1e-4)


def test_ordinal_logits_are_adjusted_in_both_parts() -> None:
    outputs, targets = rows()
    shifted = outputs + offsets(COUNTS, 1.0)
    assert near(ORDINAL.loss(outputs, targets, Loss(adjust=1.0)), ORDINAL.loss(shifted, targets, Loss()))


def test_adjusted_logits_learn_what_suits_equal_classes() -> None:
    """Without features the best constant logits are the frequencies; adjusted ones have nothing left to learn."""
    targets = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
    for options, wanted in ((Loss(), [0.6, 0.3, 0.1]), (Loss(adjust=1.0), [1 / 3] * 3)):
        logits = torch.zeros(3, requires_grad=True)
        rule = torch.optim.LBFGS([logits], max_iter=50, line_search_fn="strong_wolfe")

        def closure(rule: torch.optim.Optimizer = rule, logits: Tensor = logits, options: Loss = options) -> Tensor:
            rule.zero_grad()
            mean = CLASSIFY.loss(logits.expand(100, 3), targets, options).mean()
            mean.backward()
            return mean

        rule.step(closure)  # type: ignore[arg-type]
        assert logits.detach().softmax(0).tolist() == pytest.approx(wanted, abs=1e-3)


def test_a_power_below_one_has_no_slope_at_a_sure_answer() -> None:
    logs = torch.tensor([0.0, -1.0], requires_grad=True)
    lost(logs, Loss(focal=0.5)).sum().backward()
    assert logs.grad is not None and abs(logs.grad[0]) < 1e-15 and logs.grad.isfinite().all()


@pytest.mark.parametrize(
    ("task", "loss", "sampling", "saw"),
    [
        (ORDINAL, Loss(focal=2.0), 0.0, "focal 2"),
        (ORDINAL, Loss(robust=0.7), 0.0, "robust 0.7"),
        (MULTI, Loss(adjust=1.0), 0.0, "adjust 1"),
        (MULTI, Loss(reverse=1.0), 0.0, "reverse 1"),
        (CLASSIFY, Loss(asymmetric=4.0), 0.0, "asymmetric 4"),
        (ORDINAL, Loss(reverse=1.0), 0.0, "reverse 1"),
        (MULTI, Loss(robust=0.7), 1.0, "robust 0.7, sampling 1"),
        (REGRESS, Loss(smoothing=0.1), 0.0, "smoothing 0.1"),
        (REGRESS, Loss(), 0.5, "sampling 0.5"),
    ],
)
def test_what_a_task_does_not_take_is_refused(task: Task, loss: Loss, sampling: float, saw: str) -> None:
    with pytest.raises(UsageError) as caught:
        refuse(Plan("full", (), loss=loss, sampling=sampling), task)
    assert caught.value.saw == f"{saw} of full" and caught.value.do == "leave it out"
    assert caught.value.allowed == (", ".join(task.takes) or "none of them")
    assert caught.value.what == f"the task {task.name} does not take this option of the loss"


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"contradict each other: focal and robust · saw: focal 1 of full .* choose one"
    ):
        refuse(Plan("full", (), loss=Loss(focal=1.0, robust=0.5)), CLASSIFY)
    with pytest.raises(UsageError, match=r"robust and reverse · saw: robust 0\.5 of full · allowed: .*reverse"):
        refuse(Plan("full", (), loss=Loss(robust=0.5, reverse=1.0)), CLASSIFY)
    with pytest.raises(UsageError, match=r"chooses is fitted by cross-entropy · saw: adjust 1 .* --probe.by steps"):
        refuse(Plan("probe", (), optimizer=Optimizer("path"), loss=Loss(adjust=1.0)), CLASSIFY)
    refuse(Plan("probe", (), optimizer=Optimizer("lbfgs"), loss=Loss(0.1, 1.0, 0.0, 1.0, 0.5), sampling=1.0), CLASSIFY)
