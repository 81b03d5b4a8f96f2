"""A run's trunks: which engine computes them is written down, and each engine's states lie in a store of their own."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from regraft.engine import compilers, engines, policy
from regraft.engine.cache import Table
from regraft.engine.compilers import COMPILERS, Compiler
from regraft.engine.trunk import Trunk, join, parts_of
from regraft.engine.trunks import COMPILED, KEPT, Trunks
from regraft.errors import DataError
from regraft.kit import durable, hardware
from regraft.kit.store import Folder
from regraft.modalities import image
from regraft.planner import survey
from regraft.planner.course import Course
from regraft.planner.saved import saved
from regraft.waist import Filled, Plan, Said
from tests import places


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return places.course(tmp_path)


def eager_to_compile(course: Course, monkeypatch: pytest.MonkeyPatch, *, faster: bool) -> Trunks:
    """Trunks that may compile, and find it repaid; what is called compiled is channels last, and the clock is told."""
    monkeypatch.setitem(COMPILERS, "openvino", Compiler(lambda view, k, *_: engines.channels_last(view, k), 0, "torch"))
    plain: list[object] = []

    def seconds(run: object, *_: object) -> float:
        plain.append(run)
        return 1.0 if len(plain) % 2 else 1.0 - 0.9 * faster

    monkeypatch.setattr(engines, "seconds", seconds)
    machine = dataclasses.replace(course.machine, compiles=True)
    made = Trunks(course.view, course.encoder, machine, len(course.data.columns), course.folder)
    made._costs = {"openvino": 0.0}
    return made


def warmed(trunks: Trunks, course: Course) -> tuple[list[str], int]:
    """What is said, and how many parts go through the trunk."""
    events = list(trunks.warm(course.view, 2, course.data.train))
    filled = [event.done for event in events if isinstance(event, Filled)]
    return [event.text for event in events if isinstance(event, Said)], max(filled, default=0)


@pytest.mark.parametrize("faster", [True, False])
def test_what_a_clock_decided_is_replayed(course: Course, monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    trunks = eager_to_compile(course, monkeypatch, faster=faster)
    said, ran = warmed(trunks, course)
    assert ran == len(course.data.train) and ("not used" in said[0]) is not faster
    assert course.folder.read(COMPILED, dict[str, str]) == {"native/2": "openvino" if faster else ""}
    again = eager_to_compile(course, monkeypatch, faster=not faster)
    assert warmed(again, course)[1] == 0, "all is there, under the engine that was chosen"
    durable.remove(hardware.cache_folder())
    anew = eager_to_compile(course, monkeypatch, faster=faster)
    said, ran = warmed(anew, course)
    assert ran == len(course.data.train) and any("compiled with" in text for text in said) is faster


def test_compilers_and_their_versions_have_stores_of_their_own(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = dataclasses.replace(course.machine, compiles=True)
    trunks = Trunks(course.view, course.encoder, machine, len(course.data.columns), course.folder)
    places_seen = {trunks._store(course.view, 2).folder}
    for name, version in (("openvino", "1"), ("openvino", "2"), ("inductor", "2")):
        monkeypatch.setattr(compilers, "mark", lambda one, version=version: f"{one} {version}")
        course.folder.write(COMPILED, {"native/2": name})
        places_seen.add(trunks._store(course.view, 2).folder)
    assert len(places_seen) == 4


def test_a_run_goes_on_without_a_compiler_that_is_gone(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is computed anew by the trunk as it stands: states of the compiled one are not read on."""
    rows = len(course.data.train)
    warmed(eager_to_compile(course, monkeypatch, faster=True), course)
    again = eager_to_compile(course, monkeypatch, faster=True)
    monkeypatch.setattr(compilers, "mark", lambda name: f"{name} absent")

    def refused(*_: object) -> engines.Pass:
        raise ImportError("No module named 'openvino'")

    monkeypatch.setitem(COMPILERS, "openvino", Compiler(refused, 0, "torch"))
    said, ran = warmed(again, course)
    assert "not compiled with openvino" in said[0] and ran == rows
    assert course.folder.read(COMPILED, dict[str, str]) == {"native/2": ""}


def test_a_record_of_an_earlier_version_is_decided_anew(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    course.folder.write(COMPILED, {"native/2": False})
    assert eager_to_compile(course, monkeypatch, faster=True)._chosen() == {}


def test_no_pass_is_timed_where_all_of_them_would_not_repay_a_compilation(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunks = eager_to_compile(course, monkeypatch, faster=True)
    monkeypatch.setattr(engines, "seconds", lambda *_: pytest.fail("timed"))
    trunks._costs = {"inductor": len(course.data.train) * course.machine.forward_s}
    said, ran = warmed(trunks, course)
    assert ran == len(course.data.train) and not any("compiled" in text for text in said)
    assert course.folder.read(COMPILED, dict[str, str]) == {"native/2": ""}


def test_engines_have_stores_of_their_own(course: Course) -> None:
    exact = Trunks(course.view, course.encoder, course.machine, len(course.data.columns), course.folder)
    rows = len(course.data.train)
    assert warmed(exact, course)[1] == rows
    other = dataclasses.replace(course.machine, engine="channels-last")
    assert warmed(dataclasses.replace(exact, machine=other), course)[1] == rows
    assert warmed(dataclasses.replace(exact, machine=course.machine), course)[1] == 0


def test_what_is_prepared_otherwise_has_a_store_of_its_own_and_scores_are_read_from_the_exact_one(
    tmp_path: Path,
) -> None:
    places.photographs(tmp_path / "data", 64, {"train": 3, "val": 2, "test": 2})
    course = places.course(tmp_path)
    inputs, _ = image.loosened(course.view.inputs, course.data.train)
    view, rows = course.view, course.data.train
    exact = course.trunks
    loose = Trunks(view, course.encoder, dataclasses.replace(course.machine, inputs=inputs), 0, course.folder)
    assert (exact.ships, exact.plainly, loose.ships, loose.plainly) == (True, True, False, False)
    assert loose.encoder_of(view) is loose.encoder is not loose.encoder_of(view, 2) is loose.encoder_of(view, 3)
    scored = loose.as_shipped(view, 2, rows)
    assert warmed(loose, course)[1] == len(rows), "what is scored with is not trained on"
    assert warmed(exact, course)[1] == 0, "it is what exact runs read"
    states = [table.batch([0, 1])[0].state.value for table in (exact.table(view, 2, rows), scored)]
    assert torch.equal(*states)
    trained = loose.table(view, 2, rows).batch([0, 1])[0].state.value
    assert not torch.equal(trained, states[0])
    begun = [one.table(view, 0, rows).batch([0, 1])[0].state.inputs["pixel_values"] for one in (exact, loose)]
    assert torch.equal(*begun), "nothing is frozen below it"


def test_auto_measures_and_says_so(course: Course) -> None:
    machine = survey.machine(course.view, course.data, course.encoder, "auto")
    assert machine.engine in ("eager", "channels-last") and machine.compiles and machine.promise == "tolerance"
    assert any("channels last" in note for note in machine.notes)
    exact = survey.machine(course.view, course.data, course.encoder, "fp32")
    assert (exact.engine, exact.compiles) == ("eager", False)


def test_what_was_spared_is_counted(course: Course) -> None:
    """Two plans above one trunk: it ran once on every row, where loops run it in each epoch and to score."""
    rows = {name: len(getattr(course.data, name)) for name in ("train", "val", "test")}
    plans = [places.plan(course, "partial", depth=1, epochs=3, lr=lr) for lr in (1e-3, 1e-4)]
    trials = [places.finish(course, plan, number) for number, plan in enumerate(plans)]
    found = saved(course, trials)
    epochs = sum(len(trial.curve) for trial in trials)
    assert found.ran == sum(rows.values())
    assert found.plain == epochs * (rows["train"] + rows["val"]) + 2 * (rows["val"] + rows["test"])
    flops = [stage.flops for stage in course.view.stages]
    share = sum(flops[:-1]) / sum(flops)
    assert found.seconds == pytest.approx(found.avoided * share * course.machine.forward_s, abs=0.06)
    again = dataclasses.replace(course, folder=Folder(course.folder.path.parent / "again"))
    places.finish(again, plans[0])
    assert saved(again, trials).ran == 0, "another run found all in the cache"
    full = places.finish(course, places.plan(course, "full", epochs=1), 2)
    assert saved(course, [full]).plain == 0, "nothing of it is frozen"


# ---------------------------------------------------------------- one pass, many frontiers


def three(course: Course) -> list[Plan]:
    """Plans above three frontiers, the deepest trunk first, as a race has them."""
    probe = places.plan(course, "probe", epochs=3)
    return [probe, *(places.plan(course, "partial", depth=depth, epochs=3) for depth in (1, 2))]


def test_one_pass_serves_all_frontiers_with_the_same_bits(course: Course, tmp_path: Path) -> None:
    course = dataclasses.replace(course, machine=dataclasses.replace(course.machine, forward_s=0.05))
    rows = sum(len(getattr(course.data, name)) for name in ("train", "val", "test"))
    apart = dataclasses.replace(course, folder=Folder(tmp_path / "apart"), cached=False)
    wanted = [places.weights(apart, places.finish(apart, plan, n)) for n, plan in enumerate(three(course))]
    course.trunks.expect(three(course))
    events = [list(course.trial(number, plan)) for number, plan in enumerate(three(course))]
    said = [event.text for some in events for event in some if isinstance(event, Said) and "cache" in event.text]
    assert [text.split(",")[0] for text in said] == [
        f"cache at stage 2: the trunk ran once on {rows} of {rows} examples",
        f"cache at stage 3: the trunk went on from stage 2 on {rows} of {rows} examples",
        f"cache at stage 4: the trunk went on from stage 3 on {rows} of {rows} examples",
    ]
    assert sum(course.trunks.ran().values()) == rows
    assert [places.weights(course, places.finish(course, plan, n)) for n, plan in enumerate(three(course))] == wanted
    assert (course.folder.read(KEPT, dict[str, list[int]]) or {})["native/4"] == [2, 3]


def test_what_was_decided_is_not_decided_again(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    course = dataclasses.replace(course, machine=dataclasses.replace(course.machine, forward_s=0.05))
    course.folder.write(KEPT, {"native/4": [3]})
    monkeypatch.setattr(policy, "measured", lambda _: pytest.fail("measured again"))
    course.trunks.expect(three(course))
    told = [e.text for e in course.trial(0, three(course)[0]) if isinstance(e, Said) and "cache" in e.text]
    assert [text.split(":")[0] for text in told] == ["cache at stage 3", "cache at stage 4"]


@pytest.mark.parametrize(("forward_s", "room"), [(1e-9, 1 << 40), (0.05, 0)])
def test_nothing_is_kept_that_does_not_pay_or_fit(
    course: Course, monkeypatch: pytest.MonkeyPatch, forward_s: float, room: int
) -> None:
    monkeypatch.setattr(hardware, "cache_bytes", lambda: room)
    course = dataclasses.replace(course, machine=dataclasses.replace(course.machine, forward_s=forward_s))
    course.trunks.expect(three(course))
    assert course.trunks._kept_below(course.view, 4, 50) == []


def test_one_plan_alone_measures_nothing(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "measured", lambda _: pytest.fail("measured"))
    places.finish(course, three(course)[0])


# ---------------------------------------------------------------- reading beside computing


def test_passes_give_the_states_of_all_parts_in_their_order(course: Course) -> None:
    rows = [*course.data.train, *course.data.val]
    parts = [part for row in parts_of(course.encoder, rows, 1) for side in row for part in side]
    trunk = Trunk(course.view, 2, course.encoder, 8)
    pieces = list(trunk.passes(parts))
    assert [part.key for some, _ in pieces for part in some] == [part.key for part in parts]
    assert [len(some) for some, _ in pieces[:-1]] == [8] * (len(pieces) - 1)
    joined, whole = join([made for _, (made,) in pieces]), trunk.states(parts)
    assert torch.equal(joined.value, whole.value)


def test_a_row_that_cannot_be_read_ends_the_passes_with_its_error(course: Course) -> None:
    parts = [part for row in parts_of(course.encoder, course.data.train, 1) for side in row for part in side]

    def broken(values: list[Any]) -> dict[str, torch.Tensor]:
        if parts[9].value in values:
            raise DataError("a picture cannot be read", saw="it")
        return course.encoder.tensors(values)

    work = Trunk(course.view, 2, dataclasses.replace(course.encoder, tensors=broken), 8).passes(parts)
    next(work)
    with pytest.raises(DataError, match="cannot be read"):
        next(work)


@pytest.mark.parametrize("free", [True, False])
def test_the_next_batch_is_read_beside_what_is_computed(
    course: Course, monkeypatch: pytest.MonkeyPatch, free: bool
) -> None:
    """Where a processor is free: what was begun is taken if it is asked for, and dropped if it is not."""
    monkeypatch.setattr(hardware, "spare", lambda: free)
    here, beside = threading.current_thread(), list[bool]()

    def tensors(parts: Sequence[Any]) -> dict[str, torch.Tensor]:
        beside.append(threading.current_thread() is not here)
        return course.encoder.tensors(parts)

    rows = course.data.train
    own = Table(Trunk(course.view, 0, dataclasses.replace(course.encoder, tensors=tensors), 8), rows, None)
    plain = Table(Trunk(course.view, 0, course.encoder, 8), rows, None)
    for asked, following in (([0, 1], [2, 3]), ([2, 3], [4, 5]), ([6, 7], [])):
        (side,), (wanted,) = own.batch(asked), plain.batch(asked)
        assert all(torch.equal(side.state.inputs[name], t) for name, t in wanted.state.inputs.items())
        if following:
            own.prepare(following)
    if own._beside:
        own._beside.shutdown()  # what was begun in vain ends, too
    assert sorted(beside) == ([False, False, True, True] if free else [False] * 3)


def test_training_ends_with_the_same_bits_where_batches_are_read_ahead(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for free in (True, False):
        monkeypatch.setattr(hardware, "spare", lambda free=free: free)
        own = dataclasses.replace(course, folder=Folder(course.folder.path / str(free)))
        found.append(places.weights(own, places.finish(own, places.plan(own, "full", epochs=2, batch=8))))
    assert found[0] == found[1]


def test_features_of_random_weights_are_those_weights_own_and_are_not_kept(course: Course) -> None:
    places.finish(course, places.plan(course, "probe", epochs=1))
    chosen, stores = places.plan(course, "scratch", by="features"), dict(course.trunks._stores)
    view = course.graft(chosen).view
    table = course.table(view, chosen.frontier, course.data.train)
    parts = course.encoder.parts([row.cell for row in course.data.train[:2]])
    batch = course.encoder.tensors([value for row in parts for value, _ in row])
    (side,) = table.batch([0, 1])
    with torch.no_grad():
        assert torch.allclose(side.state.value, view.run(batch), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(side.state.value, course.view.run(batch), rtol=0.1)
    places.finish(course, chosen, 1)
    assert course.trunks._stores == stores
