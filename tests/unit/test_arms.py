"""Rivals of a leader that differ in the loss alone: which there are and when; a race with them, stopped and not."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from regraft.kit import shelf
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.arms import arms, uneven, wrong_labels
from regraft.planner.clock import Clock
from regraft.planner.course import Course
from regraft.planner.pick import Field
from regraft.planner.propose import propose
from regraft.planner.race import Race
from regraft.waist import Budget, Facts, Finished, Loss, Optimizer, Phase, Plan, Said, Target, Task, Trial
from tests import places

LONG_TAILED = Target("y", "class", ("a", "b"), (90, 10), ordered=True)
PLAN = Plan("full", (Phase(3, 0, ()),), (("lr", 0.1),), loss=Loss(balance=0.5))
FREE = Budget()
BOTH = ("balance 1", "adjust 1", "sampling balanced", "robust 0.7")


def task(name: str, target: Target = LONG_TAILED, metric: str = "") -> Task:
    made: Task = shelf.find("tasks", name).make(target, metric)
    return made


def labels(plan: Plan, of: Task, rare: bool = True, wrong: float = 0.3) -> list[str]:
    return [one.label.removeprefix(plan.label).strip() for one in arms(plan, of, rare, wrong)]


def test_every_arm_has_one_way_of_its_own() -> None:
    found = arms(PLAN, task("classify"), True, 0.3)
    assert [(one.loss, one.sampling) for one in found] == [
        (Loss(balance=1.0), 0.0),
        (Loss(adjust=1.0), 0.0),
        (Loss(), 1.0),
        (Loss(smoothing=0.1, balance=0.5, robust=0.7), 0.0),
    ]
    assert all(dataclasses.replace(one, loss=PLAN.loss, sampling=0.0, knobs=PLAN.knobs) == PLAN for one in found)


@pytest.mark.parametrize(
    ("change", "of", "wanted"),
    [
        ({}, "classify", BOTH),
        ({}, "ordinal", BOTH[:3]),
        ({"optimizer": Optimizer("lbfgs")}, "classify", ("balance 1", "adjust 1", "robust 0.7")),
        ({"optimizer": Optimizer("path")}, "classify", ("balance 1",)),
        ({"phases": (Phase(0, 4, ()),)}, "classify", ()),
        ({"loss": Loss(focal=2.0)}, "classify", ()),
        ({"sampling": 0.5}, "classify", ()),
        ({"knobs": (("balance", 0.5),)}, "classify", ()),
    ],
)
def test_what_is_not_taken_or_said_already_has_no_arm(
    change: dict[str, object], of: str, wanted: tuple[str, ...]
) -> None:
    assert labels(dataclasses.replace(PLAN, **change), task(of)) == [*wanted]  # type: ignore[arg-type]


def test_there_are_none_where_nothing_asks_for_them() -> None:
    assert labels(PLAN, task("classify"), rare=False, wrong=0.09) == []
    assert labels(PLAN, task("classify"), rare=False, wrong=0.1) == ["robust 0.7"]
    equal = dataclasses.replace(LONG_TAILED, counts=(50, 50))
    assert uneven(LONG_TAILED, task("classify")) and not uneven(LONG_TAILED, task("classify", metric="accuracy"))
    assert not uneven(equal, task("classify", equal))


# ---------------------------------------------------------------- in a race


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """Texts of three classes, of which one has a sixth of the others' rows."""
    tmp = tmp_path_factory.mktemp("arms")
    lines = (places.texts(tmp / "data") / "train.csv").read_text("utf-8").splitlines()
    blue = [line for line in lines if line.endswith(",blue")]
    (tmp / "data/train.csv").write_text("\n".join(line for line in lines if line not in blue[2:]) + "\n", "utf-8")
    return places.text_course(tmp)


def race(base: Course, folder: Path, budget: Budget = FREE, rare: bool = True, first: str = "") -> Race:
    course = dataclasses.replace(base, folder=Folder(folder))
    facts = Facts(places.card(course), survey.backbone(course.view, "mark"), course.machine)
    names = [first, "probe"] if first else ["probe"]
    plans = propose(facts, names, [("probe.epochs", "2"), ("probe.lr", "0.01")], 0.5, raced=True)
    plans = plans[: 1 + next(i for i, plan in enumerate(plans) if plan.strategy == "probe")]
    return Race(course, plans, budget, Clock(Folder(folder), 0.0, time.monotonic()), named=False, rare=rare)


def run(made: Race) -> list[tuple[object, ...]]:
    for _ in made.run():
        pass
    return content(made.trials)


def content(trials: list[Trial]) -> list[tuple[object, ...]]:
    return [(t.plan, t.scores, t.curve, t.snapshot) for t in trials]


def test_the_leader_meets_its_arms_and_a_stopped_race_goes_on_among_them(base: Course, tmp_path: Path) -> None:
    whole = race(base, tmp_path / "whole")
    told = [event.text for event in whole.run() if isinstance(event, Said)]
    assert [t.label.split(" ", 3)[-1] for t in whole.trials[1:4]] == [f"{name} (mean)" for name in BOTH[:3]]
    assert any("is trained again in 3 other ways" in text for text in told)
    assert len(whole.plans) == 4 and len(whole.trials) == 4
    stopped, ended = race(base, tmp_path / "stopped"), 0
    work = stopped.run()
    for event in work:
        ended += isinstance(event, Finished)
        if ended == 2:
            work.close()
            break
    assert run(race(base, tmp_path / "stopped")) == content(whole.trials)


def test_a_budget_of_trials_holds_and_without_leave_there_are_no_arms(base: Course, tmp_path: Path) -> None:
    assert len(run(race(base, tmp_path / "three", Budget(trials=3)))) == 3
    assert len(run(race(base, tmp_path / "none", rare=False))) == 1


def test_where_a_plan_that_trains_nothing_leads_the_best_that_does_has_arms(
    base: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = race(base, tmp_path / "asis", Budget(trials=4), first="asis")
    values = Field.__init__

    def leading(self: Field, *given: Any) -> None:
        values(self, *given)
        self.values |= {i: 2.0 for i, trial in enumerate(self.trials) if trial.plan.strategy == "asis"}

    monkeypatch.setattr(Field, "__init__", leading)
    run(made)
    assert [t.plan.strategy for t in made.trials] == ["asis", "asis", "probe", "probe"]
    assert made.trials[-1].label.startswith(made.trials[2].label.removesuffix(" (mean)") + " balance 1")


@pytest.mark.parametrize(("flipped", "low", "high"), [(0.0, 0.0, 0.1), (0.3, 0.15, 0.45)])
def test_wrong_labels_are_estimated_from_features_that_are_there(
    tmp_path: Path, flipped: float, low: float, high: float
) -> None:
    lines = (places.texts(tmp_path / "data", train=360) / "train.csv").read_text("utf-8").splitlines()
    after = dict(zip(places.LABELS, (*places.LABELS[1:], places.LABELS[0]), strict=True))
    for i in range(1, int(flipped * 361)):
        text, label = lines[i].rsplit(",", 1)
        lines[i] = f"{text},{after[label]}"
    (tmp_path / "data/train.csv").write_text("\n".join(lines) + "\n", "utf-8")
    course = places.text_course(tmp_path)
    assert wrong_labels(course, []) == 0.0
    trial = places.finish(course, places.plan(course, "probe", epochs=1, batch=90))
    found = wrong_labels(course, [trial])
    assert low <= found <= high and Folder(course.folder.path).made("noise", float, trial.plan) == found
    assert wrong_labels(dataclasses.replace(course, cached=False), [trial]) == 0.0
