"""Energy is counted where the processor counts it, estimated where not, and a race keeps to what it may draw."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import pytest

from regraft.kit.store import Folder
from regraft.planner import energy
from regraft.planner.clock import Clock
from regraft.planner.course import Course
from regraft.planner.energy import Drawn, Energy
from regraft.waist import Budget, Finished, Said
from tests import places
from tests.unit.test_race import race


class Fake:
    """A clock and a counter that go on when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, joules: float | None = 1000.0) -> None:
        self.now, self.joules = 100.0, joules
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def count(self) -> float | None:
        return self.joules

    def go(self, seconds: float, joules: float) -> None:
        self.now += seconds
        self.joules = (self.joules or 0.0) + joules


def test_what_counters_say_is_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch)
    made = Energy(Folder(tmp_path), 0.01, fake.now, fake.count)
    made.watts = 5.0
    fake.go(10.0, 300.0)
    assert (made.spent(), made.power(), made.metered) == (300.0, 30.0, True)
    assert made.left_s() == pytest.approx((36_000 - 300) / 30)
    fake.go(0.5, 15.0)
    assert made.spent() == 302.5, "between two readings it is assumed"


def test_counters_that_start_over_take_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch)
    made = Energy(Folder(tmp_path), 0.01, fake.now, fake.count)
    made.watts = 5.0
    fake.go(10.0, 300.0)
    made.spent()
    fake.go(2.0, -1290.0)
    assert made.spent() == 310.0
    fake.go(10.0, 400.0)
    assert made.spent() == 710.0


def test_what_came_before_the_counters_were_read_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch)
    made = Energy(Folder(tmp_path), 0.01, fake.now - 4.0, fake.count)
    made.watts = 10.0
    assert made.spent() == 40.0


def test_without_counters_power_is_assumed_and_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, None)
    made = Energy(Folder(tmp_path), 0.001, fake.now, fake.count)
    made.watts = 20.0
    fake.now += 30.0
    assert (made.spent(), made.metered, made.left_s()) == (600.0, False, (3600 - 600) / 20)


def test_it_goes_on_over_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch)
    first = Energy(Folder(tmp_path), 0.01, fake.now, fake.count)
    fake.go(10.0, 300.0)
    first.write()
    assert Folder(tmp_path).load(energy.NAME, Drawn) == Drawn(300.0, True)
    fake.joules = None
    second = Energy(Folder(tmp_path), 0.01, fake.now, fake.count)
    assert second.spent() == 300.0 and not second.metered
    second.write()
    fake.joules = 5.0
    assert not Energy(Folder(tmp_path), 0.01, fake.now, fake.count).metered, "a part of it stays estimated"


def test_without_a_bound_it_lasts(tmp_path: Path) -> None:
    clock = Clock(Folder(tmp_path), 0.0, time.monotonic())
    assert clock.energy.left_s() == math.inf == clock.left() and not clock.bounded and clock.whole() == 0.0


def test_a_clock_is_bound_by_whichever_ends_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, None)
    clock = Clock(Folder(tmp_path), 100.0, fake.now, kwh=1000 / 3.6e6)
    clock.energy = Energy(Folder(tmp_path), 1000 / 3.6e6, fake.now, fake.count)
    clock.energy.watts, clock.reserve_s = 20.0, 5.0
    assert (clock.left(), clock.whole()) == (45.0, 50.0) and clock.bounded
    assert clock.allows(60.0) and not clock.allows(61.0), "105 % and 8 s"
    clock.energy.watts = 1.0
    assert clock.left() == 95.0 and clock.allows(112.0) and not clock.allows(114.0)


# ---------------------------------------------------------------- in a race


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("energy"))


def test_energy_that_is_spent_still_gives_one_model_and_says_what_it_left_out(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(kwh=0.001))
    made.clock.energy = Energy(made.course.folder, 0.001, time.monotonic() - 3600.0, lambda: None)
    events = list(made.run())
    (trial,) = made.trials
    assert trial.whole and {one.plan for one in made.account.skipped} == set(made.plans[1:])
    assert any("left out" in e.text and "s that are left" in e.text for e in events if isinstance(e, Said))
    account = made.account
    assert not account.metered and account.kwh is not None and account.kwh > 0.0124


def test_energy_that_runs_out_keeps_the_best_epoch(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(kwh=1.0), ("asis", "full"))
    made.clock.energy = Energy(made.course.folder, 1.0, time.monotonic(), lambda: None)
    for event in made.run():
        if type(event).__name__ == "Scored":
            made.clock.energy.begun = -1e9
    assert any(t.whole and t.stopped == "the clock ended it" for t in made.trials)


def test_enough_energy_changes_nothing(base: Course, tmp_path: Path) -> None:
    free, bound = (race(base, tmp_path / name, Budget(), ("probe",)) for name in ("free", "bound"))
    bound.clock.energy = Energy(bound.course.folder, 1e6, time.monotonic(), lambda: None)
    one, other = ([e.trial for e in made.run() if isinstance(e, Finished)] for made in (free, bound))
    assert [(t.plan, t.scores) for t in one] == [(t.plan, t.scores) for t in other]


def test_what_was_drawn_stands_in_the_account_and_is_said(base: Course) -> None:
    from regraft.deliver.words import drawn

    made = race(base, base.folder.path, Budget(kwh=0.5), ("probe",))
    account = dataclasses.replace(made.account, kwh=0.25, metered=True)
    assert drawn(account) == "0.25 kWh (by the processor)" and made.account.budget == Budget(kwh=0.5)
