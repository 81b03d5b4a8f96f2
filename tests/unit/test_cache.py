"""The trunk store: states go to disk and back whole, blocks are many or one, rows are taken and joined in order."""

from __future__ import annotations

import os
import re
import shutil
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from regraft.backbone.state import State, as_state, ghost
from regraft.backbone.view import View
from regraft.engine import cache
from regraft.engine.cache import Store, Table, Uncuttable
from regraft.engine.trunk import Part, Shape, Trunk, cut, groups, join, padded, parts_of, take
from regraft.kit import hardware
from regraft.waist import Encoder, InputSpec, MachineCard, Row, fingerprint
from tests import places
from tests.disk import Disk, Op

PLAIN = some.none() | some.booleans() | some.integers(-5, 5) | some.floats(allow_nan=False) | some.text(max_size=5)
OUTPUTS = some.recursive(
    some.builds(
        lambda n, t: torch.arange(n * 3, dtype=t).reshape(3, n),
        some.integers(0, 4),
        some.sampled_from([torch.float32, torch.int64]),
    )
    | PLAIN,
    lambda inner: some.lists(inner, max_size=3) | some.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


def equal(a: Any, b: Any) -> bool:
    if torch.is_tensor(a):
        return torch.is_tensor(b) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and bool(a == b)


def numbered(cells: Sequence[int]) -> list[list[tuple[int, int]]]:
    """A cell's parts: the number itself; above 100 two windows; padded to as many as it has digits."""
    return [[(c, len(str(c)))] * (2 if c > 100 else 1) for c in cells]


TABLE = torch.eye(13)


class Fake(Trunk):
    """A trunk whose state for a part is its number, a table that all rows share, and ids that stay."""

    def __init__(self) -> None:
        self.micro, self.k = 4, 2
        self.encoder = Encoder(numbered, lambda _: {}, lambda _: ())
        self.ran: list[list[int]] = []

    def rows(self, size: int) -> int:
        return self.micro

    def passes(self, parts: Sequence[Part]) -> Iterator[tuple[Sequence[Part], list[State]]]:
        yield from ((some, [self.states(some)]) for some in cut(parts, self.micro))

    def states(self, parts: Sequence[Part]) -> State:
        assert len({part.size for part in parts}) == 1
        self.ran.append([part.value for part in parts])
        return self.state([part.value for part in parts])

    def state(self, cells: Sequence[int]) -> State:
        rows = torch.tensor([[float(c), -float(c)] for c in cells])
        ids = torch.tensor([[c] for c in cells])
        inputs = {"ids": ids, "pixels": ghost(torch.zeros(len(cells), 5), len(cells))}
        return State((rows, TABLE), {"early": ghost(torch.zeros(1, 7), 1)}, inputs)


def rows(*cells: Any) -> list[Row]:
    return [Row(str(c), c, "", "", f"key-{c}") for c in cells]


def fill(store: Store, trunk: Trunk, some_rows: list[Row], sides: int = 1) -> list[int]:
    return list(store.fill(trunk, store.lacking(parts_of(trunk.encoder, some_rows, sides))))


# ---------------------------------------------------------------- states as JSON and tensors


@given(OUTPUTS)
def test_what_a_stage_gives_comes_back(value: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    told = cache._spec(value, tensors)
    assert equal(cache._value(told, tensors, 3), value)


def test_ghosts_come_back_without_memory() -> None:
    told = cache._spec(torch.zeros(4, 5, dtype=torch.int64), None)
    made = cache._value(told, {}, 9)
    assert made.shape == (9, 5) and made.dtype == torch.int64 and made.stride() == (0, 0)


@pytest.mark.parametrize("value", [{"a": 1}, object(), (1, {2})])
def test_what_cannot_be_kept_is_told_by_type(value: Any) -> None:
    with pytest.raises(Uncuttable, match=r"dict|object|set"):
        cache._spec(value, {})


# ---------------------------------------------------------------- rows


def test_padding_repeats_the_last_row() -> None:
    batch = {"x": torch.arange(6).reshape(3, 2)}
    assert padded(batch, 5)["x"].tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert padded(batch, 3)["x"] is batch["x"]


def test_rows_are_taken_in_the_order_asked_for() -> None:
    state = take(Fake().state([5, 6, 7, 8]), torch.tensor([2, 0, 0]), 4)
    assert state.value[0][:, 0].tolist() == [7, 5, 5] and torch.equal(state.value[1], TABLE)
    assert state.inputs["ids"].flatten().tolist() == [7, 5, 5] and state.inputs["pixels"].shape == (3, 5)


def test_joined_states_are_the_state_of_all() -> None:
    made = join([Fake().state([1, 2]), Fake().state([3]), Fake().state([4, 5, 6])])
    wanted = Fake().state([1, 2, 3, 4, 5, 6])
    assert equal(made.value, wanted.value) and equal(made.inputs["ids"], wanted.inputs["ids"])
    assert made.inputs["pixels"].shape == (6, 5) and made.inputs["pixels"].stride() == (0, 0)


def test_features_are_a_state_too() -> None:
    state = as_state(torch.ones(2, 3), {"pixels": torch.ones(2, 9)})
    assert state.value.shape == (2, 3) and state.inputs["pixels"].stride() == (0, 0)
    assert as_state(state, {}) is state


# ---------------------------------------------------------------- the store


@pytest.mark.parametrize("limit", [1, 10**9], ids=["a block a micro-batch", "one block"])
def test_rows_come_back_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(cache, "BLOCK_BYTES", limit)
    store = Store(tmp_path)
    assert fill(store, Fake(), rows(*range(10), 3, 4)) == [4, 8, 10]
    assert len(list(tmp_path.glob("*.block"))) == (3 if limit == 1 else 1)
    for opened in (store, Store(tmp_path)):
        table = Table(Fake(), rows(9, 0, 5, 5), opened)
        (side,) = table.batch([3, 0, 1])
        assert side.state.value[0][:, 0].tolist() == [5, 9, 0] and side.windows == 1
        assert torch.equal(side.state.value[1], TABLE)


def test_what_is_held_is_not_computed_again(tmp_path: Path) -> None:
    fill(Store(tmp_path), Fake(), rows(1, 2, 3))
    store = Store(tmp_path)
    assert fill(store, Fake(), rows(3, 2, 1)) == []
    assert fill(store, Fake(), rows(1, 7)) == [1] and "key-7" in store
    assert store.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_two_fillers_of_one_store_do_no_harm(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    fill(first, Fake(), rows(1, 2, 3, 4, 5))
    fill(second, Fake(), rows(1, 2, 3, 4, 5))
    assert len(list(tmp_path.glob("*.block"))) == 1
    assert Store(tmp_path).states(["key-5", "key-1"]).all().value[0][:, 0].tolist() == [5, 1]


def test_the_store_is_filled_size_by_size_and_repeats_are_left_out(tmp_path: Path) -> None:
    store, trunk = Store(tmp_path), Fake()
    missing = store.lacking(parts_of(trunk.encoder, rows(7, 42, 8, 7, 43, 9, 42, 6, 5, 300), 1))
    assert [part.value for part in missing] == [7, 8, 9, 6, 5, 42, 43, 300, 300]
    assert [part.key for part in missing][-2:] == ["key-300", "key-300/1"]
    assert list(store.fill(trunk, missing)) == [4, 5, 7, 9]
    assert trunk.ran == [[7, 8, 9, 6], [5], [42, 43], [300, 300]]
    assert len(list(tmp_path.glob("*.block"))) == 3, "a block holds parts of one size"
    assert store.lacking(parts_of(trunk.encoder, rows(7, 42, 300), 1)) == []


def test_a_row_s_windows_come_together_in_their_order(tmp_path: Path) -> None:
    store, trunk = Store(tmp_path), Fake()
    fill(store, trunk, rows(1, 301, 302))
    table = Table(trunk, rows(302, 1, 301), store)
    assert table.shapes == [((3, 2),), ((1, 1),), ((3, 2),)]
    (side,) = table.batch([2, 0])
    assert side.windows == 2 and side.state.value[0][:, 0].tolist() == [301, 301, 302, 302]


@pytest.mark.parametrize("stored", [True, False])
def test_rows_of_two_shapes_never_share_a_batch(tmp_path: Path, stored: bool) -> None:
    store, trunk = Store(tmp_path), Fake()
    some_rows = rows(1, 22, 3, 301)
    fill(store, trunk, some_rows)
    table = Table(trunk, some_rows, store if stored else None)
    for index in ([0, 1], [1, 3]):
        with pytest.raises(AssertionError, match="two shapes"):
            table.batch(index)
    assert table.batch([0, 2])[0].state.value[0][:, 0].tolist() == [1, 3]


# ---------------------------------------------------------------- memory


class Made(TorchDispatchMode):
    """What operations under it make, in bytes: `now` is alive, `most` was at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        told = func.name()
        if any(word in told for word in ("new_empty", "index_select", "cat", "clone", "empty")):
            size = made.numel() * made.element_size()
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(made, self.gone, size)
        return made

    def gone(self, size: int) -> None:
        self.now -= size


def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Fake, list[Row]]:
    """Forty rows in ten blocks."""
    monkeypatch.setattr(cache, "BLOCK_BYTES", 1)
    store, some_rows = Store(tmp_path), rows(*range(40, 80))
    fill(store, Fake(), some_rows)
    assert len(list(tmp_path.glob("*.block"))) == 10
    return Store(tmp_path), Fake(), some_rows


def test_a_table_holds_its_states_once_and_never_more_than_a_block_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, trunk, some_rows = many(tmp_path, monkeypatch)
    states = 40 * (2 * 4 + 8)  # two floats and an id
    with Made() as made:
        table = Table(trunk, some_rows[::-1], store)
    index = 40 * 4 * 8  # the positions themselves
    assert states <= made.now <= states + index and made.most <= made.now + states / 10 + index
    assert table.batch([3])[0].state.value[0][:, 0].tolist() == [76]


@pytest.mark.parametrize("share", [0, 1])
def test_states_beyond_a_share_of_memory_are_read_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(cache, "HELD_SHARE", share)
    store, trunk, some_rows = many(tmp_path, monkeypatch)
    with Made() as made:
        table = Table(trunk, some_rows, store)
        assert (made.now < 40 * 16) == (not share)
    (side,) = table.batch([39, 0, 7, 7])
    assert side.state.value[0].tolist() == [[79, -79], [40, -40], [47, -47], [47, -47]]
    assert side.state.inputs["ids"].flatten().tolist() == [79, 40, 47, 47] and torch.equal(side.state.value[1], TABLE)
    assert side.state.inputs["pixels"].shape == (4, 5) and side.state.inputs["pixels"].stride() == (0, 0)
    assert side.state.seen["early"].shape == (1, 7) and side.state.value[0].is_contiguous()


def test_a_store_without_a_place_on_disk_is_read_from_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in memory already: another copy would be one too many."""
    store, trunk, some_rows = Store(tmp_path, "no room"), Fake(), rows(*range(40, 80))
    fill(store, trunk, some_rows)
    assert not list(tmp_path.iterdir())
    with Made() as made:
        table = Table(trunk, some_rows, store)
    assert made.now < 40 * 16 and table.batch([39])[0].state.value[0].tolist() == [[79, -79]]


def test_rows_of_one_block_and_a_table_of_as_many_rows_are_told_apart_by_the_other_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "BLOCK_BYTES", 1)
    trunk = Fake()
    trunk.micro = len(TABLE)
    store, some_rows = Store(tmp_path), rows(*range(10, 10 + len(TABLE) + 4))
    fill(store, trunk, some_rows)
    assert len(list(tmp_path.glob("*.block"))) == 2
    for share in (0, 1):
        monkeypatch.setattr(cache, "HELD_SHARE", share)
        (side,) = Table(trunk, some_rows[:2] + some_rows[-len(TABLE) + 2 :], store).batch([2, 0])
        assert side.state.value[0][:, 0].tolist() == [16, 10] and torch.equal(side.state.value[1], TABLE)


# ---------------------------------------------------------------- room on disk


def test_a_store_above_the_size_of_the_cache_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held in memory where it fits, else it is not made at all: batches are computed anew."""
    monkeypatch.setattr(hardware, "cache_bytes", lambda: 100)
    some_rows = rows(*range(40, 80))
    for share, kept in ((1, 40), (0, 0)):
        monkeypatch.setattr(cache, "HELD_SHARE", share)
        store, trunk = Store(tmp_path / "store"), Fake()
        assert (fill(store, trunk, some_rows)[-1:] or [0]) == [kept]
        assert re.search(r"MB for .*store, of 0.0 MB for the whole cache", store.unkept)
        table = Table(trunk, some_rows, store)
        assert (table.store is None) == (not kept)
        assert table.batch([39])[0].state.value[0].tolist() == [[79, -79]]
    assert not (tmp_path / "store").exists()


def test_other_stores_make_room_before_one_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cache_bytes", lambda: 100_000)
    for i in range(3):
        (tmp_path / f"old{i}").mkdir()
        (tmp_path / f"old{i}" / "x.block").write_bytes(b"0" * 32_000)
        os.utime(tmp_path / f"old{i}", (i + 1, i + 1))
    fill(Store(tmp_path / "new"), Fake(), rows(*range(40, 80)))  # it is foretold to take 7 kB
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old1", "old2"]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_folder_that_is_removed_while_it_is_filled_comes_back(tmp_path: Path, step: int) -> None:
    """Another process may make room between any two steps of a write."""
    gone: list[str] = []

    def remove(op: Op) -> None:
        if op.path.suffix == ".block" and len(gone) < step:
            gone.append(op.path.name)
            shutil.rmtree(tmp_path / "store")

    store, trunk = Store(tmp_path / "store"), Fake()
    with Disk(tmp_path, remove).used():
        fill(store, trunk, rows(1, 2, 3))
    assert gone and Table(trunk, rows(3, 1), store).batch([0, 1])[0].state.value[0][:, 0].tolist() == [3, 1]
    assert fill(store, trunk, rows(4)) == [1]
    assert bool(store.unkept) == (not list((tmp_path / "store").glob("*.block")))


# ---------------------------------------------------------------- parts, sides, shapes


def test_a_window_has_its_number_behind_the_row_s_key() -> None:
    ((alone,),) = parts_of(Fake().encoder, rows(7), 1)
    assert alone == [Part("key-7", 7, 1)]
    ((windows,),) = parts_of(Fake().encoder, rows(300), 1)
    assert [part.key for part in windows] == ["key-300", "key-300/1"]


def test_sides_are_known_by_content_so_equal_texts_share_an_entry(tmp_path: Path) -> None:
    """Whichever row or side a text stands in."""
    trunk, pairs = Fake(), [Row("x", (7, 42), 0.0, "", "key-x"), Row("y", (42, 7), 0.0, "", "key-y")]
    (first, second) = parts_of(trunk.encoder, pairs, 2)
    assert first[0] == second[1] and first[1] == second[0] and first[0] != first[1]
    assert "key-x" not in first[0][0].key and first[0][0].key == fingerprint(7)
    assert fill(Store(tmp_path), trunk, pairs, 2) == [1, 2]
    table = Table(trunk, pairs, Store(tmp_path), 2)
    assert table.shapes == [((1, 1), (2, 1)), ((2, 1), (1, 1))]
    assert [side.state.value[0][:, 0].tolist() for side in table.batch([0])] == [[7], [42]]
    assert [side.state.value[0][:, 0].tolist() for side in table.batch([1])] == [[42], [7]]


def test_a_pair_in_one_sequence_is_known_by_its_row() -> None:
    trunk = Fake()
    trunk.encoder = Encoder(lambda cells: [[(cell, 8)] for cell in cells], lambda _: {}, lambda _: ())
    assert parts_of(trunk.encoder, [Row("x", (7, 42), 0.0, "", "key-x")], 1) == [[[Part("key-x", (7, 42), 8)]]]


def test_shapes_are_grouped_from_small_to_large() -> None:
    shapes: list[Shape] = [((32, 1),), ((16, 2),), ((32, 1),), ((16, 1),), ((16, 1), (64, 1))]
    assert list(groups(shapes).items()) == [
        (((16, 1),), [3]),
        (((16, 1), (64, 1)), [4]),
        (((16, 2),), [1]),
        (((32, 1),), [0, 2]),
    ]


@pytest.mark.parametrize(
    ("micro", "size", "count"),
    [(8, 0, 8), (8, 32, 8), (8, 16, 16), (8, 64, 4), (8, 128, 2), (8, 512, 1), (1, 64, 1), (8, 100, 2)],
)
def test_a_micro_batch_holds_as_many_tokens_whatever_the_length(micro: int, size: int, count: int) -> None:
    class View:
        inputs = InputSpec("text", (32,))

    assert Trunk(View(), 1, Fake().encoder, micro).rows(size) == count  # type: ignore[arg-type]


def test_micro_batches_hold_every_row_once_in_fixed_shapes() -> None:
    table = Table(Fake(), rows(1, 22, 2, 3, 301, 4, 5, 302, 303), None)
    found = list(table.micro_batches())
    assert found == [([0, 2, 3, 5], 4), ([6, 6, 6, 6], 1), ([1, 1, 1, 1], 1), ([4, 7], 2), ([8, 8], 1)]
    assert [i for index, count in found for i in index[:count]] == [0, 2, 3, 5, 6, 1, 4, 7, 8]


def test_the_longer_side_of_a_pair_bounds_a_micro_batch() -> None:
    trunk = Fake()
    trunk.rows = lambda size: 4 // size  # type: ignore[method-assign]
    pairs = [Row(str(i), (i, 10 + i), 0.0, "", str(i)) for i in range(3)]
    assert list(Table(trunk, pairs, None, 2).micro_batches()) == [([0, 1], 2), ([2, 2], 1)]
    wide = [Row("x", (4321, 1), 0.0, "", "x"), Row("y", (54321, 1), 0.0, "", "y")]
    assert list(Table(trunk, wide, None, 2).micro_batches()) == [([0], 1), ([1], 1)], "one row at the least"


def test_a_store_s_place_knows_the_pooling_at_the_last_frontier_alone(tmp_path: Path) -> None:
    """Blocks are the same whatever comes after them; features are not."""
    places.encoder_model(tmp_path / "model", "encoder")
    course = places.text_course(tmp_path)
    mean, native = course.view, course.view.pooled("native")
    found = {
        name: [cache.place(view, k, course.machine) for k in range(5)] for name, view in (("m", mean), ("n", native))
    }
    assert found["m"][:4] == found["n"][:4] and found["m"][4] != found["n"][4]
    assert len(mean.stages) == 4 and len({*found["m"], *found["n"]}) == 6


def test_a_network_that_cannot_be_kept_breaks_the_law(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    batch = course.encoder.tensors([row.cell for row in course.data.train[:2]])
    assert cache.holds(course.view, [0, 1, 2, 3, 4], batch)

    class Odd:
        """Hands on something that is no tensor."""

        stages = course.view.stages

        def run(self, *_: object, **given: Any) -> Any:
            return State({1, 2}, {}, batch) if "stop" in given else torch.zeros(2, 3)

    assert not cache.holds(Odd(), [2], batch)  # type: ignore[arg-type]


class Cut(nn.Module):
    """Blocks whose first two are frozen for good by the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c, d = self.blocks
        with torch.no_grad():
            x = b(a(x))
        made: torch.Tensor = d(c(x))
        return made


def test_weights_that_the_network_itself_detaches_are_part_of_a_store_s_place(tmp_path: Path) -> None:
    """Features depend on them though no gradient reaches them: another checkpoint must not read these states."""
    torch.manual_seed(0)
    view = View(
        name="cut",
        provider="tiny",
        module=Cut(),
        call=lambda module, batch: module(batch["x"]),
        inputs=InputSpec("text", (4,)),
        example={"x": torch.randn(3, 4)},
    )
    machine = MachineCard("cpu", 1, 10**9, "cpu", "float32", "exact", 8)
    places_before = [cache.place(view, k, machine) for k in range(1, len(view.stages) + 1)]
    whole = view.run({"x": torch.ones(2, 4)})
    with torch.no_grad():
        view.module.blocks[0].weight.add_(1)  # type: ignore[union-attr, index, operator]
    assert not torch.equal(view.run({"x": torch.ones(2, 4)}), whole)
    assert not {*places_before} & {cache.place(view, k, machine) for k in range(1, len(view.stages) + 1)}
