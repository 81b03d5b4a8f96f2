"""Keep what the frozen trunk gives for each example, so that it runs once however many plans and epochs read it.

The store is addressed by content: weights and buffers below the frontier, network, preprocessing, library versions,
micro-batch, threads and processor name the store; the example's own bytes name the entry. Blocks are immutable files
named by their SHA-256, renamed into place, so two processes may fill one store and a torn block cannot exist.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from regraft.backbone.short import fan
from regraft.backbone.state import State, as_state, leaves, tree
from regraft.backbone.view import View
from regraft.engine import blocks, freeze
from regraft.engine.inputs import Inputs
from regraft.engine.trunk import Part, Shape, Side, Trunk, by_size, groups, join, parts_of, rows_of
from regraft.errors import ResourceError, UsageError
from regraft.kit import durable, hardware, shelf
from regraft.kit.store import Folder
from regraft.waist import MachineCard, Row, fingerprint

FORMAT = 2
BLOCK_BYTES = 64_000_000
BLOCK_SECONDS = 20.0
HELD_SHARE = 0.25
"""States that take more of the machine's memory than this are read from their blocks batch by batch."""
TRIES = 3
"""How often a block is written while other processes remove its folder under it."""


class Uncuttable(Exception):
    """A state of this network holds something that cannot be kept row by row."""


class Table:
    """States of a list of rows by position: computed anew for each batch, or read from a store that has them all.

    With two `sides` a row's cell is a pair whose texts go through the network apart. With `inputs` rows that begin at
    the network's input are read from their cells once.
    """

    def __init__(
        self, trunk: Trunk, rows: Sequence[Row], store: Store | None, sides: int = 1, inputs: Inputs | None = None
    ) -> None:
        self.trunk, self.rows, self.inputs = trunk, rows, inputs
        self.parts = parts_of(trunk.encoder, rows, sides)
        self.store = store = None if store is None or store.lacking(self.parts) else store
        self.shapes: list[Shape] = [tuple((side[0].size, len(side)) for side in row) for row in self.parts]
        self._kept: dict[int, Kept] = {}
        self._at: dict[str, int] = {}
        self._ahead: tuple[list[int], Future[list[Side]]] | None = None
        self._beside = ThreadPoolExecutor(1) if store is None and not trunk.k and hardware.spare() else None
        if store is not None:
            for size, keys in by_size(self.parts).items():
                self._kept[size] = store.states(list(keys))
                self._at |= {key: i for i, key in enumerate(keys)}
            if not store.unkept and fits(sum(kept.bytes for kept in self._kept.values())):
                self._kept = {size: kept.held() for size, kept in self._kept.items()}

    def batch(self, index: Sequence[int]) -> list[Side]:
        """States of the rows at `index`, all of one shape, in that order, a side each.

        At frontier 0 a state is the encoded batch itself.
        """
        ahead, self._ahead = self._ahead, None
        return ahead[1].result() if ahead and ahead[0] == list(index) else self._made(index)

    def prepare(self, index: Sequence[int]) -> None:
        """Begin to encode the batch that is asked for next, beside what is computed, where a processor is free."""
        if self._beside:
            self._ahead = list(index), self._beside.submit(self._made, index)

    def _made(self, index: Sequence[int]) -> list[Side]:
        shape = self.shapes[index[0]]
        assert all(self.shapes[i] == shape for i in index), "rows of two shapes in a batch"
        found = []
        for side, (size, count) in enumerate(shape):
            parts = [part for i in index for part in self.parts[i][side]]
            if self.store is not None:
                state = self._kept[size].take(torch.tensor([self._at[part.key] for part in parts]))
            elif self.trunk.k:
                state = self.trunk.states(parts)
            else:
                state = State(None, {}, self._read(parts))
            found.append(Side(state, count))
        return found

    def _read(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        return self.inputs.tensors(parts) if self.inputs else self.trunk.encoder.tensors([part.value for part in parts])

    def micro_batches(self, at_once: int = 0) -> Iterator[tuple[list[int], int]]:
        """Positions of all rows in micro-batches of one shape, filled up by repeating the last, and how many count.

        So many `at_once`, where bits may depend on a row's company, are not filled up.
        """
        for shape, members in groups(self.shapes).items():
            rows = at_once or max(1, min(self.trunk.rows(size) // count for size, count in shape))
            for start in range(0, len(members), rows):
                some = members[start : start + rows]
                yield some + some[-1:] * (0 if at_once else rows - len(some)), len(some)


class Kept:
    """States of parts of one size in an order of their own, read from the blocks that hold them."""

    def __init__(self, held: Sequence[State], where: Sequence[tuple[int, int]]) -> None:
        used = {block: i for i, block in enumerate(sorted({block for block, _ in where}))}
        self._states = [held[block] for block in used]
        self._where = torch.tensor([(used[block], row) for block, row in where]).reshape(-1, 2)
        self._leaves = [leaves((state.value, state.inputs)) for state in self._states]
        counts = [rows_of(state) for state in self._states]
        self._rowwise = [
            all(bool(t.ndim) and t.shape[0] == n for t, n in zip(column, counts, strict=True))
            for column in zip(*self._leaves, strict=True)
        ]

    @property
    def bytes(self) -> int:
        """What these states take where they are gathered in memory; what stands for all rows is not counted."""
        one = [t for t, rowwise in zip(self._leaves[0], self._rowwise, strict=True) if rowwise and not _ghostly(t)]
        return len(self._where) * sum(t[0].numel() * t.element_size() for t in one)

    def held(self) -> Kept:
        """The same states in memory, in one copy."""
        made = Kept([self.all()], [(0, i) for i in range(len(self._where))])
        made._rowwise = self._rowwise  # a table for all rows may have as many as there are rows in memory
        return made

    def all(self) -> State:
        """All of these states, in their order."""
        return self.take(torch.arange(len(self._where)))

    def take(self, index: Tensor) -> State:
        """The states at these positions, in that order."""
        at, n = self._where[index], len(index)
        used = at[:, 0].unique().tolist() if len(self._states) > 1 else [0]
        found = [(block, (at[:, 0] == block).nonzero().flatten()) for block in used] if len(used) > 1 else []

        def gathered(column: int) -> Tensor:
            first = self._leaves[0][column]
            if not self._rowwise[column]:
                return first
            if _ghostly(first):
                return first[:1].expand(n, *first.shape[1:])
            if not found:
                picked: Tensor = self._leaves[used[0]][column].index_select(0, at[:, 1])
                return picked
            made = first.new_empty((n, *first.shape[1:]))
            for block, places in found:
                made.index_copy_(0, places, self._leaves[block][column].index_select(0, at[places, 1]))
            return made

        columns = itertools.count()
        state = self._states[0]
        value, inputs = tree(lambda _: gathered(next(columns)), (state.value, state.inputs))
        return State(value, state.seen, inputs)


def _ghostly(tensor: Tensor) -> bool:
    """Whether a tensor stands for rows without holding any."""
    return tensor.numel() > 1 and not any(tensor.stride())


def room() -> int:
    """How many bytes of states, or of inputs, may be held in memory at once."""
    return int(HELD_SHARE * hardware.memory_bytes())


def fits(need: int) -> bool:
    """Whether so many bytes may be held in memory at once."""
    return need <= room()


class Store:
    """A folder of blocks for one trunk. Blocks that do not match their name are dropped and computed again.

    Blocks are mapped into memory: the system reads what is asked for, and what another process removes stays readable.
    Where the disk has no room or may not be written, blocks are held in memory alone, and `unkept` says why.
    """

    def __init__(self, folder: Path, unkept: str = "", about: blocks.About | None = None) -> None:
        self.folder, self.unkept, self._about = folder, unkept, about
        self._where: dict[str, tuple[int, int]] = {}
        self._blocks: list[State] = []
        self.dropped = 0
        with contextlib.suppress(ResourceError, UsageError, OSError):  # a store that may only be read is of use too
            durable.sweep(folder)
            os.utime(folder)
        for path in blocks.within(folder):
            self._open(path)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    @property
    def bytes(self) -> int:
        """What the store holds on disk."""
        return blocks.size(self.folder)

    def lacking(self, parts: Sequence[Sequence[Sequence[Part]]]) -> list[Part]:
        """The different parts of rows that are not held, those of one size together."""
        return [part for _, some in sorted(by_size(parts).items()) for part in some.values() if part.key not in self]

    def fill(self, trunk: Trunk, parts: Sequence[Part], others: Sequence[Store] = ()) -> Iterator[int]:
        """Run the trunk on what `lacking` gave, writing block after block; yields parts done so far.

        What the trunk gives beside its own states goes to the `others`. It ends early where neither disk nor memory has
        room for what the first micro-batch foretells.
        """
        done, stores = 0, (self, *others)
        for _, some in itertools.groupby(parts, key=lambda part: part.size):
            wanted = list(some)
            keys: list[str] = []
            pieces: list[list[State]] = []
            size, since, first = 0, time.monotonic(), done
            for few, made in trunk.passes(wanted):
                keys += [part.key for part in few]
                pieces.append(made)
                more = sum(t.numel() * t.element_size() for t in leaves(made[0].value))
                whole = more * math.ceil(len(wanted) / len(few))
                if done == first and not all(store._room(whole) for store in stores):
                    return
                size += more
                last = done + len(few) >= first + len(wanted)
                if last or size > BLOCK_BYTES or time.monotonic() - since > BLOCK_SECONDS:
                    for store, column in zip(stores, zip(*pieces, strict=True), strict=True):
                        store._write(keys, join(column) if len(column) > 1 else column[0])
                    keys, pieces, size, since = [], [], 0, time.monotonic()
                done += len(few)
                yield done

    def states(self, keys: Sequence[str]) -> Kept:
        """The states of `keys`, parts of one size, in their order."""
        return Kept(self._blocks, [self._where[key] for key in keys])

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
            tensors = self._put(told, tensors) or tensors
        self._add(told, tensors)

    def _put(self, told: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Write a block; its tensors as they lie on disk, none where it cannot be written, or is removed at once."""
        data = save(tensors, {"regraft": json.dumps(told)})
        path = self.folder / f"{durable.digest(data)}.block"
        for left in reversed(range(TRIES)):
            try:
                if self._about is not None and not (self.folder / f"{blocks.ABOUT}.json").exists():
                    Folder(self.folder).write(blocks.ABOUT, self._about)
                durable.write(path, data)
                return _mapped(path)
            except (ResourceError, UsageError) as error:
                self.unkept = error.saw
                break
            except FileNotFoundError:  # another process removed the folder between two steps
                self.unkept = "" if left else f"{self.folder}: another process keeps removing it"
        return {}

    def _room(self, need: int) -> bool:
        """Whether `need` bytes can be kept on disk, where others make room for them, or else in memory.

        More than half of the room that the disk has is never taken: the run itself needs some.
        """
        free, limit, whole = hardware.free_bytes(self.folder), hardware.cache_bytes(), self.bytes + need
        if not self.unkept and whole > limit:
            self.unkept = f"{whole / 1e6:,.1f} MB for {self.folder}, of {limit / 1e6:,.1f} MB for the whole cache"
        elif not self.unkept and 2 * need > free:
            self.unkept = f"{need / 1e6:,.1f} MB for {self.folder}, of {free / 1e6:,.1f} MB free"
        elif not self.unkept:
            with contextlib.suppress(ResourceError, UsageError):
                blocks.trim(self.folder.parent, limit - whole, self.folder)
        return not self.unkept or fits(need)

    def _open(self, path: Path) -> None:
        try:
            if durable.file_digest(path) == path.stem:
                self._add(blocks.head(path), _mapped(path))
                return
            durable.remove(path)
        except FileNotFoundError:
            return  # another process made room
        except (ResourceError, UsageError, OSError, ValueError):
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


def _mapped(path: Path) -> dict[str, Tensor]:
    """A block's tensors by name, mapped into memory.

    Raises: FileNotFoundError: another process has removed it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except RuntimeError as error:  # torch opens the file once more, by its name
        if path.exists() and "No such file" not in str(error):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error


def open_store(view: View, frontier: int, machine: MachineCard) -> Store:
    """The store of everything below `frontier` of this view on this machine; the least used ones make room."""
    folder = place(view, frontier, machine)
    try:
        durable.private(folder.parent)
        blocks.trim(folder.parent, hardware.cache_bytes(), folder)
    except (ResourceError, UsageError) as error:
        return Store(folder, error.saw)
    about = blocks.About(
        model=view.name,
        provider=view.provider,
        pooling=view.reading,
        frontier=frontier,
        stages=len(view.stages),
        engine=machine.engine,
        dtype=machine.dtype,
        threads=machine.threads,
        micro_batch=machine.micro_batch,
    )
    return Store(folder, about=about)


def place(view: View, frontier: int, machine: MachineCard) -> Path:
    """The folder that holds the states at `frontier`: another one whenever their bits could differ."""
    below: dict[str, Tensor] = {f"p/{name}": p for name, stage, p in view.named() if stage < frontier}
    below |= {f"b/{name}": b for name, stage, b in view.buffers() if stage < frontier}
    key = fingerprint(
        FORMAT,
        freeze.hashes(below),
        view.config,
        [stage.path for stage in view.stages[:frontier]],
        view.reading if view.taps or frontier == len(view.stages) else "",
        machine.inputs or view.inputs,
        shelf.find("modalities", view.inputs.modality).POLICY,
        "eval",
        machine.engine,
        machine.dtype,
        machine.micro_batch,
        machine.threads,
        machine.processor,
        machine.versions,
    )
    return blocks.root() / key[:32]


def holds(view: View, frontiers: Sequence[int], batch: dict[str, Tensor]) -> bool:
    """Whether the split law holds bit for bit at these frontiers on this batch."""
    between = sorted(set(frontiers) - {0, len(view.stages)})
    if not between:
        return True
    with torch.no_grad():
        whole = view.run(batch)
        try:
            for k in between:
                state = view.run(batch, stop=k)
                _spec(state.value, {})
                if not torch.equal(view.run(start=k, state=state), whole):
                    return False
        except (Uncuttable, RuntimeError, TypeError, IndexError, KeyError, ValueError, AttributeError):
            return False
    return True


def fanned(view: View, ends: Sequence[View], batch: dict[str, Tensor]) -> bool:
    """Whether one pass gives the features of a view and of these that end earlier, bit for bit on this batch."""
    with torch.no_grad():
        made = fan(view, batch, ends)
        return all(torch.equal(a, one.run(batch)) for a, one in zip(made, (view, *ends), strict=True))


def chained(view: View, begin: int, k: int, batch: dict[str, Tensor]) -> bool:
    """Whether states at k made of states at `begin` are those made of the input, bit for bit on this batch."""
    with torch.no_grad():
        whole = as_state(view.run(batch, stop=k), batch)
        below = as_state(view.run(batch, stop=begin), batch)
        made = as_state(view.run(start=begin, stop=k, state=below), below.inputs)
    one, other = (leaves((state.value, state.inputs)) for state in (whole, made))
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


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
