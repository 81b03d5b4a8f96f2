"""The trunk store: states go to disk and back whole, blocks are many or one, rows are taken and joined in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from regraft.backbone.state import State, ghost
from regraft.engine import cache
from regraft.engine.cache import Store, Table, Trunk, Uncuttable, as_state, join, padded, take
from regraft.waist import Row
from tests import places

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


class Fake(Trunk):
    """A trunk whose state for a cell is that number, a table that all rows share, and ids that stay."""

    def __init__(self) -> None:
        self.micro, self.k = 4, 2

    def states(self, cells: Sequence[Any]) -> State:
        rows = torch.tensor([[float(c), -float(c)] for c in cells])
        ids = torch.tensor([[c] for c in cells])
        inputs = {"ids": ids, "pixels": ghost(torch.zeros(len(cells), 5), len(cells))}
        return State((rows, torch.eye(3)), {"early": ghost(torch.zeros(1, 7), 1)}, inputs)


def rows(*cells: int) -> list[Row]:
    return [Row(str(c), c, "", "", f"key-{c}") for c in cells]


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
    state = take(Fake().states([5, 6, 7, 8]), torch.tensor([2, 0, 0]), 4)
    assert state.value[0][:, 0].tolist() == [7, 5, 5] and torch.equal(state.value[1], torch.eye(3))
    assert state.inputs["ids"].flatten().tolist() == [7, 5, 5] and state.inputs["pixels"].shape == (3, 5)


def test_joined_states_are_the_state_of_all() -> None:
    made = join([Fake().states([1, 2]), Fake().states([3]), Fake().states([4, 5, 6])])
    wanted = Fake().states([1, 2, 3, 4, 5, 6])
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
    assert list(store.fill(Fake(), rows(*range(10), 3, 4))) == [4, 8, 10]
    assert len(list(tmp_path.glob("*.block"))) == (3 if limit == 1 else 1)
    for opened in (store, Store(tmp_path)):
        table = Table(Fake(), rows(9, 0, 5, 5), opened)
        assert table.batch([3, 0, 1]).value[0][:, 0].tolist() == [5, 9, 0]
        assert torch.equal(table.batch([0]).value[1], torch.eye(3))


def test_what_is_held_is_not_computed_again(tmp_path: Path) -> None:
    list(Store(tmp_path).fill(Fake(), rows(1, 2, 3)))
    store = Store(tmp_path)
    assert list(store.fill(Fake(), rows(3, 2, 1))) == []
    assert list(store.fill(Fake(), rows(1, 7))) == [1] and "key-7" in store
    assert store.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_two_fillers_of_one_store_do_no_harm(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    list(first.fill(Fake(), rows(1, 2, 3, 4, 5)))
    list(second.fill(Fake(), rows(1, 2, 3, 4, 5)))
    assert len(list(tmp_path.glob("*.block"))) == 1
    assert Store(tmp_path).gather(["key-5", "key-1"]).value[0][:, 0].tolist() == [5, 1]


def test_a_table_pads_to_the_micro_batch() -> None:
    state, count = Table(Fake(), rows(1, 2, 3, 4, 5), None).padded(4)
    assert count == 1 and state.value[0][:, 0].tolist() == [5, 5, 5, 5]


def test_a_network_that_cannot_be_kept_breaks_the_law(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    batch = course.encode([row.cell for row in course.data.train[:2]])
    assert cache.holds(course.view, [0, 1, 2, 3, 4], batch)

    class Odd:
        """Hands on something that is no tensor."""

        stages = course.view.stages

        def run(self, *_: object, **given: Any) -> Any:
            return State({1, 2}, {}, batch) if "stop" in given else torch.zeros(2, 3)

    assert not cache.holds(Odd(), [2], batch)  # type: ignore[arg-type]
