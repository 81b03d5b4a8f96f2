"""Law 6: what was packed predicts what was trained, and its native library alone predicts the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from regraft.api import Model
from regraft.deliver import pack
from regraft.errors import RegraftError
from regraft.kit import shelf
from tests import places

SHORT = {"probe": {"epochs": 3}, "partial": {"epochs": 3, "norm": "update"}, "scratch": {"epochs": 2}}


@pytest.mark.parametrize("strategy", shelf.names("strategies"))
def test_a_packed_graft_predicts_the_same(tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForImageClassification

    monkeypatch.setattr(pack, "_self_test", lambda *_: None)  # journeys run it; here the parts are looked at
    monkeypatch.setenv("REGRAFT_THREADS", "1")
    course = places.course(tmp_path)
    trial = places.finish(course, places.plan(course, strategy, **SHORT.get(strategy, {})))
    run = course.folder.path
    graft = course.restore(trial)
    told = pack.pack(graft, trial, course.task, course.data, course.machine, run, "model")
    wanted = torch.from_numpy(load_file(run / trial.predictions)["test"])

    model = Model.load(run / "bundle")
    answers = model.predict([row.cell for row in course.data.test])
    exact = course.task.answers(wanted)
    assert [a["probabilities"] for a in answers] == [e["probabilities"] for e in exact]

    native = AutoModelForImageClassification.from_pretrained(run / "bundle", local_files_only=True)
    noise = np.random.default_rng(told.golden_seed).standard_normal((told.micro_batch, *told.inputs.shape), np.float32)
    with torch.no_grad():
        logits = native(pixel_values=torch.from_numpy(noise)).logits
    assert torch.equal(logits, torch.tensor(told.golden))
    assert list(native.config.id2label.values()) == list(places.LABELS)
    assert not list((run / "bundle").glob("*.bin"))


def test_the_link_always_names_a_whole_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    course = places.course(tmp_path)
    trial = places.finish(course, places.plan(course, "probe", epochs=1))
    run = course.folder.path
    for number in (1, 2):
        pack.pack(course.restore(trial), trial, course.task, course.data, course.machine, run, "model")
        assert (run / "bundle").readlink() == Path(f"bundle-{number}")
        assert sorted(p.name for p in run.glob("bundle*")) == ["bundle", f"bundle-{number}"]


def test_a_bundle_that_fails_its_test_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = places.course(tmp_path)
    trial = places.finish(course, places.plan(course, "probe", epochs=1))
    run = course.folder.path

    def wrong(part: Path, *_: object) -> dict[str, list[object]]:
        return {"logits": [[9.0, 9.0, 9.0]] * course.machine.micro_batch, "pipeline": []}

    monkeypatch.setattr(pack, "_native", wrong)
    with pytest.raises(RegraftError, match=r"predicts something else .* outputs differ by"):
        pack.pack(course.restore(trial), trial, course.task, course.data, course.machine, run, "model")
    assert not list(run.glob("bundle*")) and not list(run.glob(".part-*"))
