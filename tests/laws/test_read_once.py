"""Rows at the network's input are read from their cells once in a run, with the bits of rows read each time."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from regraft.engine import cache
from regraft.kit.store import Folder
from regraft.planner.course import Course
from regraft.waist import Row, Said, Trial
from tests import places


def counting(course: Course, place: Path, cached: bool = True) -> tuple[Course, Counter[Any]]:
    """The course in a folder of its own, and how often each cell has been read there."""
    read: Counter[Any] = Counter()

    def tensors(cells: Sequence[Any]) -> dict[str, torch.Tensor]:
        read.update(set(cells))  # a micro-batch is filled up with its last row
        return course.encoder.tensors(cells)

    encoder = dataclasses.replace(course.encoder, tensors=tensors)
    return dataclasses.replace(course, encoder=encoder, folder=Folder(place), cached=cached), read


def run(course: Course, **knobs: Any) -> Trial:
    return places.finish(course, places.plan(course, "full", epochs=3, batch=7, **knobs))


def rows(course: Course) -> Sequence[Row]:
    return [*course.data.train, *course.data.val, *course.data.test]


@pytest.mark.parametrize("share", [1.0, 0.4, 0.0])
def test_what_is_held_has_the_bits_of_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    base = places.course(tmp_path)
    whole = sum(tensor.numel() * 4 for tensor in base.encoder.tensors([row.cell for row in rows(base)]).values())
    monkeypatch.setattr(cache, "room", lambda: int(share * whole))
    (course, read), (plain, each) = counting(base, tmp_path / "a"), counting(base, tmp_path / "b", cached=False)
    first, second = run(course), run(plain)
    assert places.weights(course, first) == places.weights(plain, second)
    assert first.curve == second.curve and first.scores == second.scores
    assert {each[row.cell] for row in course.data.train} == {3} and {each[row.cell] for row in course.data.test} == {1}
    once = sum(count == 1 for count in read.values())
    if share == 1:
        assert once == len(rows(course))
    assert (share * len(rows(course)) <= 2 * once + 7) and (share or read == each)


def test_another_trial_reads_nothing_again(tmp_path: Path) -> None:
    course, read = counting(places.course(tmp_path), tmp_path / "run")
    run(course, lr="0.001")
    seen = read.copy()
    places.finish(course, places.plan(course, "full", epochs=2, batch=7, lr="0.0001"), 1)
    assert read == seen


def test_varied_rows_are_held_view_by_view(tmp_path: Path) -> None:
    base = places.course(tmp_path)
    (course, read), (plain, _) = counting(base, tmp_path / "a"), counting(base, tmp_path / "b", cached=False)
    first, second = (run(one, augment="crop", views=2) for one in (course, plain))
    assert places.weights(course, first) == places.weights(plain, second)
    assert set(read.values()) == {1}


def test_views_that_are_shown_once_are_not_held(tmp_path: Path) -> None:
    course, read = counting(places.course(tmp_path), tmp_path / "run")
    plan = places.plan(course, "full", epochs=3, batch=7, augment="crop", views=3)
    assert plan.anew and not places.plan(course, "full", epochs=4, augment="crop", views=3).anew
    places.finish(course, plan)
    held = course.trunks._held[course.encoder].held  # counted are contents: some pictures may be equal
    assert held == len({row.key for row in (*course.data.val, *course.data.test)}) < len(read)


def test_texts_are_not_held(tmp_path: Path) -> None:
    course = places.text_course(tmp_path)
    assert course.table(course.view, 0, course.data.train).inputs is None


def test_where_memory_runs_out_what_is_held_goes_first(tmp_path: Path) -> None:
    course, read = counting(places.course(tmp_path), tmp_path / "run")
    plan, short = places.plan(course, "full", epochs=2, batch=9), [True]

    def ask(_: Any, given: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled() and len(read) == len(course.data.train) and short:
            short.clear()
            torch.empty(1 << 60, dtype=torch.uint8)

    course.view.module.get_submodule(course.view.stages[-1].path).register_forward_pre_hook(ask)
    events = list(course.trial(0, plan))
    said = [event.text for event in events if isinstance(event, Said) and "memory" in event.text]
    assert said == ["memory ran out: from here on rows are read from their files in each epoch"]
    assert not course.narrowed and course.pieces == 1
    assert max(read.values()) > 1
