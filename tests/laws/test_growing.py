"""Small forms of benches 1, 4 and 10: rows through the trunk and bytes read, counted, with equal bits; no seconds."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from regraft.engine import blocks, cache
from regraft.engine.trunk import Part, Trunk
from regraft.kit.store import Folder
from regraft.planner.course import Course
from regraft.waist import Plan, Row
from tests import places

CYCLES = (9, 18, 27)


class Meter:
    """How often each row went through the trunk from its input, and how many went on from a frontier below."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.went_on = 0


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    found, original = Meter(), Trunk._piece

    def counting(self: Trunk, parts: list[Part], *more: Any) -> object:
        if self.source:
            found.went_on += len(parts)
        else:
            found.rows.update(part.key for part in parts)
        return original(self, parts, *more)

    monkeypatch.setattr(Trunk, "_piece", counting)
    yield found


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """27 rows to train on, classes mixed; a pass that is dear enough for frontiers to be kept."""
    made = places.course(tmp_path)
    mixed = sorted(made.data.train, key=lambda row: row.key)
    assert len(mixed) == CYCLES[-1]
    machine = dataclasses.replace(made.machine, forward_s=0.05)
    return dataclasses.replace(made, machine=machine, data=dataclasses.replace(made.data, train=mixed))


def plans(course: Course) -> list[Plan]:
    """Two depths of two rates and a probe, as bench 4 has them."""
    tuned = [
        places.plan(course, "partial", depth=depth, lr=lr, epochs=2, batch=8) for depth in (1, 2) for lr in (1e-3, 1e-2)
    ]
    return [*tuned, places.plan(course, "probe", epochs=30, lr=1e-2)]


def grown(course: Course, folder: Path, rows: list[Row], cached: bool = True) -> list[bytes]:
    """The weights of all plans on so many rows, in a run folder of its own."""
    data = dataclasses.replace(course.data, train=rows)
    made = dataclasses.replace(course, data=data, folder=Folder(folder), cached=cached)
    made.trunks.expect(plans(course))
    return [places.weights(made, places.finish(made, plan, number)) for number, plan in enumerate(plans(course))]


def test_growing_data_takes_one_pass_of_each_row_for_all_trials(course: Course, tmp_path: Path, meter: Meter) -> None:
    every = list(course.data.train)
    wanted = [grown(course, tmp_path / f"bare-{n}", every[:n], cached=False) for n in CYCLES]
    bare = sum(meter.rows.values())
    meter.rows.clear()
    assert [grown(course, tmp_path / f"kept-{n}", every[:n]) for n in CYCLES] == wanted, "weights differ"
    rows = [*every[: CYCLES[-1]], *course.data.val, *course.data.test]
    # the batch on which bits are compared beforehand does not go through a `Trunk`
    assert set(meter.rows) == {row.key for row in rows} and set(meter.rows.values()) == {1}
    assert meter.went_on == 2 * len(rows), "two frontiers above the lowest"
    assert bare > 30 * len(rows), "a probe of 30 epochs alone runs it so often"
    grown(course, tmp_path / "again", every[: CYCLES[-1]])
    assert sum(meter.rows.values()) == len(rows)


def test_what_is_kept_and_read_is_what_the_states_take(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = places.plan(course, "probe", epochs=30)
    places.finish(course, plan)
    rows = sum(len(getattr(course.data, name)) for name in ("train", "val", "test"))
    states = 4 * rows * course.view.dim
    kept = sum(one.bytes for one in blocks.ls())
    assert states <= kept <= 1.5 * states + 8192, "features in float32 and their names"
    read = 0
    original = cache._mapped

    def reading(path: Path) -> dict[str, torch.Tensor]:
        nonlocal read
        read += path.stat().st_size
        return original(path)

    monkeypatch.setattr(cache, "_mapped", reading)
    again = dataclasses.replace(course, folder=Folder(tmp_path / "again"))
    places.finish(again, plan)
    assert 0 < read <= kept, "each block once, however many epochs"


def test_a_relabel_and_new_rows_run_the_trunk_on_new_rows_alone(
    course: Course, tmp_path: Path, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = list(course.data.train)
    some = every[:18]
    grown(course, tmp_path / "first", some)
    seen = sum(meter.rows.values())
    other = next(row for row in some if row.y != some[0].y)
    relabelled = [dataclasses.replace(some[0], y=other.y), *some[1:]]
    made = grown(course, tmp_path / "relabel", relabelled)
    assert sum(meter.rows.values()) == seen, "a label is not an input"
    more = grown(course, tmp_path / "more", [*relabelled, *every[18:21]])
    assert sum(meter.rows.values()) == seen + 3
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "empty"))
    assert grown(course, tmp_path / "relabel-anew", relabelled) == made
    assert grown(course, tmp_path / "more-anew", [*relabelled, *every[18:21]]) == more
