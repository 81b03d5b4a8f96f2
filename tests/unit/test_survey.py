"""Surveying: what the cards say of a backbone and of the machine."""

from __future__ import annotations

import pytest

from regraft.kit import hardware
from regraft.planner import survey
from regraft.planner.race import Course
from regraft.waist import MachineCard
from tests import places


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("survey"))


def machine(course: Course, precision: str) -> MachineCard:
    return survey.machine(course.view, course.data, course.encode, precision)


def test_the_backbone_is_told_in_numbers(course: Course) -> None:
    told = survey.backbone(course.view, "mark")
    assert (told.name, told.provider, told.fingerprint, told.dim) == ("model", "transformers", "mark", 16)
    assert told.params == sum(p.numel() for p in course.view.module.parameters())
    assert told.norms == sum(n.endswith("running_mean") for n, _ in course.view.module.named_buffers()) > 0


@pytest.mark.parametrize(("gain", "dtype", "promise"), [(1.9, "bfloat16", "tolerance"), (1.1, "float32", "exact")])
def test_half_precision_is_chosen_by_measurement(
    course: Course, monkeypatch: pytest.MonkeyPatch, gain: float, dtype: str, promise: str
) -> None:
    monkeypatch.setattr(hardware, "bf16_gain", lambda: gain)
    told = machine(course, "auto")
    assert (told.dtype, told.promise) == (dtype, promise)
    assert told.notes == (f"bfloat16 is {gain:.2f} times as fast as float32 here: the trunk runs in {dtype}",)


def test_full_precision_measures_nothing(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "bf16_gain", lambda: pytest.fail("measured"))
    monkeypatch.setenv("REGRAFT_THREADS", "2")
    told = machine(course, "fp32")
    assert (told.threads, told.dtype, told.device, told.notes) == (2, "float32", "cpu", ())
    assert told.micro_batch == 64 and dict(told.versions)["torch"]


def test_a_processor_without_the_promise_says_so(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.engine.cache.promise", lambda *_: "tolerance")
    told = machine(course, "fp32")
    assert told.promise == "tolerance" and "agree to rounding only" in told.notes[0]
