"""Side networks: what they read and compute, what runs while they are trained, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear

from regraft.backbone.view import View
from regraft.deliver.family import _common
from regraft.deliver.model import Model
from regraft.engine import cache
from regraft.errors import ModelError, UsageError
from regraft.kit import shelf
from regraft.planner.request import strategies_of
from regraft.waist import Insert, Options, Pooled, Stage, Step
from tests import places, tiny
from tests.unit.test_propose import facts, tuned

SIDE = shelf.find("inserts", "side")
READS = (0, 2)


def beside(name: str, reads: tuple[int, ...] = READS) -> View:
    """A tiny network with a side network whose numbers are far from their start."""
    view = tiny.build(name).view.clone(0)
    SIDE.put(view, Insert("side", (), 4, reads=reads), 7)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for path, parameter in view.module.named_parameters():
            if path.startswith("side."):
                parameter += torch.randn(parameter.shape, generator=draw)
    return view


# ---------------------------------------------------------------- what it computes


def test_it_adds_to_the_features_what_its_state_is_in_the_end() -> None:
    view, batch = beside("vit"), tiny.build("vit").batch(3, 32)
    w = {n.removeprefix("side."): p for n, p in view.module.named_parameters() if n.startswith("side.")}

    def through(x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def block(h: torch.Tensor, rung: str) -> torch.Tensor:
        normed = layer_norm(h, (4,), w[f"{rung}.norm.weight"], w[f"{rung}.norm.bias"])
        return h + through(gelu(through(normed, f"{rung}.inner")), f"{rung}.outer")

    with torch.no_grad():
        bare = tiny.build("vit").view
        below = [bare.run(batch, stop=k + 1).value for k in READS]
        first, second = ((x[0] if isinstance(x, tuple) else x).mean(1) for x in below)  # over the places of a picture
        h = block(through(layer_norm(first, (32,)), "rungs.0.down"), "rungs.0")
        share = w["rungs.1.gate"].sigmoid()
        h = block((1 - share) * h + share * through(layer_norm(second, (32,)), "rungs.1.down"), "rungs.1")
        torch.testing.assert_close(view.run(batch), bare.run(batch) + through(h, "up"))


def test_a_text_is_read_without_its_padding() -> None:
    view, batch = beside("bert"), tiny.build("bert").batch(3, 12)
    short = {name: tensor[:1, :5] for name, tensor in batch.items()} | {"attention_mask": torch.ones(1, 5).long()}
    long = {name: torch.nn.functional.pad(tensor, (0, 7)) for name, tensor in short.items()}
    with torch.no_grad():
        torch.testing.assert_close(view.run(long), view.run(short), rtol=1e-4, atol=1e-5)


def test_a_reading_is_the_network_itself_with_more_in_its_states(tmp_path: Path) -> None:
    course = places.text_course(tmp_path)
    view, batch, k = course.view, places.noise(course.view, 3), len(course.view.stages)
    read = view.pooled("mean+1,3")
    assert read is view.pooled("mean+1,3") and read.reading == "mean+1,3" and view.pooled("mean") is view
    with torch.no_grad():
        features, *vectors = read.run(batch, stop=k).value
        assert torch.equal(features, view.run(batch)) and torch.equal(read.run(batch), features)
        assert all(torch.equal(a, b) for a, b in zip(vectors, view.read(batch, (1, 3))[1:], strict=True))
    assert read.stages[-1].out_bytes == sum(t[0].numel() * 4 for t in (features, *vectors))
    places_of = {str(cache.place(one, j, course.machine)) for one in (view, read) for j in (k - 1, k)}
    assert len(places_of) == 4, "states of a reading lie where those of another do"


# ---------------------------------------------------------------- training and shipping


def test_the_backbone_never_runs_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course, ran, called = places.course(tmp_path), 0, View.called

    def counted(self: View, *given: Any) -> Any:
        nonlocal ran
        ran += 1
        return called(self, *given)

    monkeypatch.setattr(View, "called", counted)
    seen = [ran for event in course.trial(0, places.plan(course, "side", epochs=2)) if isinstance(event, Step)]
    assert len(seen) > 1 and len(set(seen)) == 1 and seen[0] > 0, "a step went through the backbone"


def test_a_bundle_is_read_as_it_was_trained_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.deliver import pack

    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    course = places.text_course(tmp_path, "class", "classifier")
    for number, taps in enumerate((2, 3)):
        trial = places.finish(course, places.plan(course, "side", epochs=1, pooling="mean", taps=taps), number)
        pack.pack(course, trial, "base")
        (course.folder.path / "bundle").resolve().rename(tmp_path / str(taps))
    one, two = (Model.load(tmp_path / str(taps)) for taps in (2, 3))
    assert _common(one, two) == 0 and _common(one, Model.load(tmp_path / "2")) == len(one.graft.view.stages)
    view = one.graft.view
    assert view.pooled("mean") is view.pooled(view.reading) is view
    with pytest.raises(UsageError, match="reads it at other depths"):
        view.pooled(two.graft.view.reading)
    with pytest.raises(UsageError, match=r"pooling of this backbone"):
        view.pooled("native")
    with pytest.raises(ModelError, match="this adapter is not for this network"):
        SIDE.load(view, tmp_path / "2" / "adapter")
    file = tmp_path / "2" / "adapter" / "insert.json"
    told = json.loads(file.read_bytes())
    told["places"] = dict(reversed(told["places"].items()))
    file.write_text(json.dumps(told))
    with pytest.raises(ModelError, match="this adapter is not for this network"):
        SIDE.load(course.view.clone(0), file.parent)
    file.write_text("{}")
    with pytest.raises(ModelError, match="this side cannot be read"):
        SIDE.load(course.view.clone(0), file.parent)


# ---------------------------------------------------------------- plans


def test_it_runs_where_it_is_named() -> None:
    assert "side" not in strategies_of(Options("data", "model"))


@pytest.mark.parametrize(("taps", "reads"), [(1, (4,)), (3, (1, 3, 4)), (9, (0, 1, 2, 3, 4)), (0, (0, 1, 2, 3, 4))])
def test_depths_end_with_the_last_block(taps: int, reads: tuple[int, ...]) -> None:
    names = ("words", "a", "b", "c", "d", "pooler")
    stages = tuple(Stage(name, name, 9, 100 * (name != "words"), 64) for name in names)
    body = Pooled("native", stages, 16, 0, row=(1, 2, 3, 4))
    plan = tuned("side", facts(poolings=(body,)), [("side.taps", str(taps))])
    assert plan.inserts[0].reads == reads and plan.trunk == len(stages)
    lacking = tuned("side", facts(poolings=(Pooled("native", stages, 16, 0, new=(5,)),)), [("side.taps", str(taps))])
    assert lacking.inserts[0].reads == reads and lacking.trunk == 5, "what is drawn at random is trained, not read"


def test_one_that_reads_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nothing to read .* allowed: stages of .*layer"):
        SIDE.put(tiny.build("bert").view.clone(0), Insert("side", (), 4), 0)
