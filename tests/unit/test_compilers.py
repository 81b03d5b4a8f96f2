"""Compilers of the trunk: they give what the network gives for any values of a shape, or raise and are done without."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from regraft.backbone.state import State
from regraft.engine import compilers, engines
from regraft.engine.compilers import COMPILERS
from regraft.engine.engines import Engine
from regraft.engine.trunk import padded, parts_of
from regraft.kit import optional
from regraft.planner.course import Course
from tests import places

Batch = dict[str, torch.Tensor]

# Found and not imported: an import that is not ours would report itself to OpenVINO's makers.
OPENVINO = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
INDUCTOR = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler to compile with")
BOTH = [pytest.param("openvino", marks=OPENVINO), pytest.param("inductor", marks=INDUCTOR)]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.text_course(tmp_path_factory.mktemp("texts"))


@pytest.fixture
def anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing compiled earlier is found, and what is told of packages is looked at again."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    optional.trouble.cache_clear()


def pictures(course: Course) -> Batch:
    return course.encoder.tensors([row.cell for row in course.data.train[:8]])


def texts(course: Course, size: int = 32) -> Batch:
    """Four texts of one padded size, of differing lengths."""
    parts = [part for row in parts_of(course.encoder, course.data.train, 1) for side in row for part in side]
    return padded(course.encoder.tensors([part.value for part in parts if part.size == size][:4]), 4)


def gap(course: Course, k: int, run: compilers.Pass, batch: Batch) -> float:
    with torch.no_grad():
        return engines.apart(engines.eager(course.view, k)(batch), run(batch))


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("name", BOTH)
def test_a_trunk_of_pictures_is_cut_where_the_network_is(course: Course, name: str) -> None:
    batch = pictures(course)
    run = COMPILERS[name].compile(course.view, 2, batch, False)
    other = {name: tensor.flip(0) * 2 for name, tensor in batch.items()}
    assert gap(course, 2, run, batch) < 1e-5
    assert gap(course, 2, run, other) < 1e-5, "no value of the first batch is in it"
    with torch.no_grad():
        first, state = run(batch), run(other)
        assert torch.allclose(course.view.run(start=2, state=state), course.view.run(other), atol=1e-5)
        assert gap(course, 2, lambda _: first, batch) < 1e-5, "a pass leaves what the one before gave"


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("name", BOTH)
def test_a_trunk_of_texts_compiles_and_reads_the_mask(reader: Course, name: str) -> None:
    batch, k = texts(reader), len(reader.view.stages)
    run = COMPILERS[name].compile(reader.view, k, batch, False)
    whole = {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}
    short = {**whole, "attention_mask": whole["attention_mask"].clone()}
    short["attention_mask"][:, 5:] = 0
    assert [gap(reader, k, run, given) < 1e-5 for given in (batch, whole, short)] == [True] * 3
    with torch.no_grad():
        assert engines.apart(run(whole), run(short)) > 1e-3


@OPENVINO
@pytest.mark.parametrize(("in_half", "least", "most"), [(False, 0.0, 1e-5), (True, 1e-4, 0.05)])
def test_openvino_computes_in_the_numbers_that_are_asked_for(
    course: Course, in_half: bool, least: float, most: float
) -> None:
    batch = pictures(course)
    run = compilers.openvino(course.view, 4, batch, in_half)
    assert least <= gap(course, 4, run, batch) < most and run(batch).value.dtype == torch.float32


@OPENVINO
def test_openvino_reports_nothing(tmp_path: Path) -> None:
    """Imported alone it writes `intel/` into the home folder, and sends what it noted there."""
    code = "from regraft.kit.optional import trouble; print(trouble('openvino')); import openvino"
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), list(tmp_path.iterdir())) == (0, "", []), done.stderr


class Deciding:
    """A network that looks at values to decide what it does."""

    def run(self, batch: Batch, stop: int) -> State:
        value = batch["x"] * (2 if batch["x"].sum() > 0 else 3)
        return State(value, {}, {})


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("name", BOTH)
def test_what_decides_by_values_runs_as_before(name: str) -> None:
    deciding: Any = Deciding()
    engine, costs, batch = Engine(deciding, 1), {name: 0.0}, {"x": torch.ones(2, 3)}
    (told,) = engine.compile(batch, 1, costs)
    assert told.startswith(f"not compiled with {name} (") and not costs and not engine.compiler
    assert torch.equal(engine(batch).value, 2 * batch["x"])


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize(
    ("source", "told"),
    [("", "import of openvino halted"), ("raise RuntimeError('libtbb.so.12: no such file')", "libtbb.so.12")],
)
def test_an_absent_or_broken_openvino_is_told_once(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, told: str
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    if source:
        monkeypatch.delitem(sys.modules, "openvino")
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "openvino.py").write_text(source)
    engine, costs, batch = Engine(course.view, 2), {"openvino": 0.0}, pictures(course)
    (said,) = engine.compile(batch, 1, costs)
    assert said.startswith("not compiled with openvino (") and told in said
    assert engine.compile(batch, 1, costs) == [] and not engine.compiler
    assert gap(course, 2, engine, batch) == 0.0
    optional.trouble.cache_clear()


def test_a_compiler_that_is_not_installed_is_not_expected(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert list(compilers.expected()) == ["inductor"]
    engine = Engine(course.view, 2)
    said = engine.compile(pictures(course), 1, compilers.expected(), "openvino")
    assert said == ["no longer compiled with openvino, which is not here"] and not engine.compiler


def test_a_mark_names_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"openvino": "2026.4", "torch": "2.15"}
    monkeypatch.setattr(importlib.metadata, "version", held.__getitem__)
    assert [compilers.mark(name) for name in COMPILERS] == ["openvino 2026.4", "inductor 2.15"]


def test_a_mark_tells_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", gone)
    assert compilers.mark("openvino") == "openvino absent"
