"""Engines of the trunk: they give what the network gives, within rounding, and one that does not pay is not used."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import pytest
import torch

from regraft.engine import compilers, engines
from regraft.engine.compilers import COMPILERS, Compiler
from regraft.engine.engines import Engine
from regraft.planner.course import Course
from tests import places


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


def test_ways_to_train_are_timed_once_for_a_network_and_each_size_of_pictures(
    course: Course, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another task on the network, or a second look, takes what was found; larger pictures are timed anew."""
    timed: list[int] = []
    monkeypatch.setattr(engines, "seconds", lambda *_: float(timed.append(1) or 3 - len(timed) % 3))
    monkeypatch.setattr(engines, "_MEASURED", WeakKeyDictionary())
    first, told = engines.training(course.view, batch, "eager", True)
    assert len(timed) == 3 and first.dtype == "bfloat16" and "times as fast" in told
    again = course.view.prepared(course.view.inputs)
    assert engines.training(again, {n: v[:4] for n, v in batch.items()}, "eager", True) == (first, told)
    assert len(timed) == 3
    engines.training(course.view, {n: torch.cat([v, v], 2) for n, v in batch.items()}, "eager", True)
    assert len(timed) == 6


def clocked(
    course: Course, monkeypatch: pytest.MonkeyPatch, made: dict[str, engines.Pass], seconds: dict[str, float]
) -> Engine:
    """An engine whose compilers make these passes; the clock is told beforehand: 2 s as it stands."""
    for name, run in made.items():
        monkeypatch.setitem(COMPILERS, name, Compiler(lambda *_, run=run: run, 0.0, "torch"))
    told = {id(run): seconds[name] for name, run in made.items()}
    monkeypatch.setattr(engines, "seconds", lambda run, *_: told.get(id(run), 2.0))
    return Engine(course.view, 2)


def test_what_is_not_repaid_is_not_compiled(course: Course, batch: dict[str, torch.Tensor]) -> None:
    engine, costs = Engine(course.view, 2), compilers.expected()
    assert engine.compile(batch, 1, costs) == [] and not engine.compiler and costs == compilers.expected()


@pytest.mark.parametrize(("fast", "used"), [(1.0, True), (2.0, False)])
def test_only_what_is_faster_is_kept(
    course: Course, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, fast: float, used: bool
) -> None:
    made = {"inductor": engines.channels_last(course.view, 2)}
    engine, costs = clocked(course, monkeypatch, made, {"inductor": fast}), {"inductor": 40.0}
    (told,) = engine.compile(batch, 1000, costs)
    assert engine.compiler == ("inductor" if used else "") and told.endswith("not used") is not used
    assert told.startswith("compiled with inductor in 0 s: ") and costs["inductor"] < 40, "measured, not expected"
    with torch.no_grad():
        assert engines.apart(engine(batch), engine.run(batch)) < 1e-5


@pytest.mark.parametrize(
    ("openvino_s", "inductor_s", "passes", "tried", "used"),
    [
        (1.0, 0.5, 1000, ["openvino"], "openvino"),  # inductor is expected at 2 / 1.5 s: nothing left to repay it
        (1.8, 0.5, 1000, ["openvino", "inductor"], "inductor"),
        (1.8, 1.75, 1000, ["openvino", "inductor"], "openvino"),
        (1.8, 0.5, 50, ["openvino"], "openvino"),
        (2.0, 0.5, 1000, ["openvino", "inductor"], "inductor"),
        (2.0, 0.5, 2, [], ""),
    ],
)
def test_the_cheaper_compiler_is_tried_first_and_the_other_where_it_can_still_repay(
    course: Course,
    batch: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    openvino_s: float,
    inductor_s: float,
    passes: int,
    tried: list[str],
    used: str,
) -> None:
    made = {name: engines.channels_last(course.view, 2) for name in ("inductor", "openvino")}
    engine = clocked(course, monkeypatch, made, {"openvino": openvino_s, "inductor": inductor_s})
    told = engine.compile(batch, passes, {"inductor": 40.0, "openvino": 3.0})
    assert [text.split()[2] for text in told] == tried and engine.compiler == used


def test_all_shapes_of_a_trunk_run_with_one_compiler(
    course: Course, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: engines.channels_last(course.view, 2) for name in ("inductor", "openvino")}
    engine = clocked(course, monkeypatch, made, {"openvino": 1.0, "inductor": 0.1})
    half = {name: tensor[:4] for name, tensor in batch.items()}
    assert len(engine.compile(batch, 10, {"openvino": 3.0, "inductor": 40.0})) == 1
    (told,) = engine.compile(half, 1000, {"openvino": 3.0, "inductor": 0.0})
    assert told.startswith("compiled with openvino") and engine.compiler == "openvino"


def test_what_was_chosen_before_is_the_only_one_whatever_it_costs(
    course: Course, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: engines.channels_last(course.view, 2) for name in ("inductor", "openvino")}
    engine = clocked(course, monkeypatch, made, {"openvino": 0.1, "inductor": 1.0})
    engine.compile(batch, 1, {"openvino": 3.0, "inductor": 40.0}, "inductor")
    assert engine.compiler == "inductor"


@pytest.mark.parametrize(("in_half", "used"), [(False, ""), (True, "inductor")])
def test_what_is_further_from_the_network_than_its_numbers_allow_is_never_used(
    course: Course, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, in_half: bool, used: str
) -> None:
    made = {"inductor": engines.half(engines.eager(course.view, 2))}
    clocked(course, monkeypatch, made, {"inductor": 1.0})
    engine = Engine(course.view, 2, in_half=in_half)
    (told,) = engine.compile(batch, 1000, {"inductor": 0.0})
    assert engine.compiler == used and ("not used" in told) is not in_half


def test_a_trunk_that_cannot_be_compiled_runs_as_before(
    course: Course, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unconverted(Exception):
        """What a library raises that derives from nothing more telling."""

    def refused(*_: object) -> engines.Pass:
        raise Unconverted("no rule for\naten::odd")

    monkeypatch.setitem(COMPILERS, "inductor", Compiler(refused, 0.0, "torch"))
    engine, costs = Engine(course.view, 2), {"inductor": 0.0}
    assert engine.compile(batch, 1, costs) == ["not compiled with inductor (no rule for aten::odd)"]
    assert not engine.compiler and not costs, "it is not tried again"
