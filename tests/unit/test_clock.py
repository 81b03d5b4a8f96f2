"""The clock of a run goes on where the last sitting left it."""

from __future__ import annotations

import math
import time
from pathlib import Path

from regraft.kit.store import Folder
from regraft.planner.clock import Clock


def test_earlier_sittings_count(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    first = Clock(folder, 100.0, time.monotonic() - 30.0)
    assert first.spent() >= 30.0 and first.left() <= 70.0
    first.tick(now=True)
    second = Clock(folder, 100.0, time.monotonic() - 5.0)
    assert second.spent() >= 35.0, "30 s of the sitting before and 5 s of this one"
    second.reserve_s = 50.0
    assert second.left() <= 15.0, "what is held back is not left"


def test_it_is_written_down_every_few_seconds_only(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    clock = Clock(folder, 100.0, time.monotonic())
    clock.tick()
    assert not folder.has("clock")
    clock.tick(now=True)
    assert folder.load("clock", float) >= 0


def test_what_packing_took_is_held_back_twice(tmp_path: Path) -> None:
    clock = Clock(Folder(tmp_path), 100.0, time.monotonic())
    clock.packing(2.0)
    clock.packing(1.0)
    assert clock.reserve_s == 4.0
    clock.packing(3.0)
    assert clock.reserve_s == 6.0


def test_the_promise_leaves_two_seconds_untouched(tmp_path: Path) -> None:
    clock = Clock(Folder(tmp_path), 100.0, time.monotonic())
    assert clock.allows(110.0) and not clock.allows(114.0)
    assert Clock(Folder(tmp_path / "free"), 0.0, time.monotonic()).allows(1e9)


def test_without_a_bound_there_is_always_time_left(tmp_path: Path) -> None:
    assert Clock(Folder(tmp_path), 0.0, time.monotonic()).left() == math.inf
