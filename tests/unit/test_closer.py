"""A leader once more, held close to its start: for few rows, and within its share of a race."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from regraft.kit.store import Folder
from regraft.planner import after
from regraft.planner import closer as closers
from regraft.planner.closer import CLOSE, closer
from regraft.planner.course import Course
from regraft.planner.standing import standings
from regraft.waist import Budget, Said, Standing, Step
from tests import places
from tests.unit.test_race import content, race, run


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("closer"))


@pytest.mark.parametrize(("spent", "left", "epochs"), [(200, 200, 20), (60, 60, 15), (60, 12, 12), (40, 40, 10)])
def test_its_epochs_are_a_quarter_of_the_races_and_within_the_budget(
    course: Course, spent: int, left: int, epochs: int
) -> None:
    lead = places.plan(course, "full")
    made = closer(course, lead, spent, left)
    assert made is not None and made.regularise == CLOSE and sum(phase.epochs for phase in made.phases) == epochs
    assert dataclasses.replace(made, regularise=(), phases=lead.phases) == lead


def test_where_there_is_no_room_or_no_need_there_is_none(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    lead = places.plan(course, "full")
    assert closer(course, lead, 39, 100) is None and closer(course, lead, 100, 9) is None
    assert closer(course, places.plan(course, "full", bss=0.1), 100, 100) is None
    assert closer(course, places.plan(course, "lora", last=1), 100, 100) is None
    monkeypatch.setattr(closers, "FEW", 26)
    assert closer(course, lead, 100, 100) is None, "27 rows are more than few"


@pytest.mark.parametrize("how", ["free", "named", "trials", "clock"])
def test_a_race_runs_its_leader_once_more(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(closers, "SHARE", 0.5)
    monkeypatch.setattr(after, "blend", lambda *_: iter(()))
    monkeypatch.setattr(after, "mates", lambda *_: [])
    budget = {"trials": Budget(trials=3), "clock": Budget(seconds=3600.0)}.get(how, Budget(epochs=30))
    made = race(dataclasses.replace(course, folder=Folder(tmp_path)), tmp_path, budget, ("full",))
    made.named = how == "named"
    if how == "clock":
        epoch = made.pace.epoch
        made.pace.epoch = lambda plan: 1e6 if plan.regularise else epoch(plan)  # type: ignore[method-assign]
    events = list(standings(made))
    close = [trial for trial in made.trials if trial.plan.regularise]
    assert len(close) == (how == "free")
    if close:
        spent = sum(len(trial.curve) for trial in made.trials if trial not in close)
        assert 0 < len(close[0].curve) <= spent / 2 and close[0].label.endswith("l2sp 0.1 ema 0.98")
        last = {event.number: event for event in events if isinstance(event, Standing)}
        assert [row.label for row in last.values() if row.state == "finished"][-1] == close[0].label
    told = [event.text for event in events if isinstance(event, Said)]
    assert any("is not trained again close to its start: the clock" in text for text in told) == (how == "clock")


def test_a_race_killed_meanwhile_goes_on_with_it(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closers, "SHARE", 0.5)
    made = []
    for name in ("whole", "killed"):
        folder = Folder(tmp_path / name)
        again = race(dataclasses.replace(course, folder=folder), folder.path, Budget(epochs=30), ("full",))
        again.named = False
        if name == "killed":
            work = again.run()
            while again.running is None or not again.running[1].regularise:
                next(work)
            next(event for event in work if isinstance(event, Step))
            work.close()
            again = race(again.course, folder.path, Budget(epochs=30), ("full",))
            again.named = False
        made.append(run(again))
    assert content(made[0]) == content(made[1]) and any(trial.plan.regularise for trial in made[0])
