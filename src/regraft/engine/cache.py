"""Keep what the frozen trunk gives for each example, so that it runs once however many plans and epochs read it.

The store is addressed by content: weights and buffers below the frontier, network, preprocessing, library versions,
micro-batch, threads and processor name the store; the example's own bytes name the entry. Blocks are immutable files
named by their SHA-256, renamed into place, so two processes may fill one store and a torn block cannot exist.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from regraft.backbone.state import State, ghost, leaves, tree
from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.kit import durable, hardware
from regraft.waist import MachineCard, Row, fingerprint

Encode = Callable[[Sequence[Any]], dict[str, Tensor]]
FORMAT = 1
BLOCK_BYTES = 64_000_000
BLOCK_SECONDS = 20.0
LIMIT_BYTES = 10_000_000_000


class Uncuttable(Exception):
    """A state of this network holds something that cannot be kept row by row."""


class Trunk:
    """The part of a view below frontier k, run in micro-batches of one fixed shape, the last one padded.

    Rows come out bit-equal whatever company they are in, on machines that keep the promise "exact".
    """

    def __init__(self, view: View, frontier: int, encode: Encode, micro: int, half: bool = False) -> None:
        self.view, self.k, self.encode, self.micro, self.half = view, frontier, encode, micro, half

    def states(self, cells: Sequence[Any]) -> State:
        """The states of `cells` in their order; shared tables of the network are kept once."""
        pieces = [self._piece(cells[i : i + self.micro]) for i in range(0, len(cells), self.micro)]
        return pieces[0] if len(pieces) == 1 else join(pieces)

    def _piece(self, cells: Sequence[Any]) -> State:
        batch = padded(self.encode(cells), self.micro)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            state = as_state(self.view.run(batch, stop=self.k), batch)
        if self.half:
            state = State(*(tree(lambda t: t.float() if t.is_floating_point() else t, part) for part in state))
        return take(state, torch.arange(len(cells)), self.micro)


class Table:
    """States of a list of rows by position: computed anew for each batch, or read from a store."""

    def __init__(self, trunk: Trunk, rows: Sequence[Row], store: Store | None) -> None:
        self.trunk, self.rows, self.store = trunk, rows, store
        self._whole: State | None = None
        if store is not None:
            self._whole = store.gather([row.key for row in rows])

    def batch(self, index: Sequence[int]) -> State:
        """States of the rows at `index`, in that order. At frontier 0 the state is the encoded batch itself."""
        if self._whole is not None:
            return take(self._whole, torch.as_tensor(index), len(self.rows))
        cells = [self.rows[i].cell for i in index]
        if self.trunk.k:
            return self.trunk.states(cells)
        return State(None, {}, self.trunk.encode(cells))

    def padded(self, start: int) -> tuple[State, int]:
        """A micro-batch from position `start`, filled up by repeating the last row, and how many rows count."""
        size = self.trunk.micro
        index = [min(i, len(self.rows) - 1) for i in range(start, start + size)]
        return self.batch(index), min(size, len(self.rows) - start)


class Store:
    """A folder of blocks for one trunk. Blocks that do not match their name are dropped and computed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, tuple[int, int]] = {}
        self._blocks: list[State] = []
        self.dropped = 0
        durable.sweep(folder)
        for path in sorted(folder.glob("*.block")):
            self._open(path)
        if folder.is_dir():
            os.utime(folder)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    @property
    def bytes(self) -> int:
        """What the store holds on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*.block"))

    def fill(self, trunk: Trunk, rows: Sequence[Row]) -> Iterator[int]:
        """Run the trunk on the rows that are not held, writing block after block; yields rows done so far.

        Raises: ResourceError: the disk is full (what was written stays usable).
        """
        wanted = list({row.key: row for row in rows if row.key not in self}.values())
        keys: list[str] = []
        pieces: list[State] = []
        size, since = 0, time.monotonic()
        for start in range(0, len(wanted), trunk.micro):
            some = wanted[start : start + trunk.micro]
            piece = trunk.states([row.cell for row in some])
            keys += [row.key for row in some]
            pieces.append(piece)
            size += sum(t.numel() * t.element_size() for t in leaves(piece.value))
            last = start + trunk.micro >= len(wanted)
            if last or size > BLOCK_BYTES or time.monotonic() - since > BLOCK_SECONDS:
                self._write(keys, join(pieces) if len(pieces) > 1 else pieces[0])
                keys, pieces, size, since = [], [], 0, time.monotonic()
            yield len(wanted[: start + trunk.micro])

    def gather(self, keys: Sequence[str]) -> State:
        """The states of `keys` in their order, as one state."""
        blocks = sorted({self._where[key][0] for key in keys})
        base = dict(zip(blocks, _starts([_rows(self._blocks[b]) for b in blocks]), strict=True))
        whole = self._blocks[blocks[0]]
        if len(blocks) > 1:
            whole = join([self._blocks[b] for b in blocks])
        index = torch.tensor([base[b] + i for b, i in (self._where[key] for key in keys)])
        return take(whole, index, _rows(whole))

    def _write(self, keys: list[str], state: State) -> None:
        tensors: dict[str, Tensor] = {}
        told = {
            "keys": keys,
            "value": _spec(state.value, tensors),
            "seen": {path: _spec(v, None) for path, v in state.seen.items()},
            "inputs": {n: _spec(v, None if v.is_floating_point() else tensors) for n, v in state.inputs.items()},
        }
        data = save({n: t.contiguous() for n, t in tensors.items()}, {"regraft": json.dumps(told)})
        path = self.folder / f"{durable.digest(data)}.block"
        durable.write(path, data)
        self._open(path)

    def _open(self, path: Path) -> None:
        if durable.file_digest(path) != path.stem:
            durable.remove(path)
            self.dropped += 1
            return
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["regraft"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        n = len(told["keys"])
        state = State(
            _value(told["value"], tensors, n),
            {p: _value(v, tensors, None) for p, v in told["seen"].items()},
            {name: _value(v, tensors, n) for name, v in told["inputs"].items()},
        )
        for i, key in enumerate(told["keys"]):
            self._where.setdefault(key, (len(self._blocks), i))
        self._blocks.append(state)


def open_store(view: View, frontier: int, machine: MachineCard) -> Store:
    """The store of everything below `frontier` of this view on this machine; the least used ones make room."""
    folder = place(view, frontier, machine)
    durable.private(folder.parent)
    trim(folder.parent, LIMIT_BYTES, folder)
    return Store(folder)


def place(view: View, frontier: int, machine: MachineCard) -> Path:
    """The folder that holds the states at `frontier`: another one whenever their bits could differ."""
    below: dict[str, Tensor] = {f"p/{name}": p for name, stage, p in view.named() if stage < frontier}
    below |= {f"b/{name}": b for name, stage, b in view.buffers() if stage < frontier}
    key = fingerprint(
        FORMAT,
        freeze.hashes(below),
        view.config,
        [stage.path for stage in view.stages[:frontier]],
        view.inputs,
        "eval",
        machine.dtype,
        machine.micro_batch,
        machine.threads,
        machine.processor,
        machine.versions,
    )
    return hardware.cache_folder() / "trunk" / key[:32]


def trim(root: Path, limit_bytes: int, keep: Path) -> None:
    """Remove the stores that were opened longest ago until the rest fits `limit_bytes`."""
    stores = sorted((p for p in root.glob("*") if p.is_dir() and p != keep), key=lambda p: p.stat().st_mtime)
    sizes = {p: sum(f.stat().st_size for f in p.glob("*.block")) for p in stores}
    total = sum(sizes.values())
    for path in stores:
        if total <= limit_bytes:
            break
        durable.remove(path)
        total -= sizes[path]


def holds(view: View, frontiers: Sequence[int], batch: dict[str, Tensor]) -> bool:
    """Whether the split law holds bit for bit at these frontiers on this batch."""
    with torch.no_grad():
        whole = view.run(batch)
        try:
            for k in sorted(set(frontiers) - {0, len(view.stages)}):
                state = view.run(batch, stop=k)
                _spec(state.value, {})
                if not torch.equal(view.run(start=k, state=state), whole):
                    return False
        except (Uncuttable, RuntimeError, TypeError, IndexError, KeyError, ValueError, AttributeError):
            return False
    return True


def promise(view: View, batch: dict[str, Tensor]) -> str:
    """Which promise this machine can keep: "exact" if a row's bits do not depend on its company or its place.

    Takes three passes of one micro-batch, about a second for a network of 0.6 GFLOP on two cores.
    """
    turned = {name: tensor.flip(0) for name, tensor in batch.items()}
    alone = {name: tensor[:1].expand_as(tensor).contiguous() for name, tensor in batch.items()}
    with torch.no_grad():
        first, second, third = view.run(batch), view.run(turned).flip(0), view.run(alone)
    return "exact" if torch.equal(first, second) and torch.equal(first[0], third[0]) else "tolerance"


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
    counts = [_rows(s) for s in states]
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


def _rows(state: State) -> int:
    return len(next(iter(state.inputs.values())))


def _starts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


def _spec(value: Any, tensors: dict[str, Tensor] | None) -> Any:
    """A stage's output as JSON: tensors go into `tensors`, or are described alone where that is None."""
    if torch.is_tensor(value):
        if tensors is None:
            return {"ghost": [str(value.dtype).removeprefix("torch."), list(value.shape)]}
        tensors[f"t{len(tensors)}"] = value
        return {"tensor": f"t{len(tensors) - 1}"}
    if type(value) in (tuple, list):
        return {type(value).__name__: [_spec(v, tensors) for v in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"plain": value}
    raise Uncuttable(type(value).__name__)


def _value(spec: dict[str, Any], tensors: dict[str, Tensor], n: int | None) -> Any:
    """The reverse of `_spec`; ghosts get `n` rows, or as many as they had."""
    if "tensor" in spec:
        return tensors[spec["tensor"]]
    if "ghost" in spec:
        dtype, shape = spec["ghost"]
        return torch.zeros((), dtype=getattr(torch, dtype)).expand(shape if n is None else [n, *shape[1:]])
    if "plain" in spec:
        return spec["plain"]
    kind, items = next(iter(spec.items()))
    return (tuple if kind == "tuple" else list)(_value(v, tensors, n) for v in items)
