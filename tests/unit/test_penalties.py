"""A head chosen by cross-validation: what is chosen, that rows of a group stay together, that it is the minimum."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from regraft.engine.penalties import choose
from regraft.errors import DataError, UsageError
from regraft.kit import shelf
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.waist import Facts, Loss, Said, Step, Target
from tests import places

CLASSES = Target("y", "class", ("a", "b", "c"), (60, 40, 20))


def rows(n: int = 150, width: int = 12, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    draw = np.random.default_rng(0)
    x = draw.normal(1, 1, (n, width)) * np.exp(draw.normal(0, 1, width))
    scores = x[:, :3] / x[:, :3].std(0) + draw.normal(0, noise, (n, 3))
    return torch.from_numpy(x).float(), torch.from_numpy(scores).float()


def names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


@pytest.mark.parametrize("loss", [Loss(), Loss(balance=1.0), Loss(smoothing=0.1)], ids=["plain", "balance", "smooth"])
@pytest.mark.parametrize("bias", [True, False])
def test_classes(loss: Loss, bias: bool) -> None:
    """The head does as well on rows that nothing was fitted to as cross-validation said."""
    x, scores = rows(600)
    y = scores.argmax(1)
    task = shelf.find("tasks", "classify").make(CLASSES, "accuracy")
    head = task.head(12, bias)
    found = choose(head, x[:300], y[:300], task, loss, names(300), 0)
    held = float((head(x[300:]).argmax(1) == y[300:]).float().mean())
    assert found.score == pytest.approx(held, abs=0.12) and held > 0.55
    with torch.no_grad():
        fitted = float(task.loss(head(x[:300]), y[:300], dataclasses.replace(loss, smoothing=0.0)).mean())
    assert found.loss == pytest.approx(fitted) and fitted < 1.0
    assert found.family in found.told and f"{found.score:.4g}" in found.told and "accuracy" in found.told
    again = task.head(12, bias)
    assert choose(again, x[:300], y[:300], task, loss, names(300), 0) == found
    assert torch.equal(head.weight, again.weight)


def test_of_more_features_than_rows_a_strong_penalty() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 200, generator=draw), torch.arange(40) % 3
    x[:, 0] += 4.0 * y
    task = shelf.find("tasks", "classify").make(CLASSES, "accuracy")
    head = task.head(200, True)
    found = choose(head, x, y, task, Loss(), names(40), 0)
    assert 0.5 < found.score < 1.0 and float((head(x).argmax(1) == y).float().mean()) >= found.score


@pytest.mark.parametrize("groups", [names(150), [str(i // 3) for i in range(150)]], ids=["apart", "groups"])
def test_numbers(groups: list[str]) -> None:
    x, scores = rows()
    y = scores[:, 0] * 5 + 40
    task = shelf.find("tasks", "regress").make(Target("g", "number", centre=float(y.mean()), spread=float(y.std())))
    head = task.head(12, True)
    found = choose(head, x, y, task, Loss(), groups, 0)
    rmse = float((head(x).flatten() - y).detach().square().mean().sqrt())
    assert found.family == "ridge" and 0.8 * rmse < found.score < 1.4 * rmse < 1.4 * float(y.std())
    assert ("leave-one-out" in found.told) == (len(set(groups)) == 150)


def test_equal_rows_in_several_folds_do_not_flatter() -> None:
    """Labels are noise; each row is there three times: without groups its twins would give it away."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 60, generator=draw).repeat(3, 1), (torch.randperm(40, generator=draw) % 3).repeat(3)
    task = shelf.find("tasks", "classify").make(CLASSES, "accuracy")
    grouped = choose(task.head(60, True), x, y, task, Loss(), [str(i % 40) for i in range(120)], 0)
    apart = choose(task.head(60, True), x, y, task, Loss(), names(120), 0)
    assert grouped.score < 0.6 < apart.score


def test_what_cannot_be() -> None:
    x, scores = rows()
    many = shelf.find("tasks", "multilabel").make(Target("y", "multi", ("a", "b", "c"), (9, 9, 9)))
    with pytest.raises(UsageError, match="multilabel"):
        choose(many.head(12, True), x, (scores > 0).float(), many, Loss(), names(150), 0)
    task = shelf.find("tasks", "classify").make(CLASSES)
    x[7, 2] = torch.inf
    with pytest.raises(DataError, match="1 of 150 training rows"):
        choose(task.head(12, True), x, scores.argmax(1), task, Loss(), names(150), 0)


def test_grades_in_an_order_are_chosen_by_their_own_metric() -> None:
    x, scores = rows(300)
    y = (scores[:, 0] > scores[:, 0].median()).long() + (scores[:, 0] > scores[:, 0].quantile(0.8)).long()
    task = shelf.find("tasks", "ordinal").make(dataclasses.replace(CLASSES, ordered=True))
    assert "quadratic_kappa" in choose(task.head(12, True), x, y, task, Loss(balance=0.5), names(300), 0).told


# ---------------------------------------------------------------- as a plan


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """27 training and 15 validation pictures of three classes, four stages with 16 features."""
    return places.course(tmp_path_factory.mktemp("penalties"))


def facts(course: Course) -> Facts:
    return Facts(places.card(course), survey.backbone(course.view, "f"), course.machine)


def test_a_probe_by_path_is_one_step_and_says_what_won(course: Course) -> None:
    plan = places.plan(course, "probe", by="path")
    assert (plan.label, plan.optimizer.whole, plan.trunk) == ("probe path", True, 4)
    events = list(course.trial(0, plan))
    (step,) = [event for event in events if isinstance(event, Step)]
    (note,) = [event.text for event in events if isinstance(event, Said) and "head chosen" in event.text]
    trial = events[-1].trial  # type: ignore[union-attr]
    assert note in trial.notes and (step.steps, len(trial.curve)) == (1, 1)
    chance = 1 / 3
    assert trial.score("val").value > chance and "5 folds" in note
    again = course.restore(trial)
    assert type(again.head) is torch.nn.Linear and float(again.head.weight.detach().abs().sum()) > 0


def test_a_path_that_was_stopped_ends_with_the_same_bits(course: Course, tmp_path: Path) -> None:
    plan = dataclasses.replace(places.plan(course, "probe", by="path"), loss=Loss(balance=1.0))
    first, second = places.whole_and_stopped(course, plan, tmp_path)
    assert (second.scores, second.notes, second.curve) == (first.scores, first.notes, first.curve)
    assert second.snapshot == first.snapshot, "named after its bytes"


def test_a_target_that_has_no_path_is_refused_when_planned(course: Course) -> None:
    given = facts(course)
    target = dataclasses.replace(given.data.target, kind="multi")
    with pytest.raises(UsageError, match="'multi'"):
        propose(
            dataclasses.replace(given, data=dataclasses.replace(given.data, target=target)),
            ["probe"],
            [("probe.by", "path")],
        )


def test_features_from_layers_that_must_be_trained_have_no_path(course: Course) -> None:
    given = facts(course)
    lacking = tuple(dataclasses.replace(one, new=(3,)) for one in given.backbone.poolings)
    body = dataclasses.replace(given.backbone, poolings=lacking)
    with pytest.raises(UsageError, match="checkpoint lacks"):
        propose(dataclasses.replace(given, backbone=body), ["probe"], [("probe.by", "path")])


def test_knobs_of_gradient_steps_are_refused_where_there_are_none(course: Course) -> None:
    with pytest.raises(UsageError, match=r"--probe\.lr, --probe\.momentum with"):
        propose(facts(course), ["probe"], [("probe.by", "path"), ("probe.lr", "0.1"), ("probe.momentum", "0.5")])
