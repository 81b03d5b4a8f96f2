"""Networks that end after some of their blocks: stages, bits, what ships, one pass for several of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file as read_arrays
from torch import nn

import regraft
from regraft.backbone.pooling import ends
from regraft.backbone.short import ends_of, fan
from regraft.backbone.view import View
from regraft.deliver.model import Model
from regraft.engine.trunk import Trunk
from regraft.errors import UsageError
from regraft.kit.store import Folder
from regraft.planner.course import Course
from regraft.providers import transformers as provider
from regraft.waist import Plan, Pooled, Said, Stage
from tests import checkpoints, places

CAN = ["vit", "dinov2", "bert", "roberta", "deberta", "distilbert", "gpt2", "llama", "bare bert", "bare gpt2"]
CANNOT = ["resnet", "mobilenet_v2", "convnext", "swin"]


def opened(root: Path, name: str) -> View:
    return provider.load(str(checkpoints.ALL[name](root / name)))


@pytest.mark.parametrize("name", CAN)
def test_a_network_that_ends_early_is_that_network_of_fewer_blocks(tmp_path: Path, name: str) -> None:
    """Its features are those that transformers makes with this configuration; weights are shared, not copied."""
    view = opened(tmp_path, name)
    for pooling in view.calls:
        whole = view.pooled(pooling)
        short = whole.pooled(f"{pooling}@1")
        assert len(ends_of(whole)) == checkpoints.LAYERS and len(ends_of(short)) == 1
        assert len(short.stages) == len(whole.stages) - (checkpoints.LAYERS - 1)
        assert {id(p) for p in short.module.parameters()} < {id(p) for p in whole.module.parameters()}
        twin = type(short.module)(short.module.config).eval()
        if short.head:
            parent, _, last = short.head.rpartition(".")
            setattr(twin.get_submodule(parent), last, nn.Identity())
        twin.load_state_dict(short.module.state_dict())
        batch = places.noise(view, 3)
        with torch.no_grad():
            assert torch.equal(short.run(batch), short.calls[short.pooling](twin, batch))
            assert not torch.equal(short.run(batch), whole.run(batch))


@pytest.mark.parametrize("name", CAN)
def test_one_pass_gives_the_bits_of_each(tmp_path: Path, name: str) -> None:
    view = opened(tmp_path, name)
    for pooling in view.calls:
        whole, short = view.pooled(pooling), view.pooled(f"{pooling}@1")
        batch = places.noise(view, 3)
        with torch.no_grad():
            found = fan(whole, batch, [short])
            assert [torch.equal(a, one.run(batch)) for a, one in zip(found, (whole, short), strict=True)] == [True] * 2
            for k in range(1, len(short.stages)):
                assert torch.equal(short.run(start=k, state=short.run(batch, stop=k)), found[1]), k


@pytest.mark.parametrize("name", CAN)
def test_the_card_foretells_the_stages(tmp_path: Path, name: str) -> None:
    view = opened(tmp_path, name)
    told, short = view.card().short(1), view.pooled(f"{view.pooling}@1")
    assert [(s.name, s.flops, s.out_bytes) for s in told.stages] == [
        (s.name, s.flops, s.out_bytes) for s in short.stages
    ]
    assert (told.new, told.row, told.blocks) == (short.card().new, ends_of(short), 1)


@pytest.mark.parametrize("name", CANNOT)
def test_networks_whose_blocks_differ_stay_whole(tmp_path: Path, name: str) -> None:
    view = opened(tmp_path, name)
    assert ends_of(view) == () == view.card().row
    with pytest.raises(UsageError, match="cannot end there") as caught:
        ends(view.card(), "2")
    assert "cannot be left out" in str(caught.value.allowed)


@pytest.mark.parametrize("asked", ["0", "4", "2,x", "-1", "1.5"])
def test_a_number_that_the_network_does_not_have_is_refused(asked: str) -> None:
    stages = tuple(Stage(name, name, 1, 1, 4) for name in ("words", "0", "1", "2"))
    with pytest.raises(UsageError, match="cannot end there") as caught:
        ends(Pooled("mean", stages, 8, 0, row=(1, 2, 3)), asked)
    assert caught.value.allowed == "1 to 3, with commas between"


def test_numbers_of_blocks_are_taken_once_and_all_of_them_is_the_whole() -> None:
    stages = tuple(Stage(name, name, 1, 1, 4) for name in ("words", "0", "1", "2"))
    whole = Pooled("mean", stages, 8, 0, row=(1, 2, 3))
    assert [one.blocks for one in ends(whole, " 2, 1,2,3")] == [2, 1, 0]
    assert ends(whole, "") == [whole]


# ---------------------------------------------------------------- in a run


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return places.text_course(tmp_path)


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many parts went through the trunk so far."""
    found, original = [0], Trunk._piece

    def counting(self: Trunk, parts: list[object], *more: object) -> object:
        found[0] += len(parts)
        return original(self, parts, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Trunk, "_piece", counting)
    return lambda: found[0]


def read(course: Course) -> list[Plan]:
    """Probes after each number of blocks, the shortest first."""
    return [places.plan(course, "probe", blocks=blocks, epochs=2, pooling="mean") for blocks in (1, 2, 3)]


def test_probes_after_several_blocks_share_one_pass(course: Course, passed: Callable[[], int]) -> None:
    """Weights are those of runs without a cache, bit for bit, from as many passes as there are texts."""
    found = read(course)
    assert [plan.reading for plan in found] == ["mean@1", "mean@2", "mean"]
    course.trunks.expect(found)
    made = [places.weights(course, places.finish(course, plan, i)) for i, plan in enumerate(found)]
    texts = {row.key for row in (*course.data.train, *course.data.val, *course.data.test)}
    assert passed() == len(texts)
    every = len(course.data.train) + len(course.data.val) + len(course.data.test)
    assert course.trunks.ran() == {("mean", 4): every, ("mean@1", 2): 0, ("mean@2", 3): 0}
    bare = dataclasses.replace(course, folder=Folder(course.folder.path / "bare"), cached=False)
    assert made == [places.weights(bare, places.finish(bare, plan, i)) for i, plan in enumerate(found)]


def test_a_shorter_network_asked_for_later_runs_alone(course: Course, passed: Callable[[], int]) -> None:
    """What the whole network gave is not computed again, and what was never asked for is not kept."""
    short, _, whole = read(course)
    places.finish(course, whole, 0)
    first = passed()
    later = dataclasses.replace(course, folder=Folder(course.folder.path / "later"))
    later.trunks.expect([short, whole])
    places.finish(later, short, 0)
    assert passed() == 2 * first
    again = dataclasses.replace(course, folder=Folder(course.folder.path / "again"))
    again.trunks.expect([short, whole])
    said = [event.text for event in again.trial(0, short) if isinstance(event, Said)]
    assert passed() == 2 * first and "examples were there" in said[0]


@pytest.mark.parametrize("pooling", ["mean", "native"])
def test_a_network_that_ends_early_ships_as_one(tmp_path: Path, pooling: str) -> None:
    """Its own library opens it with as many blocks, and it answers as the trial did."""
    from transformers import AutoConfig

    data, model = places.texts(tmp_path / "data"), places.encoder_model(tmp_path / "model", "classifier")
    knobs = {"probe.blocks": 2, "probe.epochs": 2, "probe.pooling": pooling}
    run = regraft.adapt(data, model=model, strategies=["probe"], knobs=knobs, out=tmp_path / "runs")
    assert AutoConfig.from_pretrained(run.bundle).num_hidden_layers == 2
    held = Model.load(run.bundle)
    course = places.text_course(tmp_path, network="classifier")
    rows = course.data.test
    answered = read_arrays(run.folder / run.winner.predictions)["test"]
    torch.testing.assert_close(held.outputs(rows), torch.from_numpy(answered))
    assert held.told.plan.blocks == 2 and run.winner.label.startswith("probe blocks 2")
