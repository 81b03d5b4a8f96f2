"""A course: a plan is run, paused, ended early, read back; its head is as wide as what it gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from regraft.engine.trunk import samples
from regraft.kit.store import Folder
from regraft.planner.course import Course
from regraft.planner.sizes import refitted
from regraft.waist import Filled, Plan, Said, Scored
from tests import places


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("race"), cached=False)


@pytest.fixture
def course(base: Course, tmp_path: Path) -> Course:
    """A course with a run folder of its own."""
    return dataclasses.replace(base, folder=Folder(tmp_path / "run"))


def test_a_finished_trial_is_read_and_restored(course: Course) -> None:
    plan = places.plan(course, "partial", depth=1, epochs=1)
    first = places.finish(course, plan)
    (event,) = course.trial(0, plan)
    assert event.trial == first  # type: ignore[union-attr]
    count = len(course.task.metrics)
    assert [s.split for s in first.scores] == ["val"] * count + ["test"] * count
    assert first.cost.trainable == sum(p.numel() for _, s, p in course.view.named() if s == 3) + 16 * 3 + 3
    graft = course.restore(first)
    assert float(graft.head.weight.detach().abs().sum()) > 0


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"record": 3}'])
def test_a_damaged_record_is_run_again(course: Course, content: bytes) -> None:
    plan = places.plan(course, "probe", epochs=1)
    first = places.finish(course, plan)
    (record,) = course.folder.path.rglob("trial.json")
    record.write_bytes(content)
    assert places.finish(course, plan).scores == first.scores


# ---------------------------------------------------------------- a course over texts


def test_a_head_is_as_wide_as_what_it_gets(tmp_path: Path) -> None:
    """Four times a text's features for a pair that goes through the network apart, once for one sequence."""
    course = places.text_course(tmp_path, "pairs")
    mean, native = (course.graft(places.plan(course, "probe", pooling=name)) for name in ("mean", "native"))
    assert (mean.head.in_features, native.head.in_features) == (4 * 32, 32)
    assert (course.trunks.sides(mean.view), course.trunks.sides(native.view)) == (2, 1)
    assert mean.head.bias is not None and native.head.bias is not None


def test_filling_is_told_by_parts_and_what_two_plans_share_is_there(tmp_path: Path) -> None:
    course = places.text_course(tmp_path, "pairs")
    probe, partial = (
        places.plan(course, "probe", pooling="mean", epochs=1),
        places.plan(course, "partial", depth=1, epochs=1),
    )
    rows = [*course.data.train, *course.data.val, *course.data.test]
    texts = {side for row in rows for side in row.cell}
    filled = [e for e in course.trial(0, probe) if isinstance(e, Filled)]
    assert (filled[-1].done, filled[-1].rows) == (len(texts), len(texts)) and {e.frontier for e in filled} == {4}
    again = list(course.trial(1, dataclasses.replace(probe, batch=8)))
    assert not [e for e in again if isinstance(e, Filled)]
    assert not [e for e in again if isinstance(e, Said)], "a frontier is spoken of once"
    later = dataclasses.replace(course, folder=Folder(tmp_path / "later"))
    assert next(e.text for e in later.trial(0, probe) if isinstance(e, Said)).startswith(
        f"cache at stage 4: all {len(texts)} examples were"
    )
    assert [e.rows for e in course.trial(2, partial) if isinstance(e, Filled)][-1] == len(texts)


def test_numbers_come_with_what_validation_taught(tmp_path: Path) -> None:
    course = places.text_course(tmp_path, "number")
    trial = places.finish(course, places.plan(course, "probe", epochs=2, pooling="mean"))
    assert dict(trial.calibration)["margin"] > 0 and trial.score("val").better == "lower"
    assert trial.score("val").metric == course.task.metrics[0].name == "rmse"


@pytest.mark.parametrize("apart", [1, 2])
def test_samples_are_micro_batches_of_each_size(tmp_path: Path, apart: int) -> None:
    course = places.text_course(tmp_path, "pairs")
    trunk = course.trunks._trunk(course.view, 0)
    found = list(samples(course.encoder, course.data.train, trunk, apart))
    assert sum(share for share, _ in found) == pytest.approx(1.0)
    batches = [course.encoder.tensors(parts) for _, parts in found]
    lengths = [batch["input_ids"].shape[1] for batch in batches]
    assert len(set(lengths)) == len(lengths) >= 3
    assert all(len(batch["input_ids"]) == trunk.rows(length) for batch, length in zip(batches, lengths, strict=True))
    assert ("token_type_ids" in batches[0]) and any(int(b["token_type_ids"].max()) for b in batches) == (apart == 1)


# ---------------------------------------------------------------- paused, stopped, concluded


def epochs(course: Course, plan: Plan, count: int) -> None:
    """Pull a trial until so many epochs were scored, then pause it."""
    work, seen = course.trial(0, plan), 0
    for event in work:
        seen += isinstance(event, Scored)
        if seen == count:
            break
    work.close()


def test_a_paused_trial_goes_on_and_ends_as_if_never_paused(course: Course, base: Course, tmp_path: Path) -> None:
    plan = places.plan(course, "full", epochs=4)
    epochs(course, plan, 2)
    assert len(course.curve(0, plan)) == 2 and course.finished(0, plan) is None
    other = dataclasses.replace(base, folder=Folder(tmp_path / "whole"))
    assert places.weights(course, places.finish(course, plan)) == places.weights(other, places.finish(other, plan))


def test_a_concluded_trial_has_the_weights_of_its_best_epoch(course: Course) -> None:
    plan = places.plan(course, "full", epochs=6, lr=0.02)
    epochs(course, plan, 3)
    curve = course.curve(0, plan)
    trial = course.conclude(0, plan, "the clock ended it")
    best = min(curve, key=lambda epoch: epoch.val_loss)
    assert trial.whole and trial.stopped == "the clock ended it" and trial.curve == curve
    assert trial.score("val").value == pytest.approx(best.metric) and trial.score("test").n == len(course.data.test)
    assert course.conclude(0, plan, "twice") == trial and places.finish(course, plan) == trial


def test_a_stopped_trial_is_never_scored_on_test(course: Course) -> None:
    plan = places.plan(course, "full", epochs=6)
    epochs(course, plan, 2)
    trial = course.stop(0, plan, "another rate was ahead")
    assert not trial.whole and trial.stopped and [s.split for s in trial.scores] == ["val"]
    assert trial.cost.trainable == sum(p.numel() for _, _, p in course.view.named()) + 16 * 3 + 3
    assert places.finish(course, plan) == trial, "it is not run again"
    assert not list(course.place(0, plan).glob("*.safetensors"))


def test_a_plan_may_be_fitted_on_validation_rows_too(course: Course) -> None:
    plan = places.plan(course, "probe", epochs=3)
    first = places.finish(course, plan)
    again = refitted(first)
    assert again.fold == "all" and 1 <= again.phases[0].stop <= 3
    assert len(course.rows(again)) == len(course.data.train) + len(course.data.val)
    other = places.finish(course, again, 1)
    assert len(other.curve) == again.phases[0].stop
    assert places.weights(course, other) != places.weights(course, first)


@pytest.mark.parametrize("of", ["class", "number", "multi"])
def test_features_without_a_network_make_a_trial_as_any(tmp_path: Path, of: str) -> None:
    course = places.text_course(tmp_path, of)  # type: ignore[arg-type]
    plan = places.plan(course, "scratch", by="plain")
    trial = places.finish(course, plan)
    assert trial.whole and len(trial.curve) == 1 and trial.plan.init == "plain"
    metric = course.task.metrics[0]
    chance = metric.chance(course.task.encode([row.y for row in course.data.test]).numpy())
    value = trial.score("test").value
    assert value > chance if metric.better == "higher" else value < chance
