"""Law 4: a fit on cached trunk states ends with the same bits as one that runs the trunk each time."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from regraft.engine import blocks, cache, trunk
from regraft.engine.cache import Store, Table, open_store
from regraft.engine.trunk import Part, Trunk
from regraft.kit import hardware, shelf
from regraft.modalities import text
from regraft.planner.course import Course
from regraft.waist import Options, Reading, Said
from tests import places
from tests.disk import Disk, fail_at
from tests.laws import fillers

ROOT = Path(__file__).resolve().parents[2]

PLANS = [("probe", {"epochs": 3, "batch": 7}), ("partial", {"depth": 1, "epochs": 3, "batch": 7})]
PLANS += [("partial", {"depth": 2, "epochs": 3, "batch": 7, "norm": "update"}), ("partial", {"depth": 3, "epochs": 2})]
PLANS += [("partial", {"depth": 2, "epochs": 2, "delta": 0.1, "l2sp": 0.1, "ema": 0.8, "stochnorm": True})]
PLANS += [("side", {"epochs": 3, "batch": 7})]
PLANS += [("lora", {"last": 2, "epochs": 3, "batch": 7}), ("lora", {"last": 1, "epochs": 2, "dora": True})]


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


TEXTS: list[tuple[Any, Any, str, dict[str, Any]]] = [
    ("class", "encoder", "probe", {"pooling": "mean"}),
    ("class", "classifier", "probe", {"pooling": "native"}),
    ("class", "encoder", "probe", {"pooling": "native"}),
    ("class", "encoder", "partial", {"pooling": "mean", "depth": 1}),
    ("class", "classifier", "partial", {"pooling": "native", "depth": 1}),
    ("class", "classifier", "partial", {"pooling": "native", "depth": 3}),
    ("pairs", "encoder", "probe", {"pooling": "mean"}),
    ("pairs", "classifier", "probe", {"pooling": "native"}),
    ("pairs", "encoder", "partial", {"pooling": "mean", "depth": 1}),
    ("pairs", "classifier", "partial", {"pooling": "native", "depth": 1}),
    ("class", "encoder", "contrast", {"pooling": "mean"}),
    ("class", "encoder", "lora", {"pooling": "mean", "last": 1}),
    ("class", "classifier", "lora", {"pooling": "native", "last": 2, "rs": True, "bits": "8"}),
    ("class", "encoder", "bottleneck", {"pooling": "mean", "last": 2}),
    ("class", "encoder", "side", {"pooling": "native"}),
    ("pairs", "encoder", "side", {"pooling": "mean", "taps": 2}),
]


@pytest.mark.parametrize("case", TEXTS, ids=str)
def test_cached_and_uncached_fits_of_texts_are_equal(
    tmp_path: Path, case: tuple[Any, Any, str, dict[str, Any]]
) -> None:
    of, network, strategy, knobs = case
    both_equal(places.text_course(tmp_path, of, network), tmp_path, strategy, epochs=3, batch=7, **knobs)


@pytest.mark.parametrize("long", ["ends", "windows"])
def test_cached_and_uncached_fits_of_long_texts_are_equal(tmp_path: Path, long: Any) -> None:
    """Windows of a text are averaged, whichever side of a pair they stand on."""
    course = places.text_course(tmp_path, "pairs", long=long, max_tokens=20)
    windows = {count for shape in course.table(course.view, 0, course.data.train).shapes for _, count in shape}
    assert (len(windows) > 2) == (long == "windows")
    both_equal(course, tmp_path, "partial", long=long, max_tokens=20, depth=1, epochs=2, batch=7)


def both_equal(
    cached: Course, tmp_path: Path, strategy: str, *, long: Any = "cut", max_tokens: int = 0, **knobs: Any
) -> None:
    """The same plan with and without the cache; batches are those of the rows' sizes alone."""
    assert cached.machine.promise == "exact"
    uncached = places.course(
        tmp_path,
        run="uncached",
        cached=False,
        reading=Reading(task=cached.task.name),
        long=long,
        max_tokens=max_tokens,
    )
    chosen = places.plan(cached, strategy, **knobs)
    seen: dict[bool, list[tuple[int, ...]]] = {True: [], False: []}
    original = Table.batch

    def watched(self: Table, index: Any) -> Any:
        assert len({self.shapes[i] for i in index}) == 1, "rows of two sizes met"
        seen[self.store is not None].append(tuple(index))
        return original(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "batch", watched)
        first, second = places.finish(cached, chosen), places.finish(uncached, chosen)
    assert list((hardware.cache_folder() / "trunk").rglob("*.block"))
    assert seen[True] == seen[False] and len(seen[True]) > 3
    assert places.weights(cached, first) == places.weights(uncached, second)
    assert first.curve == second.curve and first.scores == second.scores and first.calibration == second.calibration
    made = [
        (course.folder.path / trial.predictions).read_bytes() for course, trial in ((cached, first), (uncached, second))
    ]
    assert made[0] == made[1]


# ---------------------------------------------------------------- what a text is padded to

WORD = some.sampled_from([*places.PLAIN, "unknown", "Sea,", "ROSE", "jabber", "é", "[SEP]", "\n"])
TEXT = some.lists(WORD, max_size=90).map(" ".join)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.encoder_model(tmp_path_factory.mktemp("vocabulary"))


@pytest.mark.parametrize("long", ["cut", "ends", "windows"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(TEXT | some.tuples(TEXT, TEXT), min_size=1, max_size=6), some.randoms(use_true_random=False))
def test_a_text_is_encoded_the_same_in_any_company(vocabulary: Path, long: Any, cells: list[Any], order: Any) -> None:
    """Its parts, their padded sizes and the rows of its tensors are a function of the text alone."""
    spec = text.adjust(text.described(vocabulary), Options("d", "m", long=long, max_tokens=40))
    alone = [text.encoder(spec, True, str(vocabulary)).parts([cell])[0] for cell in cells]
    turned = list(range(len(cells)))
    order.shuffle(turned)
    encoder = text.encoder(spec, True, str(vocabulary))
    together = dict(zip(turned, encoder.parts([cells[i] for i in turned]), strict=True))
    parts = [part for i in turned for part in together[i]]
    for i, pieces in enumerate(alone):
        assert [size for _, size in pieces] == [size for _, size in together[i]]
        assert (len(pieces) > 1) <= (long == "windows")
        for (mine, size), (theirs, _) in zip(pieces, together[i], strict=True):
            assert size in (16, 32, 40) and len(mine.ids) <= size
            company = [part for part, other in parts if other == size]
            place = next(j for j, part in enumerate(company) if part is theirs)
            batch, single = encoder.tensors(company), encoder.tensors([mine])
            assert all(torch.equal(batch[name][place], single[name][0]) for name in batch)
            assert batch["input_ids"].shape == (len(company), size)


def test_the_trunk_runs_once_for_each_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    original = Trunk._piece

    def counting(self: Trunk, parts: list[Part], *more: Any) -> object:
        nonlocal counted
        counted += len(parts)
        return original(self, parts, *more)

    monkeypatch.setattr(Trunk, "_piece", counting)
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
    wanted = table.batch(range(5))[0].state.value
    (block,) = (hardware.cache_folder() / "trunk").rglob("*.block")
    data = bytearray(block.read_bytes())
    data[-3] ^= 1
    block.write_bytes(bytes(data))
    store = open_store(course.view, k, course.machine)
    assert store.dropped == 1 and not block.exists()
    again = course.table(course.view, k, course.data.train)
    assert torch.equal(again.batch(range(5))[0].state.value, wanted)


@pytest.mark.parametrize(
    "touch", ["weight", "buffer", "inputs", "config", "policy", "threads", "versions", "micro_batch"]
)
def test_whatever_changes_the_bits_changes_the_store(
    tmp_path: Path, touch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        elif touch == "policy":  # what is made of a file's bytes: its pixels may be others then
            monkeypatch.setattr(shelf.find("modalities", "image"), "POLICY", 0)
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
    blocks.trim(tmp_path, 250, tmp_path / "s0")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s0", "s2", "s3"]


def test_a_machine_without_the_promise_is_told_apart(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    batch = course.encoder.tensors([row.cell for row in course.data.train[:8]])
    promised, seconds = trunk.promise(course.view, batch)
    assert promised == "exact" and seconds > 0

    class Shaky:
        """Adds the row's position to its features."""

        def run(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
            made = course.view.run(given)
            return made + torch.arange(len(made))[:, None] * 1e-7

    assert trunk.promise(Shaky(), batch)[0] == "tolerance"  # type: ignore[arg-type]


def test_an_unlawful_network_is_used_without_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "holds", lambda *_: False)
    course = places.course(tmp_path)
    chosen = places.plan(course, "partial", depth=1, epochs=1)
    said = [event.text for event in course.trial(0, chosen) if type(event).__name__ == "Said"]
    assert any("split law does not hold" in told for told in said)
    assert not list(hardware.cache_folder().rglob("*.block"))


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = places.course(tmp_path)
    chosen = places.plan(course, "probe", epochs=2)
    wanted = places.weights(course, places.finish(course, chosen))
    full = places.course(tmp_path, run="full")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with Disk(tmp_path, fail_at(1, errno.ENOSPC, below=".block")).used():
        said = [event.text for event in full.trial(0, chosen) if isinstance(event, Said)]
    (warned,) = [told for told in said if "going on without the cache" in told]
    assert re.search(r"No space left on device at .*\.block \(\d\.\d MB are needed, [\d,.]+ MB free\)", warned)
    assert places.weights(full, places.finish(full, chosen)) == wanted
    assert not list((tmp_path / "elsewhere").rglob("*.block"))


def test_a_cache_that_would_take_most_of_the_disk_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is known after one micro-batch; half of the room stays for the run itself."""
    course = places.course(tmp_path)
    chosen = places.plan(course, "probe", epochs=2)
    wanted = places.weights(course, places.finish(course, chosen))
    size = (27 + 15 + 18) * 16 * 4  # rows of 16 features
    for free, kept in ((2 * size - 1, False), (3 * size, True)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"with {free}"))
        with monkeypatch.context() as patch:
            patch.setattr(hardware, "free_bytes", lambda p, free=free: 10**9 if p.suffix else free)
            again = places.course(tmp_path, run=f"with {free}")
            said = [event.text for event in again.trial(0, chosen) if isinstance(event, Said)]
        assert any(re.search(r"without the cache, .*: \d\.\d MB for .*, of \d\.\d MB free", t) for t in said) != kept
        assert bool(list(hardware.cache_folder().rglob("*.block"))) == kept
        assert places.weights(again, places.finish(again, chosen)) == wanted


def test_a_cache_that_may_only_be_read_is_of_use(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    chosen = places.plan(course, "probe", epochs=2)
    wanted = places.weights(course, places.finish(course, chosen))
    again = places.course(tmp_path, run="again")
    with Disk(hardware.cache_folder(), fail_at(1, errno.EROFS)).used():
        said = [event.text for event in again.trial(0, chosen) if isinstance(event, Said)]
    assert any("examples were there" in text for text in said) and not any("without the cache" in t for t in said)
    assert places.weights(again, places.finish(again, chosen)) == wanted


def test_store_is_empty_where_nothing_was_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert "key" not in store and store.bytes == 0


# ---------------------------------------------------------------- several processes


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("trimmed", [False, True], ids=["two fill it", "two fill it and one removes it"])
def test_processes_share_a_store_and_end_with_equal_states(tmp_path: Path, trimmed: bool) -> None:
    places.pictures(tmp_path / "data", train=6, val=3, test=3)
    places.model(tmp_path / "model")
    wanted = fillers.told(places.course(tmp_path, cached=False), cached=False)
    whats = ["fill", "fill", *["trim"] * trimmed]
    runs = []
    for i, what in enumerate(whats):
        ready = tmp_path / f"ready-{what}"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.laws.fillers", str(tmp_path), what]
        runs.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        while not ready.exists() and runs[i].poll() is None:
            time.sleep(0.01)
    (tmp_path / "go").touch()
    told = [run.communicate(timeout=1000) for run in runs[:2]]
    (tmp_path / "stop").touch()
    told += [run.communicate(timeout=100) for run in runs[2:]]
    assert [run.returncode for run in runs] == [0] * len(runs), told
    assert [out.strip() for out, _ in told[:2]] == [wanted] * 2
    kept = list(hardware.cache_folder().rglob("*.block"))
    assert all(blocks.whole(path) for path in kept) and not list(hardware.cache_folder().rglob(".part-*"))
    if trimmed:
        assert int(told[2][0]) > 0, "something was there to be removed"
    else:
        assert len(kept) == 4 * 9, "a block for each micro-batch at each of four frontiers, none of them twice"
        assert all(one.rows == 36 and one.about is not None for one in blocks.ls())
