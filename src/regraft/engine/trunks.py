"""The frozen trunks of a run: with which engine each computes, and what it gives for rows, stored or computed anew."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from regraft.backbone.view import View
from regraft.engine import cache, compilers, policy
from regraft.engine.cache import Store, Table
from regraft.engine.engines import GAIN, Engine
from regraft.engine.inputs import Inputs, fixed
from regraft.engine.predict import sides
from regraft.engine.trunk import Part, Trunk, padded, parts_of, samples
from regraft.kit import hardware
from regraft.kit.store import Folder
from regraft.waist import Encoder, Event, Filled, MachineCard, Plan, Row, Said

RECORDS = COMPILED, RAN, KEPT, RATES = "compiled", "trunk", "kept", "rates"


@dataclass
class Trunks:
    """All trunks of one backbone in one run: `view` is the backbone, `columns` how many cells of a row are read.

    With `cached` off nothing is stored. Which trunks run compiled, and by what, is a record in `folder`: a clock chose.
    """

    view: View
    encoder: Encoder
    machine: MachineCard
    columns: int
    folder: Folder
    cached: bool = True
    _encoders: dict[str, Encoder] = field(default_factory=dict, init=False)
    _held: dict[Encoder, Inputs] = field(default_factory=dict, init=False)
    _engines: dict[str, Engine] = field(default_factory=dict, init=False)
    _lawful: dict[str, bool] = field(default_factory=dict, init=False)
    _places: dict[tuple[object, ...], tuple[Path, list[Tensor]]] = field(default_factory=dict, init=False)
    _stores: dict[Path, Store] = field(default_factory=dict, init=False)
    _said: set[str] = field(default_factory=set, init=False)
    _opened: set[tuple[str, int]] = field(default_factory=set, init=False)
    _passes: dict[str, int] = field(default_factory=dict, init=False)
    _rates: policy.Rates | None = field(default=None, init=False)
    _unkept: bool = field(default=False, init=False)
    _exact: Trunks | None = field(default=None, init=False)
    _costs: dict[str, float] = field(default_factory=compilers.expected, init=False)

    def sides(self, view: View) -> int:
        """How many texts of a row go through the network apart."""
        return sides(view.pooling, self.columns)

    def encoder_of(self, view: View, k: int = 0) -> Encoder:
        """How cells become batches for a trunk below k; one for all that prepare their inputs the same way."""
        inputs = (self.machine.inputs if k else None) or view.inputs
        if inputs == self.view.inputs:
            return self.encoder
        return self._encoders.setdefault(inputs.fingerprint, view.prepared(inputs).encoder(True))

    def table(self, view: View, k: int, rows: Sequence[Row], once: bool = False) -> Table:
        """States at frontier k of these rows: from the store where there is one, otherwise computed as asked for.

        Rows that are read `once` are not held in memory where they begin at the network's input.
        """
        trunk, apart = self._trunk(view, k), self.sides(view)
        if not k or not self.cached or view.drawn or not self._law(view, k, rows):
            return Table(trunk, rows, None, apart, None if k or once else self._inputs(trunk))
        store, parts = self._store(view, k), parts_of(trunk.encoder, rows, apart)
        if missing := store.lacking(parts):
            filling = self._trunk(view, k)
            self._from_nearest(filling, rows, missing)
            share = len(rows) / sum(len(side) for row in parts for side in row)
            for _ in self._filled(store, filling, missing, share):
                pass
        return Table(trunk, rows, store, apart)

    def holds(self, view: View) -> bool:
        """Whether rows that a trial reads at the network's input stay in memory, for all trials, as far as it goes."""
        return self.cached and fixed(view.inputs)

    def _inputs(self, trunk: Trunk) -> Inputs | None:
        if not self.holds(trunk.view):
            return None
        return self._held.setdefault(trunk.encoder, Inputs(trunk.encoder, cache.room()))

    def release(self) -> bool:
        """Hold no more rows in memory that can be read from their cells; whether any were held."""
        held = any(inputs.held for inputs in self._held.values())
        self._held.update({encoder: Inputs(encoder, 0) for encoder in self._held})
        return held

    def as_shipped(self, view: View, k: int, rows: Sequence[Row]) -> Table:
        """States to score with: as the bundle prepares them, in its numbers, even where the trunk trains on others."""
        return self.shipping.table(view, k, rows)

    @property
    def shipping(self) -> Trunks:
        """The trunks that rows are scored with: these, or others where these do not take and compute what ships."""
        if self.ships:
            return self
        machine = replace(self.machine, dtype="float32", compiles=False, inputs=None)
        if self._exact is None or self._exact.machine != machine:
            self._exact = replace(self, machine=machine)
            self._exact._held = self._held  # at the network's input both read the same
        return self._exact

    @property
    def ships(self) -> bool:
        """Whether trunks take what the bundle takes, and compute in its numbers."""
        return self.machine.dtype == "float32" and self.machine.inputs is None

    def expect(self, plans: Sequence[Plan]) -> None:
        """Take note of the frontiers that plans read, and how often: what is kept on the way to one serves others."""
        for plan in plans:
            for phase in plan.phases if plan.init == "pretrained" else ():
                if phase.frontier:
                    reads = 1 if plan.optimizer.whole else phase.epochs
                    name = f"{plan.reading}/{phase.frontier}"
                    self._passes[name] = self._passes.get(name, 0) + reads + 1

    def warm(self, view: View, k: int, rows: Sequence[Row]) -> Iterator[Event]:
        """Fill the store of frontier k with these rows, before it those below that the policy keeps on the way.

        What random weights give is not kept: a head alone reads it, once.
        """
        if not k or not self.cached or view.drawn:
            return
        if not self._law(view, k, rows):
            yield Said(f"the split law does not hold at stage {k} of this network: the cache is left unused")
            return
        for below in self._kept_below(view, k, len(rows)):
            if self._law(view, below, rows):
                yield from self._warm(view, below, rows)
        if k == len(view.stages):
            yield from self._fan(view, rows)
        yield from self._warm(view, k, rows)

    def _fan(self, view: View, rows: Sequence[Row]) -> Iterator[Event]:
        """Where features after several numbers of blocks are asked for, fill all their stores in one pass of the most.

        Those that lack other rows than the longest network are left to a pass of their own, as are all of them where
        states on the way are held, to go on from.
        """
        read = sorted({n.split("/")[0] for n in self._passes if n.split("@")[0].split("/")[0] == view.pooling})
        asked = sorted((self.view.pooled(name) for name in read), key=lambda one: -len(one.stages))
        longest, *ends = [one for one in asked if _name(one, len(one.stages)) in self._passes] or [view]
        if not ends or not self.plainly:
            return
        parts, k = parts_of(self.encoder, rows, self.sides(view)), len(longest.stages)
        missing, trunk = self._store(longest, k).lacking(parts), self._trunk(longest, k)
        ends = [one for one in ends if self._store(one, len(one.stages)).lacking(parts) == missing]
        self._from_nearest(trunk, rows, missing)
        if missing and ends and not trunk.source and self._fans(longest, ends, rows):
            yield from self._warm(longest, k, rows, ends)

    def _fans(self, view: View, ends: Sequence[View], rows: Sequence[Row]) -> bool:
        """Whether one pass gives the features of all of these, on a micro-batch of the most frequent size."""
        name = " ".join(one.reading for one in (view, *ends))
        if name not in self._lawful:
            _, some = next(samples(self.encoder, rows, self._trunk(view, len(view.stages)), self.sides(view)))
            self._lawful[name] = cache.fanned(view, ends, self.encoder.tensors(some))
        return self._lawful[name]

    def _kept_below(self, view: View, k: int, rows: int) -> list[int]:
        """Frontiers below k to fill before it: decided once in a run, by the rates of its disk and of its trunk."""
        wanted = [int(n.split("/")[1]) for n in self._passes if n.split("/")[0] == view.reading]
        name, below = _name(view, k), sorted(j for j in wanted if j < k)
        if not below or not self.plainly:
            return []
        held = self.folder.read(KEPT, dict[str, list[int]]) or {}
        if name not in held:
            rates = self._rates = self._rates or policy.measured(hardware.cache_folder())
            room = min(hardware.cache_bytes(), hardware.free_bytes(hardware.cache_folder()) / 2) / max(1, rows)
            flops = [stage.flops for stage in view.stages]
            seen = [
                policy.Frontier(
                    j,
                    view.stages[j - 1].out_bytes * self.sides(view),
                    self.machine.forward_s * sum(flops[:j]) / max(1, sum(flops)),
                    self._passes.get(f"{view.reading}/{j}", 1),
                )
                for j in (*below, k)
            ]
            kept = policy.keep(seen, rates, room) if rates else ()
            held |= {name: [j for j in kept if j < k]}
            if rates:
                self.folder.write(RATES, rates)
            self.folder.write(KEPT, held)  # last: it is what stands for both
        return held[name]

    def _warm(self, view: View, k: int, rows: Sequence[Row], ends: Sequence[View] = ()) -> Iterator[Event]:
        """Fill the store of frontier k with these rows, telling how far it has come; with `ends` theirs in passing."""
        name, trunk = _name(view, k), self._trunk(view, k)
        parts = parts_of(trunk.encoder, rows, self.sides(view))
        yield from self._compile(trunk, self._store(view, k).lacking(parts))
        store = self._store(view, k)
        if store.dropped and name not in self._said:
            yield Said(f"{store.dropped} cache blocks had changed bytes: dropped, computed again")
        missing = store.lacking(parts)
        if ends:
            trunk.ends = ends
        else:
            self._from_nearest(trunk, rows, missing)
        share = len(rows) / max(1, sum(len(side) for row in parts for side in row))
        others = [self._store(one, len(one.stages)) for one in ends]
        for done in self._filled(store, trunk, missing, share, others):
            yield Filled(k, done, len(missing))
        if store.unkept and not self._unkept:
            self._unkept = True
            yield Said(f"going on without the cache, which cannot be written: {store.unkept}")
        total = len({part.key for row in parts for side in row for part in side})
        if not store.unkept and (missing or name not in self._said):
            self._said.add(name)
            yield Said(_told(trunk, total, len(missing), store.bytes))

    def _from_nearest(self, trunk: Trunk, rows: Sequence[Row], missing: Sequence[Part]) -> None:
        """Let a trunk go on from the highest frontier below it that has all of these parts, where bits allow that."""
        view = trunk.view
        opened = {k for pooling, k in self._opened if pooling in (view.pooling, "") and k < trunk.k}
        for begin in sorted(opened, reverse=True) if self.plainly and missing else ():
            store = self._store(view, begin)
            if any(part.key not in store for part in missing):
                continue
            name = f"{begin}>{_name(view, trunk.k)}"
            if name not in self._lawful:
                _, some = next(samples(trunk.encoder, rows, trunk, self.sides(view)))
                self._lawful[name] = cache.chained(view, begin, trunk.k, trunk.encoder.tensors(some))
            if self._lawful[name]:
                trunk.source = begin, lambda parts, store=store: store.states([part.key for part in parts]).all()
                return

    def ran(self) -> dict[tuple[str, int], int]:
        """(Reading, frontier) → rows that went through the trunk below it, over all sittings of the run."""
        held = self.folder.read(RAN, dict[str, float]) or {}
        split = {name: name.split("/") for name in held}
        return {(split[name][0], int(split[name][1])): round(rows) for name, rows in held.items()}

    def _filled(
        self, store: Store, trunk: Trunk, missing: Sequence[Part], share: float, others: Sequence[Store] = ()
    ) -> Iterator[int]:
        """Fill a store and keep count of rows, of which a part is a `share`; also where it ends early."""
        done = 0
        try:
            for done in store.fill(trunk, missing, others):
                yield done
        finally:
            if not trunk.source:
                name, held = _name(trunk.view, trunk.k), self.folder.read(RAN, dict[str, float]) or {}
                if done or name not in held:
                    self.folder.write(RAN, held | {name: held.get(name, 0.0) + done * share})

    def _store(self, view: View, k: int) -> Store:
        """The store for frontier k, opened and checked once in this process."""
        chosen, machine = self._chosen().get(_name(view, k)), self.machine
        if chosen:
            machine = replace(machine, engine=f"{machine.engine}, {compilers.mark(chosen)}")
        if k < len(view.stages):
            self._opened.add((view.pooling, k))
        place = self._place(view, k, machine)
        if place not in self._stores:
            self._stores[place] = cache.open_store(view, k, machine)
        return self._stores[place]

    def _place(self, view: View, k: int, machine: MachineCard) -> Path:
        """The address of frontier k, made once for the same tensors below it while nothing is written into them."""
        frozen = [p for _, stage, p in view.named() if stage < k] + [b for _, stage, b in view.buffers() if stage < k]
        key = (view.reading, k, machine.engine, machine.micro_batch, *((id(t), t._version) for t in frozen))
        if key not in self._places:
            self._places[key] = cache.place(view, k, machine), frozen  # held, so that no other tensor gets their names
        return self._places[key][0]

    def _trunk(self, view: View, k: int) -> Trunk:
        """The trunk below k of a view whose stages below k are those of the backbone, or random ones."""
        name = _name(view, k)
        encoder = self.encoder_of(view, k)
        if self.plainly or not k or view.drawn or view.provider != self.view.provider:
            return Trunk(view, k, encoder, self.machine.micro_batch)
        if name not in self._engines:
            base = self.view.pooled(view.reading)
            self._engines[name] = Engine(base, k, self.machine.engine, self.machine.dtype == "bfloat16")
        return Trunk(view, k, encoder, self.machine.micro_batch, self._engines[name])

    @property
    def plainly(self) -> bool:
        """Whether trunks compute as the network stands, and nothing else was asked for."""
        machine = self.machine
        return machine.engine == "eager" and self.ships and not machine.compiles

    def _chosen(self) -> dict[str, str]:
        """Frontier → the compiler that its trunk runs with, "" for none."""
        return (self.folder.read(COMPILED, dict[str, str]) or {}) if self.machine.compiles else {}

    def _compile(self, trunk: Trunk, missing: Sequence[Part]) -> Iterator[Event]:
        """Compile a trunk for sizes of which enough parts are missing; for any that are if it ran compiled before."""
        name, engine, held = _name(trunk.view, trunk.k), trunk.engine, self._chosen()
        if not isinstance(engine, Engine) or engine.compiler or not self.machine.compiles or not missing:
            return
        if held.get(name) == "":
            return
        spared_s = len(missing) * self.machine.forward_s * (1 - 1 / GAIN)
        worth = name in held or spared_s >= min(self._costs.values(), default=math.inf)  # to time a pass at all
        for size, group in itertools.groupby(missing if worth else (), key=lambda part: part.size):
            some, rows = list(group), trunk.rows(size)
            batch = padded(trunk.encoder.tensors([part.value for part in some[:rows]]), rows)
            for told in engine.compile(batch, math.ceil(len(some) / rows), self._costs, held.get(name, "")):
                yield Said(f"trunk below stage {trunk.k}{f' at {size} tokens' if size else ''}: {told}")
        self.folder.write(COMPILED, held | {name: engine.compiler})

    def _law(self, view: View, k: int, rows: Sequence[Row]) -> bool:
        """Whether the split law holds at k, on a micro-batch of the most frequent size."""
        name = _name(view, k)
        if name not in self._lawful:
            trunk = self._trunk(view, k)
            _, some = next(samples(trunk.encoder, rows, trunk, self.sides(view)))
            self._lawful[name] = cache.holds(view, [k], trunk.encoder.tensors(some))
        return self._lawful[name]


def _name(view: View, k: int) -> str:
    return f"{view.reading}/{k}"


def _told(trunk: Trunk, rows: int, missing: int, size: int) -> str:
    ran = f"went on from stage {trunk.source[0]}" if trunk.source else "ran once"
    run = f"the trunk {ran} on {missing} of {rows} examples" if missing else f"all {rows} examples were there"
    return f"cache at stage {trunk.k}: {run}, {size / 1e6:.1f} MB"
