"""Trials of earlier runs are taken over where all that they follow from is equal, and nowhere else."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.clock import Clock
from regraft.planner.course import Course
from regraft.planner.earlier import NOTE
from regraft.planner.propose import propose
from regraft.planner.race import Race
from regraft.waist import Budget, Facts, Room, Step, Trial
from tests import places

KNOBS = (("probe.epochs", "4"), ("partial.epochs", "4"), ("partial.depth", "1"), ("full.epochs", "4"))
FIRST, MORE = ("probe", "full"), ("asis", "probe", "partial", "full")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("earlier"))


def race(base: Course, folder: Path, names: tuple[str, ...], **changed: Any) -> Race:
    course = dataclasses.replace(base, **{"folder": Folder(folder), "mark": "model", "takes": True} | changed)
    facts = Facts(places.card(course), survey.backbone(course.view, "mark"), course.machine)
    knobs = [knob for knob in KNOBS if knob[0].split(".")[0] in names]
    plans = propose(facts, names, knobs, raced=True)
    return Race(course, plans, Budget(), Clock(course.folder, 0.0, time.monotonic()), named=True)


def run(made: Race) -> tuple[list[Trial], int]:
    """The trials, and how many steps were taken for them."""
    steps = sum(isinstance(event, Step) for event in made.run())
    return made.trials, steps


def content(trials: list[Trial]) -> list[tuple[object, ...]]:
    """All of a trial but what a clock measured and where it came from."""
    said = [tuple(note for note in t.notes if not note.startswith(NOTE)) for t in trials]
    files = [(t.snapshot, t.predictions) for t in trials]
    kept = [dataclasses.replace(t, cost=None, notes=()) for t in trials]  # type: ignore[arg-type]
    return list(zip(kept, said, files, strict=True))


def files(folder: Path) -> dict[str, bytes]:
    """Weights and predictions of a run by their paths in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("trials/*/*.safetensors"))}


def taken(trials: list[Trial]) -> list[str]:
    return [trial.label for trial in trials if any(note.startswith(NOTE) for note in trial.notes)]


def test_a_strategy_more_trains_only_that_and_ends_as_a_run_of_all(base: Course, tmp_path: Path) -> None:
    first, _ = run(race(base, tmp_path / "runs/first", FIRST))
    alone, all_steps = run(race(base, tmp_path / "alone/more", MORE))
    trials, steps = run(race(base, tmp_path / "runs/more", MORE))
    _, partial = run(race(base, tmp_path / "partial/more", ("partial",)))
    assert content(trials) == content(alone)
    assert files(tmp_path / "runs/more") == files(tmp_path / "alone/more")
    assert 0 < steps == partial < all_steps
    assert set(taken(trials)) == {t.label for t in first if t.whole}, "losers are told of, not run"
    again, none = run(race(base, tmp_path / "runs/third", MORE))
    assert none == 0 and content(again) == content(alone), "what was taken over is taken over"


@pytest.mark.parametrize("what", ["seed", "model", "label", "row", "machine", "memory", "fresh", "uncached", "no mark"])
def test_nothing_is_taken_where_anything_differs(base: Course, tmp_path: Path, what: str) -> None:
    run(race(base, tmp_path / "first", ("probe",)))
    data, changed = base.data, {}
    if what in ("label", "row"):
        row, other = data.train[0], next(r for r in data.train if r.y != data.train[0].y)
        new = dataclasses.replace(row, y=other.y) if what == "label" else dataclasses.replace(row, key="0" * 64)
        changed["data"] = dataclasses.replace(data, train=[new, *data.train[1:]])
    changed |= {
        "seed": {"seed": 1},
        "model": {"mark": "another"},
        "machine": {"machine": dataclasses.replace(base.machine, processor="another")},
        "fresh": {"takes": False},
        "uncached": {"cached": False},
        "no mark": {"mark": ""},
    }.get(what, {})
    made = race(base, tmp_path / "second", ("probe",), **changed)
    if what == "memory":
        made.course.folder.write("room", Room(base.machine.micro_batch, 2))
        made.course.settle()
    trials, steps = run(made)
    assert steps > 0 and not taken(trials)
    assert all(bool(trial.address) == (what not in ("machine", "memory", "no mark")) for trial in trials)


def test_what_was_damaged_or_removed_there_is_made_anew(base: Course, tmp_path: Path) -> None:
    first, _ = run(race(base, tmp_path / "first", ("probe",)))
    whole = next(trial for trial in first if trial.whole)
    place = tmp_path / "first" / whole.snapshot
    place.write_bytes(place.read_bytes()[:-1] + b"!")
    trials, steps = run(race(base, tmp_path / "second", ("probe",)))
    assert steps > 0 and not taken(trials) and content(trials) == content(first)
    (tmp_path / "second" / whole.snapshot).unlink()
    trials, steps = run(race(base, tmp_path / "third", ("probe",)))
    assert steps > 0 and not taken(trials) and content(trials) == content(first)


def test_what_has_begun_is_taken_over_too_and_leaves_no_snapshot(base: Course, tmp_path: Path) -> None:
    begun = race(base, tmp_path / "second", ("probe",))
    work = begun.run()
    next(event for event in work if isinstance(event, Step))
    work.close()  # type: ignore[attr-defined]
    assert list((tmp_path / "second").rglob("*.snapshot"))
    first, _ = run(race(base, tmp_path / "first", ("probe",)))
    trials, steps = run(race(base, tmp_path / "second", ("probe",)))
    assert steps == 0 and content(trials) == content(first) and not list((tmp_path / "second").rglob("snapshots"))
