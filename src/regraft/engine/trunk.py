"""The frozen part of a network, run in micro-batches of fixed shapes: rows come out equal in any company."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regraft.backbone.state import State, ghost, leaves, tree
from regraft.backbone.view import View
from regraft.errors import memory_watched
from regraft.waist import Encoder, Row, fingerprint


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

    Rows come out bit-equal whatever company they are in, on machines that keep the promise "exact".
    """

    def __init__(self, view: View, frontier: int, encoder: Encoder, micro: int, half: bool = False) -> None:
        self.view, self.k, self.encoder, self.micro, self.half = view, frontier, encoder, micro, half

    def rows(self, size: int) -> int:
        """How many parts of a padded size make a micro-batch: `micro` of nominal length, fewer that are longer."""
        return max(1, self.micro * self.view.inputs.shape[0] // size) if size else self.micro

    def states(self, parts: Sequence[Part]) -> State:
        """The states of parts of one size, in their order; shared tables of the network are kept once."""
        rows = self.rows(parts[0].size)
        pieces = [self._piece(parts[i : i + rows], rows) for i in range(0, len(parts), rows)]
        return pieces[0] if len(pieces) == 1 else join(pieces)

    def _piece(self, parts: Sequence[Part], rows: int) -> State:
        batch = padded(self.encoder.tensors([part.value for part in parts]), rows)
        with memory_watched(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            state = as_state(self.view.run(batch, stop=self.k), batch)
        if self.half:
            state = State(*(tree(lambda t: t.float() if t.is_floating_point() else t, part) for part in state))
        return take(state, torch.arange(len(parts)), rows)


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


def promise(view: View, batch: dict[str, Tensor]) -> tuple[str, float]:
    """Which promise this machine can keep: "exact" if a row's bits do not depend on its company or its place.

    Takes three passes of one micro-batch, about a second for a network of 0.6 GFLOP on two cores.

    Returns: The promise, and the seconds of the fastest pass.
    """
    turned = {name: tensor.flip(0) for name, tensor in batch.items()}
    alone = {name: tensor[:1].expand_as(tensor).contiguous() for name, tensor in batch.items()}
    made, took = [], []
    with torch.no_grad():
        for one in (batch, turned, alone):
            begun = time.perf_counter()
            made.append(view.run(one))
            took.append(time.perf_counter() - begun)
    same = torch.equal(made[0], made[1].flip(0)) and torch.equal(made[0][0], made[2][0])
    return "exact" if same else "tolerance", min(took)


def padded(batch: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """A batch filled up to `size` rows by repeating its last row."""
    lacking = size - len(next(iter(batch.values())))
    return {k: torch.cat([v, v[-1:].expand(lacking, *v.shape[1:])]) if lacking else v for k, v in batch.items()}


def as_state(made: Any, batch: dict[str, Tensor]) -> State:
    """What `View.run` gave as a state: features at the last frontier are a state too."""
    if isinstance(made, State):
        return made
    return State(made, {}, {name: ghost(v, len(v)) for name, v in batch.items()})


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
