"""Picking: validation decides, the cheapest plan wins unless it is clearly beaten, test rows are never looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from regraft.kit import durable
from regraft.kit.store import Folder
from regraft.planner.race import Course, pick
from regraft.tasks import classify
from regraft.waist import Cost, Data, Phase, Plan, Row, Target, Trial
from tests import places

TARGET = Target("label", "class", ("a", "b"), (1, 1))
TASK = classify.make(TARGET)
N = 200
ROWS = [Row(f"{i}", None, "ab"[i % 2], "", str(i)) for i in range(N)]
DATA = Data("d", "image", TARGET, (), ROWS, (), "f")


def trial(folder: Path, name: str, wrong: Sequence[int], trainable: int, seconds: float = 1.0) -> Trial:
    """A finished trial whose predictions on validation are right but for the rows `wrong`."""
    y = np.arange(N) % 2
    pred = np.where(np.isin(np.arange(N), wrong), 1 - y, y)
    logits = np.eye(2, dtype=np.float32)[pred]
    durable.write(folder / f"{name}.safetensors", save({"val": logits, "test": np.full((5, 2), np.nan, np.float32)}))
    plan = Plan(name, (Phase(1, 0, (("*", 1.0),)),))
    return Trial(plan, 0, (), (), Cost(seconds, trainable), f"{name}.safetensors", "")


def chosen(folder: Path, *trials: Trial) -> tuple[str, str]:
    number, rule = pick(trials, TASK, DATA, folder, 0)
    return trials[number].plan.strategy, rule


def test_one_plan_alone_is_picked(tmp_path: Path) -> None:
    assert chosen(tmp_path, trial(tmp_path, "probe", range(50), 3)) == ("probe", "the only plan that was run")


def test_the_cheapest_wins_where_the_gain_may_be_luck(tmp_path: Path) -> None:
    dear, cheap = trial(tmp_path, "partial", range(20), 900), trial(tmp_path, "probe", range(15, 37), 3)
    for order in ((dear, cheap), (cheap, dear)):
        name, rule = chosen(tmp_path, *order)
        assert name == "probe"
        assert rule.startswith("probe trains fewer weights than partial, which gains +0.010 [-0.")
        assert rule.endswith("accuracy over it on 200 validation rows: not significant")


def test_a_clearly_better_plan_wins(tmp_path: Path) -> None:
    dear, cheap = trial(tmp_path, "partial", range(20), 900), trial(tmp_path, "probe", range(60), 3)
    assert chosen(tmp_path, cheap, dear) == ("partial", "partial has the best accuracy on 200 validation rows")


def test_the_cheapest_of_those_that_are_not_beaten_wins(tmp_path: Path) -> None:
    trials = [
        trial(tmp_path, "probe", range(80), 3),
        trial(tmp_path, "partial", range(21), 90),
        trial(tmp_path, "full", range(20), 900),
    ]
    assert chosen(tmp_path, *trials)[0] == "partial"


def test_a_cheap_leader_wins_outright(tmp_path: Path) -> None:
    trials = [trial(tmp_path, "probe", range(5), 3), trial(tmp_path, "partial", range(6), 900)]
    assert chosen(tmp_path, *trials) == ("probe", "probe has the best accuracy on 200 validation rows")


def test_of_equal_plans_the_cheapest_wins(tmp_path: Path) -> None:
    trials = [trial(tmp_path, "partial", range(9), 900, seconds=1), trial(tmp_path, "probe", range(9), 3, seconds=2)]
    name, rule = chosen(tmp_path, *trials)
    assert (name, rule) == (
        "probe",
        "partial and probe are equal on 200 validation rows, and probe trains the fewest weights of these",
    )


def test_the_pick_follows_its_seed_and_nothing_else(tmp_path: Path) -> None:
    trials = [trial(tmp_path, "probe", range(25), 3), trial(tmp_path, "partial", range(20), 900)]
    assert pick(trials, TASK, DATA, tmp_path, 4) == pick(trials, TASK, DATA, tmp_path, 4)


def test_test_rows_are_never_read(tmp_path: Path) -> None:
    trials = [trial(tmp_path, "probe", range(60), 3), trial(tmp_path, "partial", range(20), 900)]
    before = chosen(tmp_path, *trials)
    for name, wrong in (("probe", range(60)), ("partial", range(20))):
        y = np.arange(N) % 2
        pred = np.where(np.isin(np.arange(N), wrong), 1 - y, y)
        durable.write(tmp_path / f"{name}.safetensors", save({"val": np.eye(2, dtype=np.float32)[pred]}))
    assert chosen(tmp_path, *trials) == before


# ---------------------------------------------------------------- a course


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
    assert [s.split for s in first.scores] == ["val", "val", "test", "test"]
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
