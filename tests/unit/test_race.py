"""A race: the same on every run, whole after any stop, losers ended early, everything that was left out named."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from regraft.engine.snapshot import Keeper
from regraft.errors import Diverged
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.clock import Clock
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.race import Race
from regraft.waist import Account, Budget, Facts, Finished, Optimizer, Plan, Said, Trial
from tests import places

KNOBS = (
    *(("probe.epochs", "6"), ("partial.epochs", "4"), ("partial.depth", "1"), ("full.epochs", "4")),
    *(("scratch.epochs", "3"), ("gradual.epochs", "3"), ("layerwise.epochs", "3")),
)
NAMES = ("asis", "full", "gradual", "layerwise", "partial", "probe", "scratch")
MEASURED = {"seconds", "notes", "saved", "kwh"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("race"))


def race(base: Course, folder: Path, budget: Budget, names: tuple[str, ...] = NAMES, begun: float = 0.0) -> Race:
    course = dataclasses.replace(base, folder=Folder(folder))
    facts = Facts(places.card(course), survey.backbone(course.view, "mark"), course.machine)
    knobs = [knob for knob in KNOBS if knob[0].split(".")[0] in names]
    plans = propose(facts, names, knobs, raced=True)
    clock = Clock(course.folder, budget.seconds, time.monotonic() - begun, budget.kwh)
    return Race(course, plans, budget, clock, named=names != NAMES)


def run(made: Race) -> list[Trial]:
    for _ in made.run():
        pass
    return made.trials


def content(trials: list[Trial]) -> list[tuple[object, ...]]:
    """All of a trial but what was measured by a clock."""
    return [(t.plan, t.scores, t.curve, t.snapshot, t.stopped, t.calibration) for t in trials]


def told(account: Account) -> dict[str, object]:
    return {f.name: getattr(account, f.name) for f in dataclasses.fields(account) if f.name not in MEASURED}


@pytest.mark.parametrize("budget", [Budget(trials=9), Budget(epochs=12)], ids=["trials", "epochs"])
def test_a_race_is_the_same_on_every_run(base: Course, tmp_path: Path, budget: Budget) -> None:
    first, second = race(base, tmp_path / "a", budget), race(base, tmp_path / "b", budget)
    assert content(run(first)) == content(run(second)) and len(first.trials) >= 5
    assert told(first.account) == told(second.account)
    if budget.trials:
        assert len(first.trials) == 9
    else:
        assert 0 < first.account.epochs <= 12
    assert first.account.skipped and all(one.why for one in first.account.skipped)


def test_a_race_stopped_anywhere_goes_on_as_if_never_stopped(base: Course, tmp_path: Path) -> None:
    budget = Budget(trials=7)
    whole = race(base, tmp_path / "whole", budget)
    events = sum(1 for _ in whole.run())
    for stop in range(1, events, 23):
        place = tmp_path / f"stopped-{stop}"
        work = race(base, place, budget).run()
        for _, _ in zip(range(stop), work, strict=False):
            pass
        work.close()  # type: ignore[attr-defined]
        ended = {path: path.read_bytes() for path in place.rglob("trial.json")}
        again = race(base, place, budget)
        assert content(run(again)) == content(whole.trials), f"stopped after {stop} of {events} events"
        assert all(path.read_bytes() == held for path, held in ended.items()), "a finished trial was run again"


def test_paused_plans_wait_in_memory_and_all_is_as_if_each_was_written(
    base: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    save = Keeper.save
    monkeypatch.setattr(Keeper, "save", lambda own, *given: (written.append(own.folder), save(own, *given)))
    waits, writes = (race(base, tmp_path / name, Budget(trials=9)) for name in ("waits", "writes"))
    assert run(waits) and not written
    writes.course.every_s = 0.0
    assert content(run(writes)) == content(waits.trials) and written


def test_rates_compete_and_the_loser_is_ended_early(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(), ("full",))
    trials = run(made)
    assert [t.whole for t in trials].count(True) == 1 and len(trials) == 3
    best = next(t for t in trials if t.whole)
    assert not best.stopped and len(best.curve) == 4
    for lost in (t for t in trials if not t.whole):
        assert len(lost.curve) == 2 and f"{best.label} was ahead after 2 epochs" == lost.stopped
        assert min(e.val_loss for e in lost.curve) >= min(e.val_loss for e in best.curve[:2])


def wild(plan: Plan) -> Plan:
    """The plan at a rate at which its loss is no number after a step."""
    return dataclasses.replace(plan, optimizer=Optimizer("sgd", 1e38, clip=0.0))


def test_a_rate_that_diverges_is_left_out_and_the_others_go_on(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(), ("full",))
    made.plans[0] = wild(made.plans[0])
    trials = run(made)
    assert len(trials) == len(made.plans) - 1 and any(trial.whole for trial in trials)
    (gone,) = made.account.skipped
    assert gone.plan == made.plans[0] and gone.why.startswith("the loss is not finite at step")


def test_a_race_in_which_all_diverge_ends_with_the_error_of_the_first(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(), ("full",))
    made.plans = [wild(made.plans[0])]
    with pytest.raises(Diverged, match=r"loss is not finite .* lower the rate"):
        run(made)


def test_a_budget_that_is_spent_still_gives_one_model_and_says_what_it_left_out(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(seconds=30.0), begun=60.0)
    events = list(made.run())
    (trial,) = made.trials
    assert trial.whole and trial.plan == made.plans[0] and any(isinstance(e, Finished) for e in events)
    assert {one.plan for one in made.account.skipped} == set(made.plans[1:])
    assert any("left out" in e.text and "s that are left" in e.text for e in events if isinstance(e, Said))


def test_what_a_clock_decided_is_replayed(base: Course, tmp_path: Path) -> None:
    """The second sitting begins with its time spent, yet runs what the first one had decided to run."""
    first = race(base, tmp_path, Budget(seconds=3600.0), ("probe",))
    work = first.run()
    next(event for event in work if type(event).__name__ == "Scored")
    work.close()  # type: ignore[attr-defined]
    again = race(base, tmp_path, Budget(seconds=3600.0), ("probe",), begun=3590.0)
    trials = run(again)
    assert trials and {t.plan for t in trials} <= set(first.plans), "epochs as decided"


def test_a_clock_that_runs_out_keeps_the_best_epoch(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(seconds=3600.0), ("asis", "full"))
    for event in made.run():
        if type(event).__name__ == "Scored" and made.clock.reserve_s < 3600.0:
            made.clock.reserve_s += 3600.0
    assert any(t.whole and t.stopped == "the clock ended it" for t in made.trials)


def test_a_perfect_score_on_many_rows_ends_the_race(base: Course, tmp_path: Path) -> None:
    made = race(base, tmp_path, Budget(trials=30))
    trials = run(made)
    names = {t.plan.strategy for t in trials}
    perfect = [t for t in trials if t.whole and t.score("val").value == 1.0]
    few = len(made.course.data.val) < 200
    assert not perfect or few, "with few rows a score of 1 proves nothing"
    assert "full" in names and "scratch" in names


def plans_of(names: tuple[str, ...], base: Course) -> list[Plan]:
    facts = Facts(places.card(base), survey.backbone(base.view, "mark"), base.machine)
    return propose(facts, names, (), raced=True)


def test_the_cheapest_come_first(base: Course) -> None:
    order = [plan.strategy for plan in plans_of(NAMES, base)]
    first = list(dict.fromkeys(order))
    assert first[:2] == ["scratch", "asis"] and first.index("probe") < first.index("partial") < first.index("full")
    assert plans_of(NAMES, base)[-1].init == "random"
