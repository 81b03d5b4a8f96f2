"""Varied rows: a cached fit equals an uncached one, goes on where it stopped, and shows each row all of its views."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.engine.close import Near
from regraft.engine.fit import _Phase, seed_of, touched
from regraft.engine.penalties import choose
from regraft.engine.predict import everything
from regraft.errors import UsageError
from regraft.kit import hardware
from regraft.kit.store import Folder
from regraft.modalities import image
from regraft.planner.course import Course
from regraft.waist import InputSpec, Scored, Step, Varied
from tests import places


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("views"))


def fresh(course: Course, place: Path, *, cached: bool = True, every_s: float = 1e9) -> Course:
    return dataclasses.replace(course, folder=Folder(place), cached=cached, every_s=every_s)


@pytest.mark.parametrize(("how", "views"), [("flip", 0), ("crop", 3)])
def test_cached_equals_uncached_bit_for_bit(course: Course, tmp_path: Path, how: str, views: int) -> None:
    kept, plain = fresh(course, tmp_path / "kept"), fresh(course, tmp_path / "plain", cached=False)
    plan = places.plan(course, "partial", depth=1, epochs=4, augment=how, views=views)
    assert plan.views == (views or 2) and plan.trunk == 3
    one, other = places.finish(kept, plan), places.finish(plain, plan)
    assert places.weights(kept, one) == places.weights(plain, other) and one.scores == other.scores
    rows = sum(len(getattr(course.data, name)) for name in ("val", "test"))
    assert sum(kept.trunks.ran().values()) == plan.views * len(course.data.train) + rows


def test_what_is_varied_is_not_what_was_there(course: Course, tmp_path: Path) -> None:
    plan = places.plan(course, "partial", depth=1, epochs=2)
    varied = places.plan(course, "partial", depth=1, epochs=2, augment="crop")
    one, other = fresh(course, tmp_path / "one"), fresh(course, tmp_path / "other")
    assert places.weights(one, places.finish(one, plan)) != places.weights(other, places.finish(other, varied))


def test_a_fit_that_stopped_anywhere_ends_the_same(course: Course, tmp_path: Path) -> None:
    plan = places.plan(course, "partial", depth=1, epochs=3, augment="crop", views=2)
    whole = fresh(course, tmp_path / "whole")
    wanted = places.weights(whole, places.finish(whole, plan))
    torn = fresh(course, tmp_path / "torn", every_s=0)
    for stop in (1, 2, 4):
        work, steps = torn.trial(0, plan), 0
        for event in work:
            steps += isinstance(event, Step)
            if steps == stop:
                break
        work.close()
    assert places.weights(torn, places.finish(torn, plan)) == wanted


def test_every_row_shows_all_its_views_in_each_round(course: Course, tmp_path: Path) -> None:
    plan = places.plan(course, "partial", depth=1, epochs=6, augment="crop", views=3)
    own = fresh(course, tmp_path / "own")
    graft = own.graft(plan)
    tables = own.table(graft.view, 3, own.views(plan)), own.table(graft.view, 3, own.data.val)
    near = Near.of(plan, graft, touched(plan, graft), None)
    phase = _Phase(plan, 0, near, own.task, tables, own._keeper(0, plan), 0)
    turns = [phase._turns(epoch) for epoch in range(6)]
    for begin in (0, 3):
        assert all(sorted(turns[begin + i][row] for i in range(3)) == [0, 1, 2] for row in range(phase.rows))
    assert len({tuple(turn) for turn in turns}) == 6, "rounds and rows have orders of their own"
    assert phase.rows == len(own.data.train) and len(tables[0].rows) == 3 * phase.rows


def test_nothing_frozen_takes_a_new_view_in_each_epoch(course: Course, tmp_path: Path) -> None:
    plan = places.plan(course, "full", epochs=3, augment="crop")
    assert (plan.trunk, plan.views) == (0, 3)
    own = fresh(course, tmp_path / "own")
    assert sum(isinstance(event, Scored) for event in own.trial(0, plan)) == 3
    assert own.trunks.ran() == {}


def test_a_head_that_is_chosen_is_fitted_to_all_views_at_once(course: Course, tmp_path: Path) -> None:
    """Cross-validation keeps the views of a row together: one that is left out is left out mirrored, too."""
    plan = places.plan(course, "probe", by="path", augment="flip")
    assert plan.views == 2 and not plan.anew
    kept, plain = fresh(course, tmp_path / "kept"), fresh(course, tmp_path / "plain", cached=False)
    one, other = places.finish(kept, plan), places.finish(plain, plan)
    assert places.weights(kept, one) == places.weights(plain, other) and one.scores == other.scores
    rows = kept.views(plan)
    assert len(rows) == 2 * len(course.data.train)
    graft = kept.graft(plan)
    features = everything(graft, kept.table(graft.view, plan.trunk, rows))
    half = len(features) // 2
    assert not torch.equal(features[:half], features[half:])
    ys, names = kept.task.encode([row.y for row in rows]), [row.key for row in course.data.train] * 2
    choose(graft.head, features, ys, kept.task, plan.loss, names, seed_of(0, "folds"))
    held = kept.restore(one).head
    assert torch.equal(held.weight, graft.head.weight) and torch.equal(held.bias, graft.head.bias)


def test_views_are_as_many_as_the_cache_holds(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    each = len(course.data.train) * course.view.stages[2].out_bytes
    for room, wanted in ((100, 8), (10.5, 5), (2, 1), (0.1, 1)):
        monkeypatch.setattr(hardware, "cache_bytes", lambda room=room: int(room * each))
        assert places.plan(course, "partial", depth=1, epochs=20, augment="crop").views == wanted
    assert places.plan(course, "partial", depth=1, epochs=20, augment="crop", views=12).views == 12, "as was asked"


def test_texts_are_not_varied(tmp_path: Path) -> None:
    text = places.text_course(tmp_path)
    with pytest.raises(UsageError) as error:
        places.plan(text, "probe", augment="crop")
    assert error.value.allowed == "none" and "probe.augment crop" in error.value.saw


# ---------------------------------------------------------------- pictures


SPEC = InputSpec("image", (3, 32, 32), settings=(("height", 32), ("width", 32), ("resample", 2)))


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_flips_are_exact() -> None:
    plain, mirrored = (image.varied(Varied(pixels(), "flip", view, 0), SPEC) for view in (0, 1))
    assert (plain == image.fit(image.picture(pixels()), SPEC)).all()
    assert (mirrored == image.fit(image.picture(pixels()[:, ::-1]), SPEC)).all()


def test_crops_are_drawn_by_their_seed_alone() -> None:
    made = [image.varied(Varied(pixels(), "crop", 0, seed), SPEC) for seed in range(20)]
    assert all(one.shape == (32, 32, 3) for one in made)
    assert (made[3] == image.varied(Varied(pixels(), "crop", 7, 3), SPEC)).all()
    assert Counter(one.tobytes() for one in made).most_common(1)[0][1] == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (3, 2)])
def test_any_picture_can_be_cropped(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 90, np.uint8)
    assert all((image.varied(Varied(picture, "crop", 0, seed), SPEC) == 90).all() for seed in range(30))


def test_an_encoder_takes_varied_cells() -> None:
    encoder = image.encoder(SPEC, True)
    cell = Varied(pixels(), "flip", 1, 0)
    made = encoder.tensors([cell, pixels()])["pixel_values"]
    assert torch.equal(made[0], encoder.tensors([pixels()[:, ::-1]])["pixel_values"][0]) and made.shape == (
        2,
        3,
        32,
        32,
    )
