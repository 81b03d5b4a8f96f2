"""A head's rate, momentum and decay chosen by cross-validation: as loops choose, groups together, as a plan."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regraft.deliver.report import plan_terms
from regraft.engine import rates
from regraft.engine.fit import batches
from regraft.engine.folds import Rows, rows_of
from regraft.engine.grid import Setting
from regraft.errors import Diverged, UsageError
from regraft.kit import shelf
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.sizes import Pace, shortened
from regraft.waist import Facts, Loss, Plan, Said, Step, Target
from tests import places

CLASSES = Target("y", "class", ("a", "b", "c"), (60, 40, 20))
PLAIN = Loss()
SETTINGS = [Setting(*one) for one in itertools.product((1e-3, 0.03, 1.0), (0.0, 0.9), (0.0, 0.1))]
TASK = shelf.find("tasks", "classify").make(CLASSES, "accuracy")


def rows(n: int = 150, width: int = 12) -> tuple[Tensor, Tensor]:
    draw = np.random.default_rng(0)
    x = draw.normal(1, 1, (n, width)) * np.exp(draw.normal(0, 1, width))
    scores = x[:, :3] / x[:, :3].std(0) + draw.normal(0, 1, (n, 3))
    return torch.from_numpy(x).float(), torch.from_numpy(scores).float().argmax(1)


def names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def order(n: int, epochs: int = 4) -> tuple[list[list[int]], list[float]]:
    found = [batch for epoch in range(epochs) for batch in batches([()] * n, 16, epoch)]
    return found, [0.5 * (1 + math.cos(math.pi * i / len(found))) for i in range(len(found))]


def choose(held: Rows, loss: Loss = PLAIN, settings: list[Setting] = SETTINGS) -> tuple[nn.Linear, rates.Picked]:
    head: Any = TASK.head(held.features.shape[1], held.centred)
    return head, rates.choose(head, held, TASK, loss, settings, *order(len(held.targets)))


def alone(held: Rows, one: Setting, loss: Loss, own: Tensor) -> nn.Linear:
    """A head fitted to its own rows by a plain loop of torch."""
    head: Any = TASK.head(held.features.shape[1], True)
    groups = [{"params": [head.weight], "weight_decay": one.weight_decay}, {"params": [head.bias]}]
    rule = torch.optim.SGD(groups, lr=one.lr, momentum=one.momentum)
    for index, factor in zip(*order(len(own)), strict=True):
        for group in rule.param_groups:
            group["lr"] = one.lr * factor
        seen = torch.tensor(index)[own[index]]
        rule.zero_grad()
        TASK.loss(head(held.features[seen]), held.targets[seen], loss).mean().backward()
        rule.step()
    return head


LOSSES = {"plain": Loss(), "balance": Loss(balance=1.0), "smooth": Loss(smoothing=0.1)}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("near", [1, 2**19], ids=["one by one", "at once"])
def test_loops_choose_the_same(loss: Loss, near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "NEAR", near)
    held = rows_of(TASK.head(12, True), *rows(), TASK, loss, names(150), 0)
    head, found = choose(held, loss)
    expected = []
    for place, one in enumerate(SETTINGS):
        made = torch.empty(150, 3)
        with torch.no_grad():
            for fold in range(5):
                out = held.folds == fold
                with torch.enable_grad():
                    left = alone(held, one, loss, ~out)
                made[out] = left(held.features[out])
        lost = float(TASK.loss(made, held.targets, dataclasses.replace(loss, smoothing=0.0)).mean())
        expected.append((-float((made.argmax(1) == held.targets).double().mean()), lost, place))
    score, _, place = min(expected)
    assert (found.setting, found.score) == (SETTINGS[place], pytest.approx(-score))
    assert len({one[0] for one in expected}) > 3, "there is something to choose"
    whole = alone(held, found.setting, loss, torch.ones(150, dtype=torch.bool))
    torch.testing.assert_close(head.weight.detach(), whole.weight.detach(), rtol=0, atol=1e-4)
    torch.testing.assert_close(head.bias.detach(), whole.bias.detach(), rtol=0, atol=1e-4)
    assert f"rate {found.setting.lr:g}, momentum {found.setting.momentum:g}" in found.told
    assert "12 settings of SGD by accuracy in 5 folds" in found.told and f"({found.score:.4g})" in found.told


@pytest.mark.parametrize("near", [1, 2**19], ids=["one by one", "at once"])
def test_of_equal_scores_the_lower_loss(near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes so far apart that every rate is right on all rows."""
    monkeypatch.setattr(rates, "NEAR", near)
    y = torch.arange(60) % 3
    held = rows_of(TASK.head(3, True), 4.0 * torch.eye(3)[y], y, TASK, Loss(), names(60), 0)
    _, found = choose(held, settings=[Setting(0.001), Setting(0.1), Setting(0.3, 0.0, 1.0)])
    assert (found.setting, found.score) == (Setting(0.1), 1.0)


def test_of_equal_settings_the_smallest_rate() -> None:
    """Rates so small that no weight moves far enough to be seen in the loss."""
    held = rows_of(TASK.head(12, True), *rows(), TASK, Loss(), names(150), 0)
    _, found = choose(held, settings=[Setting(1e-30), Setting(2e-30), Setting(3e-30)])
    assert found.setting.lr == 1e-30


def test_equal_bits_twice_and_no_bias_where_there_is_none() -> None:
    held = rows_of(TASK.head(12, False), *rows(), TASK, Loss(), names(150), 0)
    (first, one), (second, other) = choose(held), choose(held)
    assert one == other and torch.equal(first.weight, second.weight)
    assert first.bias is None and bool(first.weight.any())


def test_equal_rows_in_several_folds_do_not_flatter() -> None:
    """Labels are noise; each row is there three times: without groups its twins would give it away."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 60, generator=draw).repeat(3, 1), (torch.randperm(40, generator=draw) % 3).repeat(3)
    head = TASK.head(60, True)
    _, grouped = choose(rows_of(head, x, y, TASK, Loss(), [str(i % 40) for i in range(120)], 0))
    _, apart = choose(rows_of(head, x, y, TASK, Loss(), names(120), 0))
    assert grouped.score < 0.6 < apart.score


def test_what_is_not_finite_is_not_chosen() -> None:
    held = rows_of(TASK.head(12, True), *rows(), TASK, Loss(), names(150), 0)
    wild = Setting(1.0, 0.0, 1e9)
    _, found = choose(held, settings=[Setting(0.03), wild])
    assert found.setting.lr == 0.03
    with pytest.raises(Diverged, match="rates from 1 to 1, weight decay 1e\\+09"):
        choose(held, settings=[wild])


# ---------------------------------------------------------------- as a plan


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """27 training and 15 validation pictures of three classes, four stages with 16 features."""
    return places.course(tmp_path_factory.mktemp("rates"))


def facts(course: Course) -> Facts:
    return Facts(places.card(course), survey.backbone(course.view, "f"), course.machine)


def asked(course: Course, **knobs: str) -> Plan:
    given = [("probe.by", "grid"), *((f"probe.{name}", value) for name, value in knobs.items())]
    (plan,) = propose(facts(course), ["probe"], given)
    return plan


def test_a_grid_is_one_step_and_says_what_won(course: Course) -> None:
    plan = asked(course)
    assert (plan.label, plan.optimizer.whole, plan.optimizer.chosen, plan.trunk) == ("probe grid", True, True, 4)
    assert [len(axis) for axis in plan.optimizer.grid] == [13, 2, 2] and plan.phases[0].epochs == 30
    events = list(course.trial(0, plan))
    (step,) = [event for event in events if isinstance(event, Step)]
    (note,) = [event.text for event in events if isinstance(event, Said) and "head chosen" in event.text]
    trial = events[-1].trial  # type: ignore[union-attr]
    assert note in trial.notes and (step.steps, len(trial.curve)) == (1, 1) and "52 settings" in note
    assert trial.score("val").value > 1 / 3
    assert "grid of 52 settings, 32 rows a step; the head is chosen" in dict(plan_terms(plan))["Learning"]


def test_a_grid_that_was_stopped_ends_with_the_same_bits(course: Course, tmp_path: Path) -> None:
    plan = dataclasses.replace(asked(course, epochs="3", batch="9"), loss=Loss(balance=1.0))
    first, second = places.whole_and_stopped(course, plan, tmp_path)
    assert (second.scores, second.notes, second.curve) == (first.scores, first.notes, first.curve)
    assert second.snapshot == first.snapshot, "named after its bytes"


def test_knobs_narrow_it(course: Course) -> None:
    plan = asked(course, lr="0.5", decay="0.25", epochs="7", warmup="0.5", schedule="linear", batch="8")
    (phase,) = plan.phases
    assert plan.optimizer.grid == ((0.5,), (0.0, 0.9), (0.25,)) and plan.batch == 8
    assert (phase.epochs, phase.warmup_frac, phase.schedule) == (7, 0.5, "linear")
    assert asked(course, momentum="0.5").optimizer.grid[1] == (0.5,)


def test_many_rows_take_fewer_epochs(course: Course) -> None:
    given = facts(course)
    card = dataclasses.replace(given.data, rows=(("train", 4800), ("val", 15), ("test", 18)))
    (plan,) = propose(dataclasses.replace(given, data=card), ["probe"], [("probe.by", "grid")])
    assert plan.phases[0].epochs == 10


def test_its_price_counts_all_heads(course: Course) -> None:
    plan, pace = asked(course), Pace(course)
    half = dataclasses.replace(plan.optimizer, grid=(plan.optimizer.grid[0], (0.9,), (0.0, 1e-4)))
    assert 0 < 2 * pace.epoch(dataclasses.replace(plan, optimizer=half)) == pytest.approx(pace.epoch(plan))
    assert shortened(plan, 4, 4).phases[0].epochs == 4, "it can be cut to a budget"


def test_it_reads_the_trunk_as_a_fit_in_one_step_does(course: Course) -> None:
    trunks = dataclasses.replace(course).trunks
    trunks.expect([asked(course)])
    assert trunks._passes == {"native/4": 2}, "training rows once, validation once"


def test_numbers_have_no_grid(course: Course) -> None:
    given = facts(course)
    target = dataclasses.replace(given.data.target, kind="number")
    given = dataclasses.replace(given, data=dataclasses.replace(given.data, target=target))
    with pytest.raises(UsageError, match=r"--probe\.by grid for \w+, .* 'number' · .*one class for each row.*by path"):
        propose(given, ["probe"], [("probe.by", "grid")])


def test_knobs_that_it_does_not_have_are_refused(course: Course) -> None:
    with pytest.raises(UsageError, match=r"--probe\.patience, --probe\.clip with --probe\.by grid"):
        asked(course, clip="0.5", patience="3")
