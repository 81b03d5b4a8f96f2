"""A look at a network: one pass gives features at several depths and how far rows are from the network's own data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from regraft.backbone.pooling import depths
from regraft.backbone.state import vector
from regraft.engine.predict import Graft, everything
from regraft.planner import profile
from regraft.planner.course import Course
from regraft.waist import Row, Stage
from tests import places


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("profile"))


def looked(course: Course, rows: list[Row]) -> profile.Look:
    return profile.look(course.view, course.table(course.view, 0, rows))


@pytest.mark.parametrize("of", ["pictures", "texts", "pairs", "windows"])
def test_the_last_layer_is_what_a_head_takes(pictures: Course, of: str, tmp_path: Path) -> None:
    course = pictures
    if of != "pictures":
        long: Any = {"long": "windows", "max_tokens": 16} if of == "windows" else {}
        course = places.text_course(tmp_path, "pairs" if of == "pairs" else "class", **long)
    view, rows = course.view, list(course.data.train)
    layers = looked(course, rows).layers
    wanted = everything(Graft(view, nn.Identity()), course.table(view, len(view.stages), rows))
    assert layers[-1].stage == len(view.stages) - 1 and torch.allclose(layers[-1].features, wanted, atol=1e-5)
    assert all(len(layer.features) == len(rows) and layer.features.ndim == 2 for layer in layers)
    assert [layer.stage for layer in layers[:-1]] == depths(view.stages, profile.DEPTHS)


def test_a_layer_is_the_mean_over_places_after_its_stage(pictures: Course) -> None:
    rows, view = list(pictures.data.val), pictures.view
    batch = pictures.encoder.tensors([row.cell for row in rows])
    for layer in looked(pictures, rows).layers[:-1]:
        with torch.no_grad():
            state = view.run(batch, stop=layer.stage + 1)
        assert torch.allclose(layer.features, state.value.mean((2, 3)), atol=1e-5)


def test_depths_share_out_the_work() -> None:
    front = [Stage(str(i), str(i), 1, flops, 4) for i, flops in enumerate((70, 10, 10, 5, 5))]
    assert depths(front, 3) == [0] and depths(front[:1], 3) == []


def by_hand(course: Course, rows: list[Row], name: str) -> float:
    """The shift of one layer from what it takes of all rows at once."""
    layer, taken = course.view.module.get_submodule(name), []
    hook = layer.register_forward_hook(lambda _module, args, _given: taken.append(args[0]))
    with torch.no_grad():
        course.view.run(course.encoder.tensors([row.cell for row in rows]))
    hook.remove()
    mean, spread = taken[0].mean((0, 2, 3)), taken[0].var((0, 2, 3), unbiased=False).sqrt()
    alive = layer.running_var > profile.DEAD
    sigma = layer.running_var.sqrt()
    apart = ((mean - layer.running_mean).square() + (spread - sigma).square()).sqrt() / sigma
    return float(apart[alive].clamp(max=profile.FARTHEST).mean())


def test_shifts_compare_what_normalisation_layers_take_with_what_they_carry(pictures: Course) -> None:
    rows = list(pictures.data.val)[:13]  # no whole micro-batch: repeated rows do not count
    shifts = looked(pictures, rows).shifts
    assert len(shifts) == sum(isinstance(m, nn.BatchNorm2d) for m in pictures.view.module.modules())
    for shift in (shifts[0], shifts[-1]):
        assert shift.value == pytest.approx(by_hand(pictures, rows, shift.name), rel=1e-4)


def test_rows_like_those_that_a_layer_knows_are_near(pictures: Course) -> None:
    course = dataclasses.replace(pictures, view=pictures.view.clone(0))
    rows = list(course.data.train)
    name = looked(course, rows).shifts[0].name
    layer, taken = course.view.module.get_submodule(name), []
    hook = layer.register_forward_hook(lambda _module, args, _given: taken.append(args[0]))
    with torch.no_grad():
        course.view.run(course.encoder.tensors([row.cell for row in rows]))
    hook.remove()
    assert looked(course, rows).shifts[0].value > 0.1
    layer.running_mean.copy_(taken[0].mean((0, 2, 3)))
    layer.running_var.copy_(taken[0].var((0, 2, 3), unbiased=False))
    assert looked(course, rows).shifts[0].value < 1e-4
    layer.running_var[0], layer.running_mean[0] = 0.0, 1e9
    assert looked(course, rows).shifts[0].value < 1e-4, "a dead channel says nothing"


def test_a_network_without_such_layers_has_no_shifts(tmp_path: Path) -> None:
    course = places.text_course(tmp_path)
    assert looked(course, list(course.data.train)).shifts == ()


def test_a_look_leaves_the_network_as_it_was(pictures: Course) -> None:
    before = {name: t.clone() for name, t in pictures.view.module.state_dict().items()}
    forwards = [module.__dict__.get("forward") for module in pictures.view.module.modules()]
    looked(pictures, list(pictures.data.train))
    assert all(torch.equal(t, before[name]) for name, t in pictures.view.module.state_dict().items())
    assert [module.__dict__.get("forward") for module in pictures.view.module.modules()] == forwards
    assert not any(module.training for module in pictures.view.module.modules())


def test_channels_last_and_plain_vectors_are_pooled() -> None:
    made = torch.arange(24.0).view(2, 2, 2, 3)
    assert torch.equal(vector(made), made.mean((1, 2)))
    assert torch.equal(vector(made[:, 0]), made[:, 0].mean(1))
    assert torch.equal(vector(made[:, 0, 0]), made[:, 0, 0])
