"""Surveying: what the cards say of a backbone and of the machine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from regraft.kit import hardware
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.waist import MachineCard
from tests import places


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("survey"))


def machine(course: Course, precision: str) -> MachineCard:
    return survey.machine(course.view, course.data, course.encoder, precision)


def test_the_backbone_is_told_in_numbers(course: Course) -> None:
    told = survey.backbone(course.view, "mark")
    assert (told.name, told.provider, told.fingerprint, told.dim) == ("model", "transformers", "mark", 16)
    assert told.params == sum(p.numel() for p in course.view.module.parameters())
    assert told.norms == sum(n.endswith("running_mean") for n, _ in course.view.module.named_buffers()) > 0
    assert [one.pooling for one in told.poolings] == ["native"] and told.poolings[0].new == () == told.notes


def test_every_pooling_has_its_card_and_gaps_are_noted(tmp_path: Path) -> None:
    """A bare encoder lacks its pooler: under its own pooling that one starts at random."""
    text = places.text_course(tmp_path)
    told = survey.backbone(text.view, "mark")
    mean, native = told.poolings
    assert (mean.pooling, native.pooling) == ("mean", "native") and told.stages == mean.stages
    assert (len(mean.stages), mean.dim, mean.new) == (4, 32, ())
    assert (len(native.stages), native.dim, native.new) == (5, 32, (4,))
    assert native.stages[4].params == 32 * 33
    assert [(s.name, s.params) for s in mean.stages] == [(s.name, s.params) for s in native.stages[:4]]
    (note,) = told.notes
    assert note.startswith("native pooling: the checkpoint lacks pooler: random at the start, trained with the head")


@pytest.mark.parametrize("of", ["class", "pairs"])
def test_the_promise_is_held_at_every_padded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Any) -> None:
    """The most frequent size comes first; batches have the shapes that the trunk will run."""
    text = places.text_course(tmp_path, of)
    seen: list[torch.Size] = []

    def noted(_: object, batch: dict[str, torch.Tensor]) -> tuple[str, float]:
        seen.append(batch["input_ids"].shape)
        return "exact", 1.0

    monkeypatch.setattr("regraft.engine.trunk.promise", noted)
    told = machine(text, "fp32")
    micro = told.micro_batch
    assert len(seen) == 3 and all(n == max(1, micro * 32 // length) for n, length in seen)
    apart = 2 if of == "pairs" else 1
    assert told.forward_s >= apart / max(n for n, _ in seen) - 1e-6, "a second a pass, whose rows count by their size"
    if of == "pairs":
        sizes = [part.size for row in text.table(text.view, 0, text.data.train).parts for side in row for part in side]
        assert [length for _, length in seen] == [size for size, _ in Counter(sizes).most_common()]
    first = seen[0][1]
    monkeypatch.setattr(
        "regraft.engine.trunk.promise", lambda _, b: ("exact" if b["input_ids"].shape[1] == first else "tolerance", 1.0)
    )
    assert machine(text, "fp32").promise == "tolerance", "one size without the promise is enough"


@pytest.mark.parametrize(("gain", "dtype"), [(1.9, "bfloat16"), (1.1, "float32")])
def test_half_precision_is_chosen_by_measurement(
    course: Course, monkeypatch: pytest.MonkeyPatch, gain: float, dtype: str
) -> None:
    monkeypatch.setattr(hardware, "bf16_gain", lambda: gain)
    told = machine(course, "auto")
    assert (told.dtype, told.promise) == (dtype, "tolerance")
    assert told.notes[0] == f"bfloat16 is {gain:.2f} times as fast as float32 here: the trunk runs in {dtype}"


@pytest.mark.parametrize(("side", "precision", "least"), [(64, "auto", 32), (63, "auto", 0), (64, "fp32", 0)])
def test_large_photographs_are_decoded_smaller_where_exactness_is_not_asked_for(
    tmp_path: Path, side: int, precision: str, least: int
) -> None:
    """The model takes 16 pixels a side."""
    places.photographs(tmp_path / "data", side, {"train": 2, "val": 1, "test": 1})
    small = places.course(tmp_path)
    told = machine(small, precision)
    said = [note for note in told.notes if "JPEG" in note]
    if not least:
        assert told.inputs is None and not said
        return
    assert told.inputs is not None and told.inputs.setting("least", 0) == least
    assert said == ["JPEGs from 64 pixels a side on are decoded at a smaller scale for the frozen trunk"]
    folder = Folder(tmp_path / "kept")
    folder.write("machine", told)
    assert folder.read("machine", MachineCard) == told


def test_texts_are_read_whole_at_any_precision(tmp_path: Path) -> None:
    assert machine(places.text_course(tmp_path), "auto").inputs is None


def test_full_precision_measures_nothing(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "bf16_gain", lambda: pytest.fail("measured"))
    monkeypatch.setenv("REGRAFT_THREADS", "2")
    told = machine(course, "fp32")
    assert (told.threads, told.dtype, told.device, told.notes) == (2, "float32", "cpu", ())
    assert told.micro_batch == 64 and dict(told.versions)["torch"]


def test_a_processor_without_the_promise_says_so(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.engine.trunk.promise", lambda *_: ("tolerance", 0.5))
    told = machine(course, "fp32")
    assert told.promise == "tolerance" and "agree to rounding only" in told.notes[0]
