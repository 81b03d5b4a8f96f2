"""Law 4: a fit on cached trunk states ends with the same bits as one that runs the trunk each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regraft.engine import cache
from regraft.engine.cache import Store, Trunk, open_store
from regraft.kit import hardware
from tests import places

PLANS = [("probe", {"epochs": 3, "batch": 7}), ("partial", {"depth": 1, "epochs": 3, "batch": 7})]
PLANS += [("partial", {"depth": 2, "epochs": 3, "batch": 7, "norm": "update"}), ("partial", {"depth": 3, "epochs": 2})]


@pytest.mark.parametrize(("strategy", "knobs"), PLANS, ids=str)
def test_cached_and_uncached_fits_are_equal(tmp_path: Path, strategy: str, knobs: dict[str, object]) -> None:
    cached = places.course(tmp_path, run="cached")
    assert cached.machine.promise == "exact"
    uncached = places.course(tmp_path, run="uncached", cached=False)
    chosen = places.plan(cached, strategy, **knobs)
    first, second = places.finish(cached, chosen), places.finish(uncached, chosen)
    assert list((hardware.cache_folder() / "trunk").rglob("*.block"))
    assert places.weights(cached, first) == places.weights(uncached, second)
    assert [line for line in first.curve] == [line for line in second.curve]
    assert first.scores == second.scores


def test_the_trunk_runs_once_for_each_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    original = Trunk.states

    def counting(self: Trunk, cells: list[object]) -> object:
        nonlocal counted
        counted += len(cells)
        return original(self, cells)

    monkeypatch.setattr(Trunk, "states", counting)
    course = places.course(tmp_path)
    places.finish(course, places.plan(course, "probe", epochs=4))
    rows = len(course.data.train) + len(course.data.val) + len(course.data.test)
    assert counted == rows
    places.finish(course, places.plan(course, "probe", epochs=2), number=1)
    assert counted == rows


def test_a_changed_block_is_dropped_and_made_again(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    k = len(course.view.stages)
    table = course.table(course.view, k, course.data.train)
    wanted = table.batch(range(5)).value
    (block,) = (hardware.cache_folder() / "trunk").rglob("*.block")
    data = bytearray(block.read_bytes())
    data[-3] ^= 1
    block.write_bytes(bytes(data))
    store = open_store(course.view, k, course.machine)
    assert store.dropped == 1 and not block.exists()
    again = course.table(course.view, k, course.data.train)
    assert torch.equal(again.batch(range(5)).value, wanted)


@pytest.mark.parametrize("touch", ["weight", "buffer", "inputs", "config", "threads", "versions", "micro_batch"])
def test_whatever_changes_the_bits_changes_the_store(tmp_path: Path, touch: str) -> None:
    import dataclasses

    course = places.course(tmp_path)
    k = 2
    before = open_store(course.view, k, course.machine).folder
    machine = course.machine
    with torch.no_grad():
        if touch == "weight":
            next(p for _, stage, p in course.view.named() if stage == 1).view(-1)[0] += 1e-7
        elif touch == "buffer":
            next(b for n, stage, b in course.view.buffers() if stage == 0 and "mean" in n).view(-1)[0] += 1e-7
        elif touch == "inputs":
            course.view.inputs = dataclasses.replace(course.view.inputs, mean=(0.5, 0.5, 0.51))
        elif touch == "config":
            course.view.config += " "
        else:
            other = {"threads": 64, "versions": (("torch", "0"),), "micro_batch": 4}[touch]
            machine = dataclasses.replace(machine, **{touch: other})
    assert open_store(course.view, k, machine).folder != before


def test_what_lies_above_the_frontier_leaves_the_store_alone(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    before = open_store(course.view, 2, course.machine).folder
    with torch.no_grad():
        for _, stage, p in course.view.named():
            if stage >= 2:
                p += 1
    assert open_store(course.view, 2, course.machine).folder == before


def test_one_changed_pixel_is_another_example(tmp_path: Path) -> None:
    from PIL import Image

    from regraft.data.open import open_data

    places.pictures(tmp_path / "data")
    before = {row.id: row.key for row in open_data(tmp_path / "data").train}
    path = tmp_path / "data" / "train" / "red" / "0.png"
    image = Image.open(path)
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)
    after = {row.id: row.key for row in open_data(tmp_path / "data").train}
    assert {name for name in before if before[name] != after[name]} == {"train/red/0.png"}


def test_stores_that_were_opened_longest_ago_make_room(tmp_path: Path) -> None:
    import os

    for i in range(4):
        (tmp_path / f"s{i}").mkdir()
        (tmp_path / f"s{i}" / "x.block").write_bytes(b"0" * 100)
        os.utime(tmp_path / f"s{i}", (i, i))
    cache.trim(tmp_path, 250, tmp_path / "s0")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s0", "s2", "s3"]


def test_a_machine_without_the_promise_is_told_apart(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    batch = course.encode([row.cell for row in course.data.train[:8]])
    assert cache.promise(course.view, batch) == "exact"

    class Shaky:
        """Adds the row's position to its features."""

        def run(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
            made = course.view.run(given)
            return made + torch.arange(len(made))[:, None] * 1e-7

    assert cache.promise(Shaky(), batch) == "tolerance"  # type: ignore[arg-type]


def test_an_unlawful_network_is_used_without_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "holds", lambda *_: False)
    course = places.course(tmp_path)
    chosen = places.plan(course, "partial", depth=1, epochs=1)
    said = [event.text for event in course.trial(0, chosen) if type(event).__name__ == "Said"]
    assert any("split law does not hold" in text for text in said)
    assert not list(hardware.cache_folder().rglob("*.block"))


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from regraft.kit import durable

    course = places.course(tmp_path)
    chosen = places.plan(course, "probe", epochs=2)
    wanted = places.weights(course, places.finish(course, chosen))
    full = places.course(tmp_path, run="full")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))

    def refuse(op: str, path: Path) -> None:
        if op == "write" and path.name.endswith(".block"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(durable, "before", refuse)
    said = [event.text for event in full.trial(0, chosen) if type(event).__name__ == "Said"]
    assert any("going on without the cache" in text and "No space left" in text for text in said)
    assert places.weights(full, places.finish(full, chosen)) == wanted
    assert not list((tmp_path / "elsewhere").rglob("*.block"))


def test_store_is_empty_where_nothing_was_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert "key" not in store and store.bytes == 0
