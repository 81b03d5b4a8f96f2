"""Engines of the trunk: they give what the network gives, within rounding, and one that does not pay is not used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from regraft.engine import engines
from regraft.engine.engines import Engine
from regraft.planner.course import Course
from tests import places

COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler to compile with")


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def batch(course: Course) -> dict[str, torch.Tensor]:
    return course.encoder.tensors([row.cell for row in course.data.train[:8]])


def gap(course: Course, k: int, run: engines.Pass, batch: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        return engines.apart(engines.eager(course.view, k)(batch), run(batch))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_channels_last_is_the_same_network(course: Course, batch: dict[str, torch.Tensor], k: int) -> None:
    assert gap(course, k, engines.channels_last(course.view, k), batch) < 1e-5
    assert all(p.is_contiguous() for p in course.view.module.parameters()), "what is trained keeps its layout"


def test_half_precision_comes_out_whole(course: Course, batch: dict[str, torch.Tensor]) -> None:
    run = engines.half(engines.eager(course.view, 2))
    assert 0 < gap(course, 2, run, batch) < 0.05
    assert run(batch).value.dtype == torch.float32


@COMPILER
def test_a_compiled_trunk_is_cut_where_the_network_is(
    course: Course, batch: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    run = engines.compiled(course.view, 2, batch)
    assert gap(course, 2, run, batch) < 1e-5
    other = {name: tensor.flip(0) for name, tensor in batch.items()}
    assert gap(course, 2, run, other) < 1e-5, "no value of the first batch is in it"
    with torch.no_grad():
        state = run(other)
        assert torch.allclose(course.view.run(start=2, state=state), course.view.run(other), atol=1e-5)


def test_what_is_not_repaid_is_not_compiled(course: Course, batch: dict[str, torch.Tensor]) -> None:
    engine = Engine(course.view, 2)
    assert engine.compile(batch, passes=1) == ("", 0.0) and not engine.compiles


@pytest.mark.parametrize(("fast", "used"), [(1.0, True), (0.0, False)])
def test_only_what_is_faster_is_kept(
    course: Course, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, fast: float, used: bool
) -> None:
    """The clock is told beforehand; the passes are real."""
    engine = Engine(course.view, 2)
    monkeypatch.setattr(engines, "compiled", lambda view, k, _: engines.channels_last(view, k))
    monkeypatch.setattr(engines, "seconds", lambda run, *_: 2.0 if run is engine.run else 2.0 - fast)
    told, _ = engine.compile(batch, passes=1000)
    assert engine.compiles is used and told.endswith("not used") is not used
    with torch.no_grad():
        assert engines.apart(engine(batch), engine.run(batch)) < 1e-5


def test_what_is_wrong_is_never_used(
    course: Course, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(course.view, 2)
    monkeypatch.setattr(engines, "compiled", lambda view, k, _: engines.half(engines.eager(view, k)))
    monkeypatch.setattr(engines, "seconds", lambda run, *_: 2.0 if run is engine.run else 1.0)
    told, _ = engine.compile(batch, passes=1000)
    assert "not used" in told and not engine.compiles


def test_a_trunk_that_cannot_be_compiled_runs_as_before(
    course: Course, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> engines.Pass:
        raise RuntimeError("No working C++ compiler found")

    engine = Engine(course.view, 2)
    monkeypatch.setattr(engines, "compiled", refused)
    told, _ = engine.compile(batch, passes=1, cost_s=0.0)
    assert "cannot be compiled" in told and not engine.compiles
