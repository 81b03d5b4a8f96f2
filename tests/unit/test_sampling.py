"""Rows that are drawn by how rare their class is: in which shares, how often, as many steps in every epoch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from regraft.engine.cache import Table
from regraft.engine.fit import AS_WEIGHTS
from regraft.engine.sampling import drawn
from regraft.engine.trunk import Shape
from regraft.waist import Said, Step
from tests import places

SIZES = {0: 400, 1: 100, 2: 25}
CLASSES = [kind for kind, n in SIZES.items() for _ in range(n)]
ONE: list[Shape] = [()] * len(CLASSES)


@pytest.mark.parametrize(
    ("power", "wanted"), [(0.0, [400, 100, 25]), (0.5, [300, 150, 75]), (1.0, [175, 175, 175])], ids=str
)
def test_classes_come_in_their_shares(power: float, wanted: list[int]) -> None:
    found = Counter(CLASSES[i] for i in drawn(CLASSES, ONE, power, 0))
    assert [found[kind] for kind in SIZES] == wanted


def test_no_row_comes_again_before_all_others_have_come() -> None:
    often = Counter(drawn(CLASSES, ONE, 1.0, 0))
    assert {often[i] for i in range(400)} == {0, 1} and {often[i] for i in range(400, 500)} == {1, 2}
    assert {often[i] for i in range(500, 525)} == {7}


def test_another_seed_draws_other_rows_and_as_many() -> None:
    first, second, again = (drawn(CLASSES, ONE, 1.0, seed) for seed in (0, 1, 0))
    assert first == again and first != second and len(first) == len(second)
    assert len({*first, *second} & {*range(400)}) > 175, "what one epoch leaves out comes in another"


def test_every_shape_keeps_its_number_of_rows_and_none_is_left_out_for_good() -> None:
    shapes: list[Shape] = [((16, 1),) if i % 50 else ((32, 1),) for i in range(len(CLASSES))]
    counts = [Counter(shapes[i] for i in drawn(CLASSES, shapes, 1.0, seed)) for seed in range(40)]
    assert all(count == counts[0] for count in counts)
    seen = {i for seed in range(40) for i in drawn(CLASSES, shapes, 1.0, seed)}
    assert seen == {*range(len(CLASSES))}


def unequal(tmp: Path, **asked: Any) -> Any:
    """A course over texts of three shapes, 12 rows of each colour but two of blue."""
    if not (tmp / "data").is_dir():
        table = (places.texts(tmp / "data") / "train.csv").read_text("utf-8").splitlines()
        blue = [line for line in table if line.endswith(",blue")]
        kept = [line for line in table if line not in blue[2:]]
        (tmp / "data/train.csv").write_text("\n".join(kept) + "\n", "utf-8")
    return places.text_course(tmp, **asked)


def test_batches_of_an_epoch_are_balanced_of_one_shape_and_new_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = unequal(tmp_path)
    chosen = places.plan(course, "probe", sampling="balanced", epochs=2, batch=5)
    taken: list[list[int]] = []
    original = Table.batch

    def watched(self: Table, index: Any) -> Any:
        if len(self.rows) == len(course.data.train) and isinstance(index, list):
            taken.append(list(index))
        return original(self, index)

    monkeypatch.setattr(Table, "batch", watched)
    steps = [event for event in course.trial(0, chosen) if isinstance(event, Step)]
    assert len(taken) == len(steps) and len(taken) % 2 == 0
    halves = taken[: len(taken) // 2], taken[len(taken) // 2 :]
    for half in halves:
        said = Counter(course.data.train[i].y for index in half for i in index)
        assert max(said.values()) - min(said.values()) <= 2, said
    assert halves[0] != halves[1]


@pytest.mark.parametrize(("strategy", "knobs"), [("probe", {}), ("partial", {"depth": 1})])
def test_cached_and_stopped_it_stays_the_same_bit_for_bit(
    tmp_path: Path, strategy: str, knobs: dict[str, object]
) -> None:
    course = unequal(tmp_path)
    chosen = places.plan(course, strategy, sampling="root", focal=2, epochs=2, batch=9, pooling="mean", **knobs)
    assert chosen.label.endswith("focal 2 sampling root (mean)") and chosen.sampling == 0.5
    whole, stopped = places.whole_and_stopped(course, chosen, tmp_path)
    assert (whole.curve, whole.scores, whole.snapshot) == (stopped.curve, stopped.scores, stopped.snapshot)
    plain = unequal(tmp_path, cached=False, run="plain")
    again = places.finish(plain, chosen)
    assert (again.curve, Path(again.snapshot).name) == (whole.curve, Path(whole.snapshot).name)


@pytest.mark.parametrize(("strategy", "by"), [("scratch", "plain"), ("probe", "path"), ("probe", "grid")])
def test_what_takes_all_rows_at_once_weighs_them_and_says_so(tmp_path: Path, strategy: str, by: str) -> None:
    course = unequal(tmp_path)
    made = {}
    for name, knobs in {"sampled": {"sampling": "balanced"}, "weighed": {"balance": 1}, "plain": {}}.items():
        mine = dataclasses.replace(course, folder=type(course.folder)(tmp_path / name))
        chosen = places.plan(mine, strategy, by=by, **knobs)
        events = list(mine.trial(0, chosen))
        told = [event.text for event in events if isinstance(event, Said) and AS_WEIGHTS in event.text]
        assert bool(told) == (name == "sampled")
        made[name] = places.weights(mine, places.finish(mine, chosen))
    assert made["sampled"] == made["weighed"] != made["plain"]
