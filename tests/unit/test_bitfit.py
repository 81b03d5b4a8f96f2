"""BitFit and norm-only tuning: which weights train, by structure, and what stays cached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from regraft.engine import freeze
from regraft.errors import UsageError
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.request import strategies_of
from regraft.waist import Options, Pooled
from tests import places, tiny
from tests.unit.test_pooling import STAGES
from tests.unit.test_propose import facts

NORMS = {"bert": nn.LayerNorm, "resnet": nn.BatchNorm2d, "timm/convnext": nn.LayerNorm, "mobilenet_v2": nn.BatchNorm2d}


def trained(course: Course, strategy: str, **knobs: Any) -> tuple[int, set[str]]:
    """The frontier, and the names of what trains beside the head."""
    plan = places.plan(course, strategy, **knobs)
    graft = course.graft(plan)
    found = freeze.trainable(graft.view, graft.head, plan.phases[0])
    return plan.trunk, {name for name in found if not name.startswith("head/")}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.image) if "/" in n else n for n in NORMS])
def test_normalisation_layers_are_found_by_their_kind(name: str) -> None:
    view = tiny.build(name).view
    found = {f"{stage.name}/{norm}" for stage in view.stages for norm in stage.norms}
    wanted = {id(p) for m in view.module.modules() if isinstance(m, NORMS[name]) for p in m.parameters()}
    assert {id(p) for n, _, p in view.named() if n in found} == wanted and wanted


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_those_of_other_authors_too_and_no_biases_where_there_are_none(name: str) -> None:
    stages = tiny.build(name).view.stages
    assert sum(len(stage.norms) for stage in stages) == 7 and not any(stage.biases for stage in stages)


def test_biases_are_counted() -> None:
    view = tiny.build("bert").view
    for i, stage in enumerate(view.stages):
        assert stage.biases == sum(p.numel() for n, s, p in view.named() if s == i and n.endswith(".bias")) > 0


def test_they_run_where_they_are_named() -> None:
    assert not {"bitfit", "norms"} & set(strategies_of(Options("data", "model")))


def test_everything_or_the_last_blocks(tmp_path: Path) -> None:
    course = places.text_course(tmp_path, network="classifier")
    trunk, every = trained(course, "bitfit")
    assert trunk == 0 and all(name.endswith("bias") for name in every) and "embeddings/LayerNorm.bias" in every
    trunk, top = trained(course, "bitfit", last=1, pooling="mean")
    assert trunk == len(course.view.pooled("mean").stages) - 1
    assert top == {name for name in every if name.startswith(course.view.pooled("mean").stages[-1].name + "/")}
    trunk, norms = trained(course, "norms", last=2)
    names = {name.rpartition("/")[2] for name in norms}
    assert names == {f"{path}.{kind}" for path in PLACES for kind in ("weight", "bias")} and trunk > 0


PLACES = ("attention.output.LayerNorm", "output.LayerNorm")


@pytest.mark.parametrize("strategy", ["bitfit", "norms"])
def test_nothing_else_moves(tmp_path: Path, strategy: str) -> None:
    course = places.text_course(tmp_path, network="classifier")
    plan = places.plan(course, strategy, epochs=1, last=2)
    start, ended = course.graft(plan), course.restore(places.finish(course, plan))
    pairs = zip(start.view.named(), ended.view.named(), strict=True)
    moved = {name for (name, _, a), (_, _, b) in pairs if not torch.equal(a, b)}
    assert moved == trained(course, strategy, last=2)[1]


def test_statistics_stay_with_bitfit_and_follow_the_usual_rule_with_norms(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    assert places.plan(course, "bitfit").phases[0].norm == "keep"
    assert places.plan(course, "norms", norm="update").phases[0].norm == "update"


@pytest.mark.parametrize("strategy", ["bitfit", "norms"])
def test_where_there_is_nothing_of_the_kind_it_is_said(strategy: str) -> None:
    bare = facts(poolings=(Pooled("native", STAGES, 16, 0),))
    with pytest.raises(UsageError, match=r"no such weights · saw: nothing to train in words, one, two, pooler"):
        propose(bare, [strategy], [])
    with pytest.raises(UsageError, match=rf"that many blocks · saw: --{strategy}\.last 9"):
        propose(bare, [strategy], [(f"{strategy}.last", "9")])
