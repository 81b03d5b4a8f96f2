"""Keep what the frozen trunk gives for each example, so that it runs once however many plans and epochs read it.

The store is addressed by content: weights and buffers below the frontier, network, preprocessing, library versions,
micro-batch, threads and processor name the store; the example's own bytes name the entry. Blocks are immutable files
named by their SHA-256, renamed into place, so two processes may fill one store and a torn block cannot exist.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from regraft.backbone.state import State, leaves
from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.engine.trunk import Part, Shape, Side, Trunk, by_size, groups, join, parts_of, rows_of, take
from regraft.errors import ResourceError, UsageError
from regraft.kit import durable, hardware, shelf
from regraft.waist import MachineCard, Row, fingerprint

FORMAT = 2
BLOCK_BYTES = 64_000_000
BLOCK_SECONDS = 20.0


class Uncuttable(Exception):
    """A state of this network holds something that cannot be kept row by row."""


class Table:
    """States of a list of rows by position: computed anew for each batch, or read from a store.

    With two `sides` a row's cell is a pair whose texts go through the network apart.
    """

    def __init__(self, trunk: Trunk, rows: Sequence[Row], store: Store | None, sides: int = 1) -> None:
        self.trunk, self.rows, self.store = trunk, rows, store
        self.parts = parts_of(trunk.encoder, rows, sides)
        self.shapes: list[Shape] = [tuple((side[0].size, len(side)) for side in row) for row in self.parts]
        self._held: dict[int, State] = {}
        self._at: dict[str, int] = {}
        if store is not None:
            for size, keys in by_size(self.parts).items():
                self._held[size] = store.gather(list(keys))
                self._at |= {key: i for i, key in enumerate(keys)}

    def batch(self, index: Sequence[int]) -> list[Side]:
        """States of the rows at `index`, all of one shape, in that order, a side each.

        At frontier 0 a state is the encoded batch itself.
        """
        shape = self.shapes[index[0]]
        assert all(self.shapes[i] == shape for i in index), "rows of two shapes in a batch"
        found = []
        for side, (size, count) in enumerate(shape):
            parts = [part for i in index for part in self.parts[i][side]]
            if self.store is not None:
                whole = self._held[size]
                state = take(whole, torch.tensor([self._at[part.key] for part in parts]), rows_of(whole))
            elif self.trunk.k:
                state = self.trunk.states(parts)
            else:
                state = State(None, {}, self.trunk.encoder.tensors([part.value for part in parts]))
            found.append(Side(state, count))
        return found

    def micro_batches(self) -> Iterator[tuple[list[int], int]]:
        """Positions of all rows in micro-batches of one shape, filled up by repeating the last, and how many count."""
        for shape, members in groups(self.shapes).items():
            rows = max(1, min(self.trunk.rows(size) // count for size, count in shape))
            for start in range(0, len(members), rows):
                some = members[start : start + rows]
                yield some + some[-1:] * (rows - len(some)), len(some)


class Store:
    """A folder of blocks for one trunk. Blocks that do not match their name are dropped and computed again.

    Where the disk has no room or may not be written, blocks are held in memory alone, and `unkept` says why.
    """

    def __init__(self, folder: Path, unkept: str = "") -> None:
        self.folder, self.unkept = folder, unkept
        self._where: dict[str, tuple[int, int]] = {}
        self._blocks: list[State] = []
        self.dropped = 0
        with contextlib.suppress(ResourceError, UsageError, OSError):  # a store that may only be read is of use too
            durable.sweep(folder)
            os.utime(folder)
        for path in sorted(folder.glob("*.block")):
            self._open(path)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    @property
    def bytes(self) -> int:
        """What the store holds on disk."""
        return _size(self.folder)

    def lacking(self, parts: Sequence[Sequence[Sequence[Part]]]) -> list[Part]:
        """The different parts of rows that are not held, those of one size together."""
        return [part for _, some in sorted(by_size(parts).items()) for part in some.values() if part.key not in self]

    def fill(self, trunk: Trunk, parts: Sequence[Part]) -> Iterator[int]:
        """Run the trunk on what `lacking` gave, writing block after block; yields parts done so far."""
        done = 0
        for _, some in itertools.groupby(parts, key=lambda part: part.size):
            wanted = list(some)
            keys: list[str] = []
            pieces: list[State] = []
            size, since, rows = 0, time.monotonic(), trunk.rows(wanted[0].size)
            for start in range(0, len(wanted), rows):
                few = wanted[start : start + rows]
                piece = trunk.states(few)
                keys += [part.key for part in few]
                pieces.append(piece)
                more = sum(t.numel() * t.element_size() for t in leaves(piece.value))
                if not start:
                    self._room(more * math.ceil(len(wanted) / len(few)))
                size += more
                last = start + rows >= len(wanted)
                if last or size > BLOCK_BYTES or time.monotonic() - since > BLOCK_SECONDS:
                    self._write(keys, join(pieces) if len(pieces) > 1 else pieces[0])
                    keys, pieces, size, since = [], [], 0, time.monotonic()
                done += len(few)
                yield done

    def gather(self, keys: Sequence[str]) -> State:
        """The states of `keys`, parts of one size, in their order, as one state."""
        blocks = sorted({self._where[key][0] for key in keys})
        base = dict(zip(blocks, _starts([rows_of(self._blocks[b]) for b in blocks]), strict=True))
        whole = self._blocks[blocks[0]]
        if len(blocks) > 1:
            whole = join([self._blocks[b] for b in blocks])
        index = torch.tensor([base[b] + i for b, i in (self._where[key] for key in keys)])
        return take(whole, index, rows_of(whole))

    def _write(self, keys: list[str], state: State) -> None:
        tensors: dict[str, Tensor] = {}
        told = {
            "keys": keys,
            "value": _spec(state.value, tensors),
            "seen": {path: _spec(v, None) for path, v in state.seen.items()},
            "inputs": {n: _spec(v, None if v.is_floating_point() else tensors) for n, v in state.inputs.items()},
        }
        tensors = {n: t.contiguous() for n, t in tensors.items()}
        if not self.unkept:
            data = save(tensors, {"regraft": json.dumps(told)})
            try:
                durable.write(self.folder / f"{durable.digest(data)}.block", data)
            except (ResourceError, UsageError) as error:
                self.unkept = error.saw
        self._add(told, tensors)

    def _room(self, need: int) -> None:
        """Keep nothing of what would take more than half of the room that the disk has: the run itself needs some."""
        free = hardware.free_bytes(self.folder)
        if 2 * need > free and not self.unkept:
            self.unkept = f"{need / 1e6:,.1f} MB for {self.folder}, of {free / 1e6:,.1f} MB free"

    def _open(self, path: Path) -> None:
        try:
            if durable.file_digest(path) == path.stem:
                with safe_open(path, framework="pt") as file:
                    told = json.loads(file.metadata()["regraft"])
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                self._add(told, tensors)
                return
            durable.remove(path)
        except FileNotFoundError:
            return  # another process made room
        except (ResourceError, UsageError, OSError):
            pass  # it cannot be read, or not removed
        self.dropped += 1

    def _add(self, told: dict[str, Any], tensors: dict[str, Tensor]) -> None:
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
    try:
        durable.private(folder.parent)
        trim(folder.parent, hardware.cache_bytes(), folder)
    except (ResourceError, UsageError) as error:
        return Store(folder, error.saw)
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
        view.pooling if frontier == len(view.stages) else "",
        view.inputs,
        shelf.find("modalities", view.inputs.modality).POLICY,
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
    found = {path: _date(path) for path in root.glob("*") if path != keep}
    stores = sorted((path for path, date in found.items() if date), key=lambda path: found[path])
    sizes = {path: _size(path) for path in stores}
    total = sum(sizes.values())
    for path in stores:
        if total <= limit_bytes:
            break
        durable.remove(path)
        total -= sizes[path]


def _date(path: Path) -> float:
    """When a folder was last opened; 0 where it is none, or another process has just removed it."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime if path.is_dir() else 0.0
    return 0.0


def _size(folder: Path) -> int:
    """The bytes of a store's blocks; another process may be removing some."""
    found = 0
    for path in folder.glob("*.block"):
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def _starts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


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
