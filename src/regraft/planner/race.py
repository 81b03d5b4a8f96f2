"""Run plans against each other on one trunk cache, and say which one is best on validation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save as save_tensors

from regraft.backbone.view import View
from regraft.engine import cache, freeze
from regraft.engine.cache import Encode, Store, Table, Trunk
from regraft.engine.fit import fit, seed_of, touched
from regraft.engine.predict import Graft, outputs, score
from regraft.engine.snapshot import EVERY_S, Keeper, Progress
from regraft.errors import ResourceError, UsageError
from regraft.kit import durable
from regraft.kit.meter import Meter
from regraft.kit.store import Folder, record
from regraft.waist import (
    Cost,
    Data,
    Event,
    Filled,
    Finished,
    MachineCard,
    Plan,
    Row,
    Said,
    Score,
    Task,
    Trial,
    fingerprint,
)

RESAMPLES = 2000
SPLITS = ("val", "test")


@dataclass
class Course:
    """What all plans of a run share: the backbone, the data, the task, the machine, the run folder."""

    view: View
    data: Data
    task: Task
    encode: Encode
    machine: MachineCard
    folder: Folder
    seed: int
    cached: bool = True
    every_s: float = EVERY_S
    _lawful: dict[int, bool] = field(default_factory=dict)
    _stores: dict[Path, Store] = field(default_factory=dict)

    def trial(self, number: int, plan: Plan) -> Iterator[Event]:
        """Run one plan to its end, from where it was left; a finished one is read. The last event is `Finished`.

        Raises: as `fit`.
        """
        place = self.folder.path / "trials" / f"{number + 1}-{plan.strategy}-{fingerprint(plan, self.seed)[:6]}"
        if (held := _finished(place, self.folder.path)) is not None:
            yield Finished(held)
            return
        meter = Meter.start()
        keeper = Keeper(place / "snapshots", meter, self.every_s)
        graft = self.graft(plan)
        yield from self._warm(plan, graft.view)
        yield from fit(plan, graft, self.task, lambda k: self._tables(graft.view, k), keeper, self.seed)
        yield Finished(self._close(plan, graft, place, keeper))

    def graft(self, plan: Plan) -> Graft:
        """The plan's starting point: copies of the stages it may train, the rest shared, and a new head."""
        view = self.view.clone(plan.trunk)
        if plan.init == "random":
            view.randomise(seed_of(self.seed, "init"))
        return Graft(view, self.task.head(view.dim))

    def restore(self, trial: Trial) -> Graft:
        """The graft of a finished trial, with the weights it ended with."""
        graft = self.graft(trial.plan)
        weights = self.folder.path / trial.snapshot
        held = load_tensors(weights)
        with torch.no_grad():
            for name, tensor in touched(trial.plan, graft).items():
                tensor.copy_(held[name])
        return graft

    def table(self, view: View, k: int, rows: Sequence[Row]) -> Table:
        """States at frontier k of these rows: from the store where there is one, otherwise computed as asked for."""
        trunk = self._trunk(view, k)
        if not k or not self.cached or not self._law(view, k):
            return Table(trunk, rows, None)
        store = self._store(view, k)
        for _ in store.fill(trunk, rows):
            pass
        return Table(trunk, rows, store)

    def _store(self, view: View, k: int) -> Store:
        """The store for frontier k, opened and checked once in this process."""
        place = cache.place(view, k, self.machine)
        if place not in self._stores:
            self._stores[place] = cache.open_store(view, k, self.machine)
        return self._stores[place]

    def _as_shipped(self, view: View, k: int, rows: Sequence[Row]) -> Table:
        """States to score with: in float32, as the bundle computes, even where the trunk trained in bfloat16."""
        if self.machine.dtype == "float32":
            return self.table(view, k, rows)
        return Table(Trunk(view, k, self.encode, self.machine.micro_batch), rows, None)

    def _trunk(self, view: View, k: int) -> Trunk:
        return Trunk(view, k, self.encode, self.machine.micro_batch, self.machine.dtype == "bfloat16")

    def _tables(self, view: View, k: int) -> tuple[Table, Table]:
        return self.table(view, k, self.data.train), self.table(view, k, self.data.val)

    def _warm(self, plan: Plan, view: View) -> Iterator[Event]:
        """Fill the store for the plan's first frontier, telling how far it has come."""
        k = plan.phases[0].frontier
        if not k or not self.cached:
            return
        if not self._law(view, k):
            yield Said(f"the split law does not hold at stage {k} of this network: the cache is left unused")
            return
        rows = [*self.data.train, *self.data.val, *self.data.test]
        try:
            store = self._store(view, k)
            if store.dropped:
                yield Said(f"{store.dropped} cache blocks had changed bytes: dropped, computed again")
            missing = len({row.key for row in rows if row.key not in store})
            for done in store.fill(self._trunk(view, k), rows):
                yield Filled(k, done, missing)
            yield Said(_told(k, len(rows), missing, store.bytes))
        except (ResourceError, UsageError) as error:
            self.cached = False
            yield Said(f"going on without the cache, which cannot be written: {error.saw}")

    def _law(self, view: View, k: int) -> bool:
        if k not in self._lawful:
            rows = [self.data.train[i % len(self.data.train)] for i in range(self.machine.micro_batch)]
            self._lawful[k] = cache.holds(view, [k], self.encode([row.cell for row in rows]))
        return self._lawful[k]

    def _close(self, plan: Plan, graft: Graft, place: Path, keeper: Keeper) -> Trial:
        """Score a fitted graft, write its predictions and weights, then its record: from then on it is finished."""
        k = plan.phases[-1].frontier
        arrays: dict[str, np.ndarray] = {}
        scores: list[Score] = []
        for split in SPLITS:
            rows = getattr(self.data, split)
            made = outputs(graft, self._as_shipped(graft.view, k, rows))
            scores += score(self.task, made, [row.y for row in rows], split, self.seed)
            arrays[split] = made.numpy()
        held = touched(plan, graft)
        durable.write(place / "predictions.safetensors", save(arrays))
        weights = save_tensors({n: t.detach().contiguous() for n, t in held.items()})
        name = f"weights-{durable.digest(weights)[:16]}.safetensors"
        durable.write(place / name, weights)
        ended, _ = keeper.load() or (Progress(), {})
        trained = {n for phase in plan.phases for n in freeze.trainable(graft.view, graft.head, phase)}
        cost = Cost(
            seconds=round(keeper.meter.seconds(), 3),
            trainable=sum(held[name].numel() for name in trained),
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
            predictions=str(inside / "predictions.safetensors"),
            snapshot=str(inside / name),
            notes=tuple(ended.notes),
        )
        Folder(place).write("trial", trial)
        keeper.clear()
        return trial


def pick(trials: Sequence[Trial], task: Task, data: Data, folder: Path, seed: int) -> tuple[int, str]:
    """The best trial on validation, and the rule that chose it; test rows are never looked at.

    The trial with the highest deciding metric leads. The cheapest one that it does not beat, by a paired bootstrap of
    the difference on the same validation rows (95 %), is taken in its place.
    """
    metric = task.metrics[0]
    sign = 1 if metric.better == "higher" else -1
    y = task.encode([row.y for row in data.val]).numpy()
    preds = [task.decode(_outputs(folder / t.predictions, "val"))["pred"] for t in trials]
    values = [sign * metric.fn(pred, y, None) for pred in preds]
    lead = max(range(len(trials)), key=lambda i: (values[i], -trials[i].cost.trainable))
    draw = np.random.default_rng(seed)
    index = [draw.integers(0, len(y), len(y)) for _ in range(RESAMPLES)]
    for i in sorted(range(len(trials)), key=lambda i: trials[i].cost.trainable):
        gaps = [sign * (metric.fn(preds[lead][j], y[j], None) - metric.fn(preds[i][j], y[j], None)) for j in index]
        if i != lead and np.percentile(gaps, 2.5) <= 0:
            low, high = np.percentile(gaps, [2.5, 97.5])
            gain = f"{values[lead] - values[i]:+.3f} [{low:+.3f}, {high:+.3f}]"
            return i, (
                f"{trials[i].plan.strategy} trains fewer weights than {trials[lead].plan.strategy}, which gains "
                f"{gain} {metric.name} over it on {len(y)} validation rows: not significant"
            )
        if i == lead:
            break
    if len(trials) == 1:
        return lead, "the only plan that was run"
    best = f"{trials[lead].plan.strategy} has the best {metric.name} on {len(y)} validation rows"
    equal = [trials[i].plan.strategy for i in range(len(trials)) if i != lead and values[i] == values[lead]]
    if equal:
        best = f"{', '.join(equal)} and {trials[lead].plan.strategy} are equal on {len(y)} validation rows, and "
        best += f"{trials[lead].plan.strategy} trains the fewest weights of these"
    return lead, best


def _outputs(path: Path, split: str) -> torch.Tensor:
    return torch.from_numpy(load_file(path)[split])


def _finished(place: Path, run: Path) -> Trial | None:
    """The trial that lies in `place`, if its weights are those that it ended with."""
    try:
        trial = record(Trial, json.loads((place / "trial.json").read_bytes())["record"])
        weights = run / trial.snapshot
        return trial if durable.file_digest(weights)[:16] == weights.stem.rpartition("-")[2] else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # missing or damaged: the trial is run again


def _told(k: int, rows: int, missing: int, size: int) -> str:
    run = f"the trunk ran once on {missing} of {rows} examples" if missing else f"all {rows} examples were there"
    return f"cache at stage {k}: {run}, {size / 1e6:.1f} MB"
