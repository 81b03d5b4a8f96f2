"""Bundles as models to go on from: whatever opened the base model, a bundle comes back with the head it was given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.backbone import bundle as bundles
from regraft.deliver import pack
from regraft.deliver.model import Model
from regraft.errors import ModelError
from regraft.kit import durable, shelf
from regraft.planner.course import Course
from regraft.planner.request import find_provider
from regraft.providers import bundle as provider
from regraft.waist import Trial
from tests import places


def packed(tmp: Path, of: str, pooling: str, strategy: str = "probe") -> tuple[Course, Trial, Path]:
    """A tiny BERT with its own classifier, adapted and packed; the test in a fresh process is left to the laws."""
    course = places.text_course(tmp, of, "classifier")  # type: ignore[arg-type]
    trial = places.finish(course, places.plan(course, strategy, epochs=2, pooling=pooling))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        pack.pack(course, trial, "base")
    return course, trial, course.folder.path / "bundle"


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize("of", ["class", "pairs", "multi"])
def test_a_bundle_is_opened_with_the_head_it_was_packed_with(tmp_path: Path, of: str, pooling: str) -> None:
    course, trial, folder = packed(tmp_path, of, pooling)
    graft = course.restore(trial)
    view = provider.load(str(folder))
    head = course.task.fold(graft.head)
    assert isinstance(view.native, nn.Linear) and isinstance(head, nn.Linear)
    assert torch.equal(view.native.weight, head.weight) and torch.equal(view.native.bias, head.bias)
    assert view.labels == course.data.target.labels, "those of the record; a number has none"
    batch = shelf.find("modalities", "text").noise(view.inputs, 4, 0)
    with torch.no_grad():
        torch.testing.assert_close(view.pooled(trial.plan.pooling).run(batch), graft.view.run(batch))  # type: ignore[arg-type]
    again = Model.load(folder)
    assert again.predict([row.cell for row in course.data.test[:3]])


@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_a_bundle_is_a_model_to_adapt_further(tmp_path: Path, pooling: str) -> None:
    _, _, folder = packed(tmp_path / "first", "class", pooling)
    assert find_provider(str(folder)) is shelf.find("providers", "bundle") is find_provider(folder)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "model").symlink_to(folder)
    course = places.text_course(tmp_path / "second")
    assert course.view.pooling == pooling, "what suited the checkpoint is what it was trained with"
    trial = places.finish(course, places.plan(course, "probe", epochs=1))
    assert trial.scores


WORN = [("bottleneck", "bottleneck", "native"), ("bottleneck", "lora", "mean"), ("bottleneck", "partial", "mean")]
WORN += [("bottleneck", "scratch", "native"), ("side", "side", "mean"), ("side", "lora", "mean")]
WORN += [("side", "partial", "native"), ("side", "scratch", "native")]


@pytest.mark.parametrize(("kind", "strategy", "pooling"), WORN)
def test_a_bundle_with_adapters_is_adapted_further_with_them(
    tmp_path: Path, kind: str, strategy: str, pooling: str
) -> None:
    _, _, folder = packed(tmp_path / "first", "class", pooling, kind)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "model").symlink_to(folder)
    course = places.text_course(tmp_path / "second")
    knobs = {"by": "random"} if strategy == "scratch" else {}
    trial = places.finish(course, places.plan(course, strategy, epochs=1, pooling=pooling, **knobs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        bundle = pack.pack(course, trial, "base")
    again = course.folder.path / "bundle"
    assert [i.kind for i in bundle.inserts] == ([] if strategy == "scratch" else [kind])
    assert (again / "adapter" / "insert.json").is_file() == (strategy != "scratch")
    assert (again / "adapter-2").is_dir() == (strategy == "lora"), "merged, and kept beside as any LoRA"
    graft, batch = course.restore(trial), shelf.find("modalities", "text").noise(course.view.inputs, 4, 0)
    with torch.no_grad():
        wanted = course.task.fold(graft.head)(graft.view.run(batch))
        view = provider.load(str(again)).pooled(pooling)
        torch.testing.assert_close(view.native(view.run(batch)), wanted)


def test_adapters_that_are_there_stay_and_count_as_weights(tmp_path: Path) -> None:
    course, trial, folder = packed(tmp_path, "class", "native", "bottleneck")
    view = provider.load(str(folder))
    before = view.module.state_dict()
    shelf.find("inserts", "bottleneck").put(view, trial.plan.inserts[0], 0)
    assert before.keys() == view.module.state_dict().keys()
    assert provider.fingerprint(folder) != shelf.find("providers", "transformers").fingerprint(folder)
    file = folder / "adapter" / "insert.json"
    durable.write(file, b"{}")
    with pytest.raises(ModelError, match="this adapter cannot be read"):
        shelf.find("inserts", "bottleneck").load(course.view.clone(0), file.parent)
    with pytest.raises(ModelError, match="this bundle is not what was packed"):
        provider.load(str(folder))


def test_a_bundle_has_the_fingerprint_of_its_files(tmp_path: Path) -> None:
    _, _, folder = packed(tmp_path, "class", "mean")
    mark = provider.fingerprint(folder)
    assert mark == provider.fingerprint(str(folder.parent)), "a run stands for its bundle"
    told = bundles.read(folder)
    assert told.columns == ("text",) and told.opening.library == "sentence_transformers"
