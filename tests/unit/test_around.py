"""Around a leader: one knob at a time, the user's left alone; a rival goes on where it is ahead of the leader."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from regraft.planner import survey
from regraft.planner.around import around
from regraft.planner.clock import Clock
from regraft.planner.course import Course
from regraft.planner.race import Race
from regraft.waist import Budget, Facts, Plan
from tests import places


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return places.course(tmp_path)


def facts(course: Course) -> Facts:
    return Facts(places.card(course), survey.backbone(course.view, "mark"), course.machine)


def test_one_knob_is_changed_at_a_time_and_all_else_is_kept(course: Course) -> None:
    plan = places.plan(course, "partial", lr=3e-4, epochs=6)
    given = facts(course)
    found = around(plan, given, (("partial.epochs", "6"),))
    assert [one.label for one in found] == [
        "partial depth 4 lr 0.0003",
        "partial depth 1 lr 0.0003",
        "partial depth 2 lr 0.0003 with augment flip",
    ]
    assert {one.optimizer.lr for one in found} == {3e-4} and {one.phases[0].epochs for one in found} == {6}
    assert [one.views for one in found] == [1, 1, 2] and len({one.phases[0].frontier for one in found}) == 3


def test_what_the_user_set_and_what_others_changed_is_kept(course: Course) -> None:
    given, asked = facts(course), (("partial.depth", "2"), ("partial.epochs", "6"))
    plan = places.plan(course, "partial", depth=2, epochs=6)
    drawn = dataclasses.replace(plan, sampling=1.0, loss=dataclasses.replace(plan.loss, balance=0.5))
    found = around(drawn, given, asked)
    assert [dict(one.knobs)["with"] for one in found] == ["augment flip", "decay 0.1"]
    assert {(one.sampling, one.loss.balance) for one in found} == {(1.0, 0.5)}
    assert found[1].optimizer.weight_decay == 0.1 and plan.optimizer.weight_decay == 0.01


def test_ways_of_a_strategy_are_kept_and_heads_have_none(course: Course) -> None:
    given = facts(course)
    plan = places.plan(course, "gradual", by="unfreeze", epochs=6)
    assert {dict(one.knobs)["by"] for one in around(plan, given, ())} == {"unfreeze"}
    assert around(places.plan(course, "probe"), given, ()) == []


def raced(course: Course, plans: list[Plan], rivals: list[Plan], budget: Budget) -> Race:
    race = Race(course, plans, budget, Clock(course.folder, 0.0, 0.0), named=False, around=lambda _: rivals)
    for _ in race.run():
        pass
    return race


@pytest.mark.parametrize("good", [True, False])
def test_a_rival_goes_on_only_where_it_is_ahead_of_the_leader(course: Course, good: bool) -> None:
    slow, fast = (places.plan(course, "full", lr=lr, epochs=6) for lr in (1e-7, 3e-3))
    lead, rival = (slow, fast) if good else (fast, slow)
    other = dataclasses.replace(slow, knobs=(*slow.knobs, ("with", "nothing")))
    race = raced(course, [lead], [rival, other], Budget())
    first, *others = [trial for trial in race.trials if trial.plan in (lead, rival, other)]
    assert first.plan == lead and len(others) == 2
    found = {trial.plan: trial for trial in others}
    assert found[rival].whole is good and len(found[rival].curve) == (6 if good else 2)
    assert not found[other].whole and "was ahead after 2 epochs" in found[other].stopped


@pytest.mark.parametrize(("budget", "many"), [(Budget(trials=2), 1), (Budget(epochs=10), 0), (Budget(epochs=12), 1)])
def test_rivals_keep_to_the_budget(course: Course, budget: Budget, many: int) -> None:
    lead, *some = (places.plan(course, "full", lr=lr, epochs=6) for lr in (3e-3, 1e-7, 1e-6))
    race = raced(course, [lead], some, budget)
    assert len([trial for trial in race.trials if trial.plan in some]) == many
    assert race.account.epochs <= (budget.epochs or 99)


def test_a_leader_that_ended_before_its_rivals_do_is_held_against_all_of_its_epochs(course: Course) -> None:
    lead, rival = (places.plan(course, "full", lr=lr, epochs=9) for lr in (3e-3, 1e-7))
    (phase,) = lead.phases
    short = dataclasses.replace(lead, phases=(dataclasses.replace(phase, stop=1),))
    race = raced(course, [short], [rival], Budget())
    assert [len(trial.curve) for trial in race.trials if trial.plan in (short, rival)] == [1, 3]
