"""What all plans of a run share, and how one of them is run: started, paused, ended early, scored, kept."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as read_arrays
from safetensors.numpy import save
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save as save_tensors

from regraft.backbone.view import View
from regraft.engine import close, engines, freeze, heads
from regraft.engine.cache import Table
from regraft.engine.fit import ANSWERS, fit, put_best, seed_of, touched
from regraft.engine.predict import JOINED, Graft, outputs, score, share_interval
from regraft.engine.snapshot import EVERY_S, Keeper, Progress, Waiting
from regraft.engine.trunks import RECORDS, Trunks
from regraft.errors import NoMemory, UsageError
from regraft.kit import durable, shelf
from regraft.kit.meter import Meter
from regraft.kit.store import Folder
from regraft.planner.earlier import Earlier
from regraft.waist import (
    Cost,
    Data,
    Encoder,
    Epoch,
    Event,
    Finished,
    MachineCard,
    Plan,
    Room,
    Row,
    Said,
    Score,
    Task,
    Trial,
    Varied,
    fingerprint,
)

SPLITS = ("val", "test")
SNAPSHOTS = "snapshots"
ROOM = "room"
IDLE = 8
"""Paused plans may wait in so small a part of the memory."""


@dataclass
class Course:
    """What all plans of a run share: the backbone, the data, the task, the machine, the run folder.

    `mark` is the fingerprint of the model's files; with `takes` trials of other runs in the same folder are taken over.
    """

    view: View
    data: Data
    task: Task
    encoder: Encoder
    machine: MachineCard
    folder: Folder
    seed: int
    cached: bool = True
    every_s: float = EVERY_S
    pieces: int = 1
    mark: str = ""
    takes: bool = False
    _plain: dict[str, View] = field(default_factory=dict)
    _waiting: Waiting | None = None

    def __post_init__(self) -> None:
        freeze.rest(self.view)
        columns = len(self.data.columns)
        self.trunks = Trunks(self.view, self.encoder, self.machine, columns, self.folder, self.cached)
        self.earlier = Earlier(self, self.mark, self.takes and self.cached)

    def trial(self, number: int, plan: Plan) -> Generator[Event]:
        """Run one plan to its end, from where it was left; a finished one is read. The last event is `Finished`.

        Whoever stops pulling pauses it: a snapshot is written, or within `waiting` held, and the next call goes on.

        Where memory runs out, less goes through the network at once from then on, and the plan goes on from its newest
        snapshot; the size of its batches stays.

        Raises: as `fit`; NoMemory: not even one row at a time fits.
        """
        while True:
            try:
                yield from self._trial(number, plan)
                return
            except NoMemory as error:
                told = self._narrow(plan, error)
            yield Said(told)

    def settle(self) -> None:
        """Take over what an earlier sitting found out about memory, and nothing of what is damaged."""
        for name in (ROOM, *RECORDS):
            if self.folder.has(name) and self.folder.read(name, dict[str, Any]) is None:
                durable.remove(self.folder.path / f"{name}.json")
        if room := self.folder.read(ROOM, Room):
            self.machine, self.pieces = replace(self.machine, micro_batch=room.micro_batch), room.pieces
            self.trunks.machine = self.machine

    @property
    def narrowed(self) -> bool:
        """Whether memory ran out in this run, so that less goes through the network at once than it began with."""
        return self.folder.has(ROOM)

    def _narrow(self, plan: Plan, error: NoMemory) -> str:
        """Let go of inputs; then halve what goes through the network at once, in writing: it decides the last bits."""
        if self.trunks.release():
            return "memory ran out: from here on rows are read from their files in each epoch"
        micro, pieces = self.machine.micro_batch, self.pieces
        if error.in_step and pieces < plan.batch:
            pieces = min(2 * pieces, plan.batch)
            told = f"batches of {plan.batch} go through in {pieces} pieces, their gradients summed"
        elif not error.in_step and micro > 1:
            micro //= 2
            told = f"{micro} rows go through at once"
        else:
            raise error
        self.folder.write(ROOM, Room(micro, pieces))
        self.settle()
        return f"memory ran out: from here on {told}"

    def _trial(self, number: int, plan: Plan) -> Generator[Event]:
        if (held := self.finished(number, plan)) is not None:
            yield Finished(held)
            return
        if (held := self.taken(number, plan)) is not None:
            yield Said(f"  {held.notes[-1]}")
            yield Finished(held)
            return
        keeper = self._keeper(number, plan)
        graft = self.graft(plan)
        more, k = self.data.unlabelled if plan.means else (), plan.phases[0].frontier
        trained, scored = (*self.views(plan), *more), (*self.data.val, *self.data.test)
        if self.trunks.ships:
            trained, scored = (*trained, *scored), ()
        yield from self.trunks.warm(graft.view, k, list({id(row): row for row in trained}.values()))
        if scored:
            yield from self.trunks.shipping.warm(graft.view, k, scored)
        if close.asked(plan, close.CHANGE):
            yield from self.trunks.warm(pretrained := self.pretrained(plan), len(pretrained.stages), self.views(plan))
        self._begin(plan, graft)
        if graft.training.engine != "eager":
            engines.lay(graft.view, plan.trunk)
        own = ((self.views(plan), plan.anew), *([(more, False)] if more else []))

        def tables(k: int) -> tuple[Table, ...]:
            train, *rest = (self.trunks.table(graft.view, k, part, once) for part, once in own)
            return train, self.trunks.as_shipped(graft.view, k, self.data.val), *rest

        yield from fit(plan, graft, self.task, tables, keeper, self.seed, lambda: self.before(plan))
        yield Finished(self._close(plan, graft, self.place(number, plan), keeper))

    def conclude(self, number: int, plan: Plan, why: str) -> Trial:
        """End a paused plan for good with the weights of its best epoch so far; `why` is kept with the trial."""
        if (held := self.finished(number, plan)) is not None:
            return held
        keeper, graft = self._keeper(number, plan), self.graft(plan)
        self._begin(plan, graft)
        put_best(plan, graft, keeper)
        return self._close(plan, graft, self.place(number, plan), keeper, why)

    def taken(self, number: int, plan: Plan, ended: Sequence[Epoch] = (), why: str = "") -> Trial | None:
        """The plan's trial from another run, if one has it whole; see `Earlier.take`."""
        held = self.earlier.take(plan, self.place(number, plan), self.folder.path, ended, why)
        return self.finished(number, plan) if held else None

    def stop(self, number: int, plan: Plan, why: str, seen: Trial | None = None) -> Trial:
        """End a paused plan for good without scoring it on test: it has lost to another of its kind.

        Its validation score is that of its epoch with the lowest loss. With `seen` it came so far in another run.
        """
        if (held := self.finished(number, plan)) is not None:
            return held
        keeper = self._keeper(number, plan)
        ended = keeper.progress() or Progress()
        if seen and not ended.curve:
            ended = Progress(curve=list(seen.curve), notes=list(seen.notes), seconds=seen.cost.seconds)
        metric, n = self.task.metrics[0], len(self.data.val)
        value = min(ended.curve, key=lambda epoch: epoch.val_loss).metric
        low, high = share_interval(value, n) if metric.proportion else (value, value)
        trial = Trial(
            plan=plan,
            seed=self.seed,
            scores=(Score(metric.name, "val", value, low, high, n, metric.better),),
            curve=tuple(ended.curve),
            cost=Cost(round(ended.seconds, 3), self._trainable(plan, self.graft(plan))),
            predictions="",
            snapshot="",
            notes=tuple(ended.notes),
            stopped=why,
            address=self.earlier.address(plan),
        )
        Folder(self.place(number, plan)).write("trial", trial)
        keeper.clear()
        return trial

    def curve(self, number: int, plan: Plan) -> tuple[Epoch, ...]:
        """The epochs that a plan has behind it, paused or finished."""
        if (held := self.finished(number, plan)) is not None:
            return held.curve
        found = self._keeper(number, plan).progress()
        return tuple(found.curve) if found else ()

    def finished(self, number: int, plan: Plan) -> Trial | None:
        """The plan's trial, if it has ended and its weights are those that it ended with."""
        place = self.place(number, plan)
        if (held := _finished(place, self.folder.path)) and (place / SNAPSHOTS).exists():
            durable.remove(place / SNAPSHOTS)  # a kill came between its record and this
        return held

    def place(self, number: int, plan: Plan) -> Path:
        """The folder of a plan's trial."""
        return self.folder.path / "trials" / f"{number + 1}-{plan.strategy}-{fingerprint(plan, self.seed)[:6]}"

    def rows(self, plan: Plan) -> Sequence[Row]:
        """The rows that a plan trains on."""
        return [*self.data.train, *self.data.val] if plan.fold == "all" else self.data.train

    def views(self, plan: Plan) -> Sequence[Row]:
        """The rows that a plan trains on, once for each of its views, one view after the other.

        What a view shows depends on the row's content alone, so that it is found in the cache by other runs.
        """
        rows, how = self.rows(plan), dict(plan.augment).get("how")
        if not how:
            return rows
        keys = [[fingerprint(row.key, how, view) for row in rows] for view in range(plan.views)]
        return [
            replace(row, cell=Varied(row.cell, str(how), view, int(key[:15], 16)), key=key, group=row.group or row.key)
            for view, some in enumerate(keys)
            for row, key in zip(rows, some, strict=True)
        ]

    def graft(self, plan: Plan) -> Graft:
        """The plan's starting point: copies of the stages it may train, the rest shared, and a new head."""
        if plan.init == "plain":
            view = self._plain_view(plan)
            return Graft(view, self.task.head(view.dim, True), self.pieces)
        whole = self.pretrained(plan)
        items = [(vars(shelf.find("inserts", one.kind)), one) for one in plan.inserts if plan.init == "pretrained"]
        view = whole.clone(plan.trunk, [p for item, one in items if "kept" in item for p in item["kept"](whole, one)])
        if plan.init == "random":
            view.randomise(seed_of(self.seed, "init"))
        for number, insert in enumerate(plan.inserts):
            shelf.find("inserts", insert.kind).put(view, insert, seed_of(self.seed, "insert", number))
        head = self.task.head(self.width(view), view.biased or plan.pooling != "native")
        return Graft(view, head, self.pieces, self.machine.training)

    def width(self, view: View) -> int:
        """How many features a head above a view has; of two texts that are read apart they are joined."""
        return view.dim * (JOINED if self.trunks.sides(view) == 2 else 1)

    def _plain_view(self, plan: Plan) -> View:
        """The modality's features without a network, made of the plan's training rows."""
        rows = self.rows(plan)
        key = fingerprint([row.key for row in rows])
        if key not in self._plain:
            provider = shelf.find("providers", shelf.find("modalities", self.data.modality).PLAIN)
            self._plain[key] = provider.fitted([row.cell for row in rows])
        return self._plain[key]

    def _begin(self, plan: Plan, graft: Graft) -> None:
        """Give the head its start, where it is not zero."""
        if plan.start != "zero":
            table = self.table(graft.view, plan.phases[0].frontier, self.rows(plan))
            heads.begin(plan, graft, self.task, table, self.data.target)

    def _keeper(self, number: int, plan: Plan) -> Keeper:
        return Keeper(self.place(number, plan) / SNAPSHOTS, Meter.start(), self.every_s, self._waiting)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Plans that are paused meanwhile may wait in memory; those that still do at its end are written then."""
        self._waiting = Waiting(self.machine.memory_bytes // IDLE, self.every_s)
        try:
            yield
        finally:
            self._waiting.write()
            self._waiting = None

    def restore(self, trial: Trial) -> Graft:
        """The graft of a finished trial, with the weights it ended with."""
        graft = self.graft(trial.plan)
        weights = self.folder.path / trial.snapshot
        held = load_tensors(weights)
        with torch.no_grad():
            for name, tensor in touched(trial.plan, graft).items():
                tensor.copy_(held[name])
        return graft

    def outputs(self, trial: Trial, split: str) -> torch.Tensor:
        """What a finished trial answered on "val" or "test", as it was written down."""
        return torch.from_numpy(read_arrays(self.folder.path / trial.predictions)[split])

    def table(self, view: View, k: int, rows: Sequence[Row]) -> Table:
        """States at frontier k of these rows, as the run's trunks give them."""
        return self.trunks.table(view, k, rows)

    def pretrained(self, plan: Plan) -> View:
        """The network that a plan starts from, read as the plan reads it; it never changes."""
        return self.view.pooled(plan.reading)

    def before(self, plan: Plan) -> Table:
        """What a plan's training rows are to the pretrained network: its features, from the cache."""
        view = self.pretrained(plan)
        return self.table(view, len(view.stages), self.views(plan))

    def _trainable(self, plan: Plan, graft: Graft) -> int:
        """How many weights some phase of the plan trains."""
        found: dict[str, int] = {}
        for phase in plan.phases:
            found |= {name: p.numel() for name, (p, _) in freeze.trainable(graft.view, graft.head, phase).items()}
        return sum(found.values())

    def _close(self, plan: Plan, graft: Graft, place: Path, keeper: Keeper, why: str = "") -> Trial:
        """Score a fitted graft, write its predictions and weights, then its record: from then on it is finished."""
        k = plan.phases[-1].frontier
        arrays: dict[str, np.ndarray] = {}
        scores: list[Score] = []
        calibration: tuple[tuple[str, float], ...] = ()
        ended, saved = keeper.load() or (Progress(), {})
        for split in SPLITS:
            rows = getattr(self.data, split)
            if (made := saved.get(ANSWERS) if split == "val" else None) is None:
                made = outputs(graft, self.trunks.as_shipped(graft.view, k, rows))
            ys = [row.y for row in rows]
            scores += score(self.task, made, ys, split, self.seed)
            arrays[split] = made.numpy()
            if split == "val":
                calibration = self.task.calibrate(made, self.task.encode(ys))
        held = touched(plan, graft)
        answers = save(arrays)
        said = f"predictions-{durable.digest(answers)[:16]}.safetensors"
        durable.write(place / said, answers)
        weights = save_tensors({n: t.detach().contiguous() for n, t in held.items()})
        name = f"weights-{durable.digest(weights)[:16]}.safetensors"
        durable.write(place / name, weights)
        cost = Cost(
            seconds=round(keeper.meter.seconds(), 3),
            trainable=self._trainable(plan, graft),
            peak_bytes=keeper.meter.peak_bytes(),
            disk_bytes=sum(f.stat().st_size for f in place.glob("*.safetensors")),
        )
        inside = place.relative_to(self.folder.path)
        trial = Trial(
            plan=plan,
            seed=self.seed,
            scores=tuple(scores),
            curve=tuple(ended.curve),
            cost=cost,
            predictions=str(inside / said),
            snapshot=str(inside / name),
            notes=tuple(ended.notes),
            calibration=calibration,
            stopped=why,
            address=self.earlier.address(plan),
        )
        Folder(place).write("trial", trial)
        keeper.clear()
        return trial


def _finished(place: Path, run: Path) -> Trial | None:
    """The trial that lies in `place`, if its weights and predictions are those that it ended with, else None."""
    trial = Folder(place).read("trial", Trial)
    files = (trial.snapshot, trial.predictions) if trial is not None and trial.whole else ()
    try:
        return trial if all(Folder(run).vouched(name).is_file() for name in files) else None
    except UsageError:
        return None  # it is run again
