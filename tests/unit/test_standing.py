"""Standings: one line per plan and rung, told before the event that changes it, and the same race underneath."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft.planner.course import Course
from regraft.planner.standing import standings
from regraft.waist import Budget, Event, Finished, Raced, Said, Scored, Standing
from tests import places
from tests.unit.test_race import content, race, run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("standing"))


def test_every_plan_ends_in_a_state_that_its_trial_bears_out(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path / "told", Budget(trials=5), ("probe", "partial", "full"))
    events: list[Event] = list(standings(made))
    rows = {(e.number, e.rung): e for e in events if isinstance(e, Standing)}
    last = {e.number: e for e in events if isinstance(e, Standing)}
    for trial in made.trials:
        row = last[made.plans.index(trial.plan)]
        assert row.state == ("lost" if trial.stopped else "finished") and row.label == trial.label
        assert row.seconds == trial.cost.seconds and row.score is not None
        assert row.score.low <= row.score.value <= row.score.high
        if trial.whole:
            assert row.score == trial.score("val")
    left = {e.number for e in last.values() if e.state == "left out"}
    assert left == {made.plans.index(one.plan) for one in made.skipped} and left
    assert {row.state for row in rows.values()} <= {"paused", "lost", "finished", "left out"}, "nothing runs at the end"
    paused = [number for (number, rung), row in rows.items() if row.state == "paused"]
    assert paused and all((number, 0) in rows for number in paused), (
        "who was paused and goes on has a row for each rung"
    )
    assert all(row.forecast_s > 0 for row in rows.values() if row.state != "left out")
    assert isinstance(events[-1], Raced)
    same = race(base, tmp_path / "plain", Budget(trials=5), ("probe", "partial", "full"))
    assert content(run(same)) == content(made.trials)


def test_a_standing_comes_before_what_it_is_about(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(trials=2), ("probe", "full"))
    running: Standing | None = None
    for event in standings(made):
        if isinstance(event, Standing):
            running = event if event.state == "runs" else running
        elif isinstance(event, Said) and event.text[:1].isdigit():
            assert running is not None and event.text.startswith(f"{running.number + 1}/")
        elif isinstance(event, Scored):
            assert running is not None and running.score is not None
            assert running.score.value >= event.epoch.metric, "the best so far"
        elif isinstance(event, Finished):
            assert running is not None


def test_closing_it_pauses_the_race(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(trials=1), ("probe",))
    work = standings(made)
    next(event for event in work if isinstance(event, Scored))
    work.close()
    assert made.trials == [] and len(made.course.curve(0, made.plans[0])) >= 1
