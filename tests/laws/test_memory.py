"""Memory that does not suffice: less goes through the network at once, batches keep their size, and it is written down.

A stage asks torch's own allocator for more than there is whenever too many rows come at once: the error is real.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from regraft.errors import NoMemory, ResourceError, short_of_memory
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.waist import Room, Said, Trial
from tests import places

TOO_MUCH = 1 << 60


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return places.course(tmp_path, cached=False)


def starve(course: Course, *, training: int = 1 << 30, passing: int = 1 << 30) -> None:
    """From now on no more rows than these fit, with and without gradients."""

    def ask(_: Any, given: tuple[torch.Tensor, ...]) -> None:
        if len(given[0]) > (training if torch.is_grad_enabled() else passing):
            torch.empty(TOO_MUCH, dtype=torch.uint8)

    course.view.module.get_submodule(course.view.stages[-1].path).register_forward_pre_hook(ask)


def run(course: Course, **knobs: Any) -> tuple[Trial, list[str]]:
    plan = places.plan(course, "partial", depth=1, epochs=2, batch=9, optimizer="sgd", **knobs)
    events = list(course.trial(0, plan))
    return events[-1].trial, [event.text for event in events if isinstance(event, Said)]  # type: ignore[union-attr]


def weights(course: Course, trial: Trial) -> dict[str, torch.Tensor]:
    return load_file(course.folder.path / trial.snapshot)


def test_torch_says_so_in_words_that_are_known() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    assert short_of_memory(error.value) and not short_of_memory(RuntimeError("size mismatch"))


def test_training_goes_on_in_pieces_with_the_same_batches(course: Course, tmp_path: Path) -> None:
    whole, _ = run(dataclasses.replace(course, folder=Folder(tmp_path / "whole")))
    starve(course, training=4)
    trial, said = run(course)
    assert [text for text in said if "memory" in text] == [
        f"memory ran out: from here on batches of 9 go through in {n} pieces, their gradients summed" for n in (2, 4)
    ]
    assert course.folder.read("room", Room) == Room(course.machine.micro_batch, 4)
    assert len(trial.curve) == 2 and trial.whole
    made, wanted = (
        weights(course, trial),
        weights(dataclasses.replace(course, folder=Folder(tmp_path / "whole")), whole),
    )
    assert max(float((made[n] - wanted[n]).abs().max()) for n in wanted) < 1e-5


def test_a_pass_takes_fewer_rows_and_a_later_sitting_begins_with_these(course: Course) -> None:
    before = course.machine
    starve(course, passing=before.micro_batch // 4)
    trial, said = run(course)
    assert len([text for text in said if "memory" in text]) == 2
    assert course.machine.micro_batch == before.micro_batch // 4 and trial.whole
    later = dataclasses.replace(course, machine=before, pieces=1)
    later.settle()
    assert (later.machine, later.pieces) == (course.machine, 1)
    assert run(later) == (trial, []), "a finished trial is read"


def test_what_does_not_fit_row_by_row_ends_with_the_reason(course: Course) -> None:
    starve(course, training=0)
    with pytest.raises(NoMemory) as error:
        run(course)
    assert isinstance(error.value, ResourceError) and error.value.code == 5 and error.value.saw
    assert course.pieces == 9


def test_the_survey_finds_a_micro_batch_that_fits(course: Course) -> None:
    wanted = course.machine.micro_batch // 8
    starve(course, passing=wanted)
    assert survey.machine(course.view, course.data, course.encoder, "fp32").micro_batch == wanted
