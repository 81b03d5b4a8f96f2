"""The frozen part of a network, run in micro-batches of fixed shapes: rows come out equal in any company."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regraft.backbone.short import fan
from regraft.backbone.stages import Batch
from regraft.backbone.state import State, as_state, ghost, leaves, tree
from regraft.backbone.view import View
from regraft.errors import memory_watched
from regraft.kit import hardware
from regraft.waist import Encoder, Row, fingerprint

SAMPLED = 256


class Part(NamedTuple):
    """What goes through the network at once: a row, one side of a pair, or a window of a long text."""

    key: str
    value: Any
    size: int


class Side(NamedTuple):
    """States of n rows on one side, in the rows' order, with all windows of a row one after the other."""

    state: State
    windows: int


Shape = tuple[tuple[int, int], ...]
"""A row's padded size and number of windows on each side: only rows of one shape share a batch."""


class Trunk:
    """The part of a view below frontier k, run in micro-batches of one fixed shape, the last one padded.

    With a `source`, frontier → states of parts there, it goes on from these instead of the input. With `ends`, a pass
    for features gives those of these views, too, which end after fewer blocks of the same network.

    Rows come out bit-equal whatever company they are in, on machines that keep the promise "exact", where the engine is
    the network as it stands, which is taken if no other is given.
    """

    def __init__(
        self, view: View, frontier: int, encoder: Encoder, micro: int, engine: Callable[[Batch], State] | None = None
    ) -> None:
        self.view, self.k, self.encoder, self.micro = view, frontier, encoder, micro
        self.engine = engine or (lambda batch: as_state(view.run(batch, stop=frontier), batch))
        self.source: tuple[int, Callable[[Sequence[Part]], State]] | None = None
        self.ends: Sequence[View] = ()

    def rows(self, size: int) -> int:
        """How many parts of a padded size make a micro-batch: `micro` of nominal length, fewer that are longer."""
        return max(1, self.micro * self.view.inputs.shape[0] // size) if size else self.micro

    def states(self, parts: Sequence[Part]) -> State:
        """The states of parts of one size, in their order; shared tables of the network are kept once."""
        rows = self.rows(parts[0].size)
        pieces = [self._piece(some, rows, self._given(some))[0] for some in cut(parts, rows)]
        return pieces[0] if len(pieces) == 1 else join(pieces)

    def passes(self, parts: Sequence[Part]) -> Iterator[tuple[Sequence[Part], list[State]]]:
        """Parts of one size and their states, a micro-batch at a time.

        Where a processor is free, the next one is read while one goes through. The states are those of the trunk
        itself, then those of its `ends`.
        """
        rows = self.rows(parts[0].size)
        waiting = cut(parts, rows)
        if not hardware.spare():
            yield from ((some, self._piece(some, rows, self._given(some))) for some in waiting)
            return
        with ThreadPoolExecutor(1) as beside:
            ready = beside.submit(self._given, waiting[0])
            for i, some in enumerate(waiting):
                with memory_watched():
                    given = ready.result()
                if i + 1 < len(waiting):
                    ready = beside.submit(self._given, waiting[i + 1])
                yield some, self._piece(some, rows, given)

    def _given(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        """Parts as the network takes them; nothing where it goes on from states."""
        return {} if self.source else self.encoder.tensors([part.value for part in parts])

    def _piece(self, parts: Sequence[Part], rows: int, given: dict[str, Tensor]) -> list[State]:
        with memory_watched(), torch.no_grad():
            if self.source:
                begin, states = self.source
                filled = torch.arange(rows).clamp(max=len(parts) - 1)
                below = take(states(parts), filled, len(parts))
                made = [as_state(self.view.run(start=begin, stop=self.k, state=below), below.inputs)]
            elif self.ends:
                batch = padded(given, rows)
                made = [as_state(features, batch) for features in fan(self.view, batch, self.ends)]
            else:
                made = [self.engine(padded(given, rows))]
        return [take(state, torch.arange(len(parts)), rows) for state in made]


def cut(parts: Sequence[Part], rows: int) -> list[Sequence[Part]]:
    """Parts in pieces of at most so many."""
    return [parts[i : i + rows] for i in range(0, len(parts), rows)]


def parts_of(encoder: Encoder, rows: Sequence[Row], sides: int) -> list[list[list[Part]]]:
    """The parts of each row on each side."""
    made: list[list[list[Part]]] = [[] for _ in rows]
    for side in range(sides):
        cells = [row.cell if sides == 1 else row.cell[side] for row in rows]
        for row, cell, pieces, held in zip(rows, cells, encoder.parts(cells), made, strict=True):
            key = row.key if sides == 1 else fingerprint(cell)
            held.append([Part(f"{key}{f'/{i}' if i else ''}", *piece) for i, piece in enumerate(pieces)])
    return made


def groups(shapes: Sequence[Shape]) -> dict[Shape, list[int]]:
    """Shape → positions of its rows in their order; shapes in ascending order."""
    found: dict[Shape, list[int]] = {}
    for i, shape in enumerate(shapes):
        found.setdefault(shape, []).append(i)
    return {shape: found[shape] for shape in sorted(found)}


def by_size(parts: Sequence[Sequence[Sequence[Part]]]) -> dict[int, dict[str, Part]]:
    """Padded size → the different parts of it by their keys, in the order of the rows."""
    found: dict[int, dict[str, Part]] = {}
    for row in parts:
        for side in row:
            for part in side:
                found.setdefault(part.size, {}).setdefault(part.key, part)
    return found


def samples(encoder: Encoder, rows: Sequence[Row], trunk: Trunk, apart: int) -> Iterator[tuple[float, list[Any]]]:
    """The parts of a micro-batch of each padded size among the first rows, with its share, the most frequent first."""
    parts = [part for row in parts_of(encoder, rows[:SAMPLED], apart) for side in row for part in side]
    for size, count in Counter(part.size for part in parts).most_common():
        some = [part.value for part in parts if part.size == size]
        yield count / len(parts), [some[i % len(some)] for i in range(trunk.rows(size))]


def promise(view: View, batch: dict[str, Tensor]) -> tuple[str, float]:
    """Which promise this machine can keep: "exact" if a row's bits do not depend on its company or its place.

    Takes two passes of one micro-batch: in the second the rows of its latter half come first, in turned order, and the
    first row fills the places behind them.

    Returns: The promise, and the seconds of the faster pass.
    """
    rows = len(next(iter(batch.values())))
    moved = torch.arange(rows - 1, -1, -1).where(torch.arange(rows) < rows // 2, torch.tensor(0))
    made, took = [], []
    with torch.no_grad():
        for one in (batch, {name: tensor[moved] for name, tensor in batch.items()}):
            begun = time.perf_counter()
            made.append(view.run(one))
            took.append(time.perf_counter() - begun)
    return "exact" if torch.equal(made[0][moved], made[1]) else "tolerance", min(took)


def padded(batch: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """A batch filled up to `size` rows by repeating its last row."""
    lacking = size - len(next(iter(batch.values())))
    return {k: torch.cat([v, v[-1:].expand(lacking, *v.shape[1:])]) if lacking else v for k, v in batch.items()}


def take(state: State, index: Tensor, n: int) -> State:
    """The rows at `index` of a state with `n` rows."""

    def pick(tensor: Tensor) -> Tensor:
        if not tensor.ndim or tensor.shape[0] != n:
            return tensor
        if tensor.stride(0) == 0:
            return tensor[:1].expand(len(index), *tensor.shape[1:])
        picked: Tensor = tensor.index_select(0, index)
        return picked

    return State(tree(pick, state.value), state.seen, {k: pick(v) for k, v in state.inputs.items()})


def join(states: Sequence[State]) -> State:
    """States of consecutive rows as one; tables that are shared by all rows are taken from the first."""
    columns = list(zip(*(leaves(s.value) for s in states), strict=True))
    counts = [rows_of(s) for s in states]
    glued = iter(
        torch.cat(column) if all(t.shape[0] == n for t, n in zip(column, counts, strict=True)) else column[0]
        for column in columns
    )
    value = tree(lambda _: next(glued), states[0].value)
    n = sum(counts)
    inputs = {
        name: ghost(v, n) if v.stride(0) == 0 else torch.cat([s.inputs[name] for s in states])
        for name, v in states[0].inputs.items()
    }
    return State(value, states[0].seen, inputs)


def rows_of(state: State) -> int:
    """How many rows a state has."""
    return len(next(iter(state.inputs.values())))
