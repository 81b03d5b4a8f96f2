"""A few rows of each class: which are drawn, that none beyond them are used, and repeating it over draws."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from regraft import flow
from regraft.data.few import drawn
from regraft.data.open import open_data
from regraft.errors import DataError, UsageError
from regraft.kit.store import Folder
from regraft.planner.draws import trained
from regraft.planner.request import resolved, strategies_of
from regraft.waist import Data, Options, Reading, Row, Target, Trial
from tests import places
from tests.calls import call


def data(each: int = 10, twins: int = 0) -> Data:
    """Rows of three classes, of which the first ones have a twin of equal content."""
    rows = tuple(
        Row(f"{i}{twin}", None, "abc"[i % 3], "", str(i)) for i in range(3 * each) for twin in "xy"[: 1 + (i < twins)]
    )
    target = Target("y", "class", ("a", "b", "c"), (each,) * 3)
    return Data("d", "text", target, rows, rows[:6], rows[6:9], "f")


@pytest.mark.parametrize(("shots", "val"), [(2, 1), (5, 1), (8, 2), (10, 2)])
def test_every_class_has_as_many_rows_as_asked_for_and_validation_is_a_part_of_them(shots: int, val: int) -> None:
    found = drawn(data(twins=20), shots, 0)
    for label in "abc":
        counts = [sum(row.y == label for row in rows) for rows in (found.train, found.val)]
        assert counts == [shots - val, val]
    keys = [row.key for row in (*found.train, *found.val)]
    assert len(set(keys)) == len(keys), "no two of equal content"
    assert found.test == data(twins=20).test and found.target.counts == (shots - val,) * 3
    assert f"{shots} rows of each class drawn of 50 training rows, seed 0" in found.notes[-1]


def test_the_draw_follows_from_the_seed_and_content() -> None:
    one, same, other = (drawn(data(), 4, seed) for seed in (0, 0, 1))
    assert one == same and {r.id for r in one.train} != {r.id for r in other.train}
    assert one.fingerprint != other.fingerprint
    turned = dataclasses.replace(data(), train=data().train[::-1])
    assert {row.id for row in drawn(turned, 4, 0).train} == {row.id for row in one.train}


def test_with_one_row_of_each_class_it_stands_in_both_splits() -> None:
    found = drawn(data(), 1, 0)
    assert found.train == found.val and len(found.train) == 3 and "says nothing of others" in found.notes[-1]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(DataError, match=r"a: 10, b: 10, c: 10 .*--shots 1 to 10"):
        drawn(data(twins=20), 11, 0)
    with pytest.raises(UsageError, match=r"the target has no classes .*--shots 3 for y, a target of kind 'number'"):
        drawn(dataclasses.replace(data(), target=Target("y", "number")), 3, 0)


def test_opening_draws(tmp_path: Path) -> None:
    found = open_data(str(places.texts(tmp_path / "data")), 3, Reading(shots=5))
    assert (len(found.train), len(found.val), len(found.test)) == (12, 3, 15)
    assert found == drawn(open_data(str(tmp_path / "data"), 3), 5, 3)


def test_strategies_for_few_rows_run_where_few_are_asked_for() -> None:
    usual, few = Options("d", "m"), Options("d", "m", Reading(shots=8))
    assert {*strategies_of(few)} - {*strategies_of(usual)} == {"contrast", "prototype"}
    assert resolved(few).knobs == (("probe.by", "path"),) and resolved(usual).knobs == ()
    steps = dataclasses.replace(few, knobs=(("probe.lr", "0.1"),))
    assert resolved(steps).knobs == steps.knobs, "what is said holds"
    full = dataclasses.replace(few, strategies=("full",))
    assert resolved(full).knobs == ()


def test_a_plan_that_validation_stops_is_run_twice(tmp_path: Path) -> None:
    """The first run says after how many epochs, the second one trains on all rows for as long."""
    course = places.text_course(tmp_path)
    plan = places.plan(course, "probe", epochs=3, pooling="mean")
    first, whole = _run(course, plan)
    assert (first.plan.fold, whole.plan.fold) == ("train", "all") and whole.plan.phases[0].stop > 0
    (only,) = _run(course, places.plan(course, "prototype", pooling="mean"))
    assert only.plan.fold == "all"


def _run(course: object, plan: object) -> list[Trial]:
    return flow.finish(trained(course, 0, plan))  # type: ignore[arg-type]


def test_the_command_repeats_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, model = places.texts(tmp_path / "data"), places.encoder_model(tmp_path / "model")
    asked = [
        "shots",
        str(place),
        "--model",
        str(model),
        "--shots",
        "3",
        "--draws",
        "2",
        "--out",
        str(tmp_path / "runs"),
    ]
    asked += ["--strategy", "prototype", "--strategy", "probe"]
    code, out, _ = call([*asked, "--json"], capsys)
    told = json.loads(out)
    assert code == 0
    assert told["ok"] and (told["shots"], told["draws"], told["rows"]) == (3, 2, 15)
    assert {one["plan"].split(" (")[0] for one in told["plans"]} == {"prototype", "probe path"}
    means = [one["mean"] for one in told["plans"]]
    assert means == sorted(means, reverse=True) and all(len(one["scores"]) == 2 for one in told["plans"])
    assert all(one["low"] <= one["mean"] <= one["high"] for one in told["plans"])
    (run,) = (tmp_path / "runs").iterdir()
    assert Folder(run).has("shots") and (run / "draw-2/trials").is_dir()
    before = sorted(path.stat().st_mtime_ns for path in run.rglob("trial.json"))
    code, out, _ = call(asked, capsys)
    assert sorted(path.stat().st_mtime_ns for path in run.rglob("trial.json")) == before, "read, not run again"
    assert code == 0 and "mean [95 % interval]" in out and "3 rows of each class, 2 draws, 15 test rows" in out
