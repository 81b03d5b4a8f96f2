"""Law 9: one seed, one result, bit for bit; another seed, another one. A clock's choices are kept and replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regraft.kit import hardware, shelf
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.waist import MachineCard
from tests import places

SHORT: dict[str, dict[str, Any]] = {
    "bitfit": {"epochs": 1, "batch": 8, "last": 1},
    "bottleneck": {"epochs": 1, "batch": 8, "last": 2},
    "contrast": {"epochs": 1, "batch": 14},
    "full": {"epochs": 1, "batch": 8},
    "gradual": {"by": "lpft", "epochs": 1, "batch": 8},
    "ia3": {"epochs": 1, "batch": 8, "last": 1},
    "layerwise": {"epochs": 1, "batch": 8},
    "lora": {"epochs": 1, "batch": 8, "last": 2},
    "norms": {"epochs": 1, "batch": 8, "last": 1},
    "partial": {"epochs": 2, "batch": 8},
    "prefix": {"epochs": 1, "batch": 8, "last": 1},
    "probe": {"epochs": 2, "batch": 8},
    "prompt": {"epochs": 1, "batch": 8, "last": 1},
    "scratch": {"by": "random", "epochs": 1, "batch": 8},
    "side": {"epochs": 2, "batch": 8},
}
STILL: list[tuple[str, dict[str, Any]]] = [("asis", {}), ("prototype", {}), ("scratch", {"by": "plain"})]
"""Plans in which nothing is drawn at random."""


def test_no_strategy_is_left_out() -> None:
    assert sorted({*SHORT, *(name for name, _ in STILL)}) == list(shelf.names("strategies"))


@pytest.mark.parametrize("strategy", [name for name in SHORT if name not in places.ATTENDING])
def test_the_seed_decides(tmp_path: Path, strategy: str) -> None:
    found = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        course = places.course(tmp_path, run=run, seed=seed)
        trial = places.finish(course, places.plan(course, strategy, **SHORT[strategy]))
        found.append(places.weights(course, trial))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(("strategy", "knobs"), STILL, ids=str)
@pytest.mark.parametrize("of", ["pictures", "texts"])
def test_where_nothing_is_drawn_every_seed_ends_the_same(
    tmp_path: Path, strategy: str, knobs: dict[str, Any], of: str
) -> None:
    found = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        course = (places.course if of == "pictures" else places.text_course)(tmp_path, run=run, seed=seed)
        trial = places.finish(course, places.plan(course, strategy, **knobs))
        found.append((places.weights(course, trial), (course.folder.path / trial.predictions).read_bytes()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("strategy", SHORT)
def test_the_seed_decides_for_texts(tmp_path: Path, strategy: str) -> None:
    """With dropout in the trained stages, batches of three sizes, and a pooler that the checkpoint lacks."""
    found = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        course = places.text_course(tmp_path, run=run, seed=seed)
        knobs = SHORT[strategy] | {"pooling": "native"}
        found.append(places.weights(course, places.finish(course, places.plan(course, strategy, **knobs))))
    assert found[0] == found[1] != found[2]


def test_trials_that_take_turns_do_not_disturb_each_other(tmp_path: Path) -> None:
    alone = places.course(tmp_path, run="alone")
    plans = [places.plan(alone, name, **SHORT[name]) for name in ("partial", "scratch")]
    wanted = [places.weights(alone, places.finish(alone, plan, i)) for i, plan in enumerate(plans)]
    both = places.course(tmp_path, run="both")
    works = [both.trial(i, plan) for i, plan in enumerate(plans)]
    ended = {}
    while len(ended) < len(works):
        for i, work in enumerate(works):
            event = next(work, None)
            if type(event).__name__ == "Finished":
                ended[i] = event.trial  # type: ignore[union-attr]
    assert [places.weights(both, ended[i]) for i in range(2)] == wanted


def test_what_a_clock_chose_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = places.course(tmp_path)
    folder = Folder(tmp_path / "run")

    def machine() -> MachineCard:
        return survey.machine(course.view, course.data, course.encoder, "auto")

    monkeypatch.setattr(hardware, "bf16_gain", lambda: 3.0)
    first = folder.step("machine", MachineCard, machine, "mark")
    assert first.dtype == "bfloat16" and first.promise == "tolerance" and "3.00 times" in first.notes[0]
    monkeypatch.setattr(hardware, "bf16_gain", lambda: 0.05)
    assert folder.step("machine", MachineCard, machine, "mark") == first
    slow = machine()
    assert slow.dtype == "float32" and "0.05 times" in slow.notes[0]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("loose", ["half precision", "scaled pictures"])
def test_a_trunk_that_is_not_exact_trains_and_is_scored_as_it_ships(tmp_path: Path, loose: str, cached: bool) -> None:
    import dataclasses

    from regraft.engine.predict import outputs
    from regraft.modalities import image

    places.photographs(tmp_path / "data", 64, {"train": 9, "val": 5, "test": 6})
    course = places.course(tmp_path, cached=cached)
    other: dict[str, Any] = {"dtype": "bfloat16"}
    if loose == "scaled pictures":
        other = {"inputs": image.loosened(course.view.inputs, course.data.train)[0]}
    machine = dataclasses.replace(course.machine, promise="tolerance", **other)
    course = dataclasses.replace(course, machine=machine)
    trial = places.finish(course, places.plan(course, "partial", depth=1, epochs=2))
    exact = places.course(tmp_path, run="exact", cached=False)
    trained, wanted = (one.table(one.view, 3, one.data.test).batch([0, 1])[0].state.value for one in (course, exact))
    assert trained.shape == wanted.shape and not trained.equal(wanted), "it trained on the same states"
    graft = exact.restore(dataclasses.replace(trial, snapshot=str(tmp_path / "run" / trial.snapshot)))
    made = outputs(graft, exact.table(graft.view, 3, exact.data.test)).numpy()
    from safetensors.numpy import load_file

    said = load_file(tmp_path / "run" / trial.predictions)
    assert (said["test"] == made).all()
    assert (said["val"] == outputs(graft, exact.table(graft.view, 3, exact.data.val)).numpy()).all()
