"""How steps of training compute where bits do not count: within rounding of the network as it stands, and resumable."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
from safetensors.torch import load_file

from regraft.engine import engines
from regraft.engine.predict import outputs
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.sizes import Pace
from regraft.waist import Plan, Training, Trial
from tests import places

WAYS = [Training("channels-last"), Training("eager", "bfloat16"), Training("channels-last", "bfloat16")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("training"))


def trained(base: Course, way: Training, place: Path) -> Course:
    """The course where steps of training compute this way."""
    machine = dataclasses.replace(base.machine, training=way, promise="tolerance")
    return dataclasses.replace(base, machine=machine, folder=Folder(place))


def weights(course: Course, trial: Trial) -> dict[str, torch.Tensor]:
    return load_file(course.folder.path / trial.snapshot)


def apart(course: Course, one: Trial, base: Course, other: Trial) -> float:
    """How far the weights of two trials are from each other, as a share of how far the second one's moved."""
    a, b = weights(course, one), weights(base, other)
    start = {name: p for name, _, p in base.view.named()}
    gap = sum(float((a[name] - b[name]).square().sum()) for name in b) ** 0.5
    return gap / sum(float((b[name] - start[name]).square().sum()) for name in b if name in start) ** 0.5


def losses(trial: Trial) -> torch.Tensor:
    return torch.tensor([[line.train_loss, line.val_loss] for line in trial.curve])


@pytest.mark.parametrize(("strategy", "knobs"), [("full", {}), ("partial", {"depth": 2})])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.engine}-{way.dtype}")
def test_training_ends_near_where_it_does_as_the_network_stands(
    base: Course, way: Training, strategy: str, knobs: dict[str, Any], tmp_path: Path
) -> None:
    plan = places.plan(base, strategy, epochs=2, **knobs)
    course, plain = trained(base, way, tmp_path / "run"), trained(base, Training(), tmp_path / "plain")
    made, wanted = places.finish(course, plan), places.finish(plain, plan)
    # tiny gradients, such as those of biases before a normalisation, may turn in bfloat16: their weights say little
    assert 0 < apart(course, made, plain, wanted) < (0.02 if way.dtype == "float32" else 2.0)
    assert (losses(made) - losses(wanted)).abs().max() < (1e-4 if way.dtype == "float32" else 0.05)
    assert all(p.is_contiguous() and not p.requires_grad for p in base.view.module.parameters()), "shared by all trials"


def test_a_head_alone_is_trained_as_it_stands(base: Course, tmp_path: Path) -> None:
    plan = places.plan(base, "probe", by="steps", epochs=2)
    course, plain = trained(base, WAYS[2], tmp_path / "run"), trained(base, Training(), tmp_path / "plain")
    made, wanted = places.finish(course, plan), places.finish(plain, plan)
    assert places.weights(course, made) == places.weights(plain, wanted)


def test_epochs_are_judged_in_bfloat16_and_what_ships_is_scored_as_it_stands(base: Course, tmp_path: Path) -> None:
    course = trained(base, WAYS[1], tmp_path)
    trial = places.finish(course, places.plan(course, "full", epochs=2))
    graft, rows = course.restore(trial), course.data.val
    made = outputs(graft, course.table(graft.view, 0, rows))
    assert torch.equal(made, course.outputs(trial, "val"))
    loss = course.task.loss(made, course.task.encode([row.y for row in rows]), trial.plan.judged).mean()
    assert 0 < abs(float(loss) - min(line.val_loss for line in trial.curve)) < 0.05


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("way", WAYS[::2], ids=lambda way: way.dtype)
def test_what_was_stopped_goes_on_with_the_same_bits(
    base: Course, way: Training, optimizer: str, tmp_path: Path
) -> None:
    """Fused rules read weights, gradients and momenta side by side in memory: all are to lie alike after a restart."""
    plan = places.plan(base, "full", epochs=2, optimizer=optimizer)
    course = trained(base, way, tmp_path)
    whole, stopped = places.whole_and_stopped(course, plan, tmp_path)
    courses = [dataclasses.replace(course, folder=Folder(tmp_path / name)) for name in ("whole", "stopped")]
    assert places.weights(courses[0], whole) == places.weights(courses[1], stopped)


# ---------------------------------------------------------------- chosen by measurement


def chosen(course: Course, monkeypatch: pytest.MonkeyPatch, took: list[float], *asked: Any) -> tuple[Training, str]:
    """What is chosen when steps take so long, in the order in which they are tried."""
    left = iter(took)
    real = engines.seconds
    monkeypatch.setattr(engines, "seconds", lambda run, batch, times=3: (real(run, batch, 1), next(left))[1])
    batch = course.encoder.tensors([row.cell for row in course.data.train[:4]])
    found = engines.training(course.view, batch, *asked)
    assert next(left, None) is None, "a way was not tried"
    return found


@pytest.mark.parametrize(
    ("took", "asked", "wanted"),
    [
        ([], ("eager", False), Training()),
        ([2.0, 1.0], ("channels-last", False), Training("channels-last", gain=2.0)),
        ([2.0, 1.95], ("channels-last", False), Training()),
        ([2.0, 9.0, 8.0], ("eager", True), Training()),
        ([2.0, 1.0, 0.5], ("eager", True), Training("channels-last", "bfloat16", 4.0)),
        ([2.0, 1.0, 4.0], ("channels-last", True), Training("eager", "bfloat16", 2.0)),
    ],
)
def test_the_way_that_was_measured_faster_is_taken(
    base: Course, monkeypatch: pytest.MonkeyPatch, took: list[float], asked: tuple[str, bool], wanted: Training
) -> None:
    before = {name: p.clone() for name, p in base.view.module.state_dict().items()}
    monkeypatch.setattr(engines, "_MEASURED", WeakKeyDictionary())
    made, told = chosen(base, monkeypatch, took, *asked)
    assert made == wanted and ("as it stands" in told) == (bool(took) and wanted == Training())
    for name, tensor in base.view.module.state_dict().items():
        assert torch.equal(tensor, before[name]) and tensor.is_contiguous()
    assert all(p.grad is None and not p.requires_grad for p in base.view.module.parameters())


def test_where_bits_count_nothing_is_tried(base: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "training", lambda *_: pytest.fail("a step was timed"))
    assert survey.machine(base.view, base.data, base.encoder, "fp32").training == Training()


def test_a_faster_step_is_a_cheaper_epoch(base: Course, tmp_path: Path) -> None:
    def epoch(plan: Plan, gain: float) -> float:
        return Pace(trained(base, Training("channels-last", gain=gain), tmp_path)).epoch(plan)

    full, head = places.plan(base, "full"), places.plan(base, "probe", by="steps")
    assert epoch(full, 2.0) < epoch(full, 1.0) and epoch(head, 2.0) == epoch(head, 1.0)
