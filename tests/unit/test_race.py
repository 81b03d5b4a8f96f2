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
from regraft.planner.race import Course, pick, samples
from regraft.tasks import classify, regress
from regraft.waist import Cost, Data, Filled, Phase, Plan, Row, Said, Target, Trial
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


def test_of_plans_of_one_cost_the_better_wins(tmp_path: Path) -> None:
    """However little better: there is nothing to save."""
    trials = [trial(tmp_path, "mean", range(10, 32), 90), trial(tmp_path, "native", range(20), 90)]
    for order in (trials, trials[::-1]):
        assert chosen(tmp_path, *order) == ("native", "native has the best accuracy on 200 validation rows")


def test_of_equal_plans_of_one_cost_the_first_wins(tmp_path: Path) -> None:
    trials = [trial(tmp_path, "mean", range(20), 90), trial(tmp_path, "native", range(20), 90)]
    assert chosen(tmp_path, *trials)[0] == "mean" and chosen(tmp_path, *trials[::-1])[0] == "native"


def test_of_cheaper_plans_of_one_cost_the_better_wins(tmp_path: Path) -> None:
    """Two probes that differ in pooling alone beside a dear plan that beats neither."""
    trials = [
        trial(tmp_path, "mean", range(10, 35), 90),
        trial(tmp_path, "native", range(9, 30), 90),
        trial(tmp_path, "partial", range(20), 900),
    ]
    assert chosen(tmp_path, *trials)[0] == "native"


def test_a_head_without_a_bias_is_no_cheaper_plan(tmp_path: Path) -> None:
    trials = [trial(tmp_path, "mean", range(20), 130), trial(tmp_path, "native", range(21), 128)]
    assert chosen(tmp_path, *trials) == ("mean", "mean has the best accuracy on 200 validation rows")


NUMBER = Target("age", "number", centre=3.0, spread=2.0)
AGES = [float(i % 7) for i in range(N)]


def errors(folder: Path, name: str, off: float, trainable: int) -> Trial:
    """A finished trial that misses every age on validation, by `off` on average."""
    made = np.array(AGES, np.float32) + np.random.default_rng(trainable).normal(0, off, N).astype(np.float32)
    durable.write(folder / f"{name}.safetensors", save({"val": made[:, None]}))
    plan = Plan(name, (Phase(1, 0, (("*", 1.0),)),))
    return Trial(plan, 0, (), (), Cost(1.0, trainable), f"{name}.safetensors", "")


def test_where_lower_is_better_the_smallest_error_leads(tmp_path: Path) -> None:
    data = dataclasses.replace(DATA, target=NUMBER, val=[Row(f"{i}", None, y, "", "") for i, y in enumerate(AGES)])
    task = regress.make(NUMBER)
    assert task.metrics[0].better == "lower"
    far, near, dear = (
        errors(tmp_path, "far", 3.0, 3),
        errors(tmp_path, "near", 1.0, 90),
        errors(tmp_path, "d", 0.98, 900),
    )
    assert pick([far, near], task, data, tmp_path, 0) == (1, "near has the best rmse on 200 validation rows")
    number, rule = pick([far, near, dear], task, data, tmp_path, 0)
    if number == 1:
        assert rule.startswith("near trains fewer weights than d, which gains +0.") and "rmse over it" in rule
    assert number != 0 and pick([dear, near, far], task, data, tmp_path, 0)[0] == {1: 1, 2: 0}[number]
    assert pick([far, dear], task, data, tmp_path, 0)[0] == 1, "a dear plan that is clearly nearer"


def test_plans_are_told_apart_by_their_labels(tmp_path: Path) -> None:
    some = [trial(tmp_path, "probe", range(20), 3), trial(tmp_path, "other", range(20), 900)]
    mean = dataclasses.replace(some[0], plan=dataclasses.replace(some[0].plan, pooling="mean"))
    deep = dataclasses.replace(some[1], plan=dataclasses.replace(some[1].plan, knobs=(("depth", 2),)))
    rule = pick([mean, deep], TASK, DATA, tmp_path, 0)[1]
    assert rule.startswith("other depth 2 and probe (mean) are equal on 200")


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
    assert (course.sides(mean.view), course.sides(native.view)) == (2, 1)
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
    assert next(e.text for e in again if isinstance(e, Said)).startswith(
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
    trunk = course._trunk(course.view, 0)
    found = list(samples(course.encoder, course.data.train, trunk, apart))
    lengths = [batch["input_ids"].shape[1] for batch in found]
    assert len(set(lengths)) == len(lengths) >= 3
    assert all(len(batch["input_ids"]) == trunk.rows(length) for batch, length in zip(found, lengths, strict=True))
    assert ("token_type_ids" in found[0]) and any(int(b["token_type_ids"].max()) for b in found) == (apart == 1)
