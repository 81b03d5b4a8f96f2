"""Run plans against each other on one trunk cache, and say which one is best on validation."""

from __future__ import annotations

import json
import math
from collections import Counter
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
from regraft.engine.cache import Store, Table, Trunk, parts_of
from regraft.engine.fit import fit, seed_of, touched
from regraft.engine.predict import JOINED, Graft, outputs, score, sides
from regraft.engine.snapshot import EVERY_S, Keeper, Progress
from regraft.errors import ResourceError, UsageError
from regraft.kit import durable
from regraft.kit.meter import Meter
from regraft.kit.store import Folder, record
from regraft.waist import (
    Cost,
    Data,
    Encoder,
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
SAMPLED = 256
CHEAPER = 0.9
"""Of the leader's trained weights: a head without a bias is no cheaper plan."""
SPLITS = ("val", "test")


@dataclass
class Course:
    """What all plans of a run share: the backbone, the data, the task, the machine, the run folder."""

    view: View
    data: Data
    task: Task
    encoder: Encoder
    machine: MachineCard
    folder: Folder
    seed: int
    cached: bool = True
    every_s: float = EVERY_S
    _lawful: dict[tuple[str, int], bool] = field(default_factory=dict)
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
        tables = lambda k: (self.table(graft.view, k, self.data.train), self.table(graft.view, k, self.data.val))  # noqa: E731
        yield from fit(plan, graft, self.task, tables, keeper, self.seed)
        yield Finished(self._close(plan, graft, place, keeper))

    def graft(self, plan: Plan) -> Graft:
        """The plan's starting point: copies of the stages it may train, the rest shared, and a new head."""
        view = self.view.pooled(plan.pooling).clone(plan.trunk)
        if plan.init == "random":
            view.randomise(seed_of(self.seed, "init"))
        width = view.dim * (JOINED if self.sides(view) == 2 else 1)
        return Graft(view, self.task.head(width, view.biased or plan.pooling != "native"))

    def sides(self, view: View) -> int:
        """How many texts of a row go through the network apart."""
        return sides(view.pooling, len(self.data.columns))

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
        trunk, apart = self._trunk(view, k), self.sides(view)
        if not k or not self.cached or not self._law(view, k):
            return Table(trunk, rows, None, apart)
        store = self._store(view, k)
        for _ in store.fill(trunk, store.lacking(parts_of(self.encoder, rows, apart))):
            pass
        return Table(trunk, rows, store, apart)

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
        return Table(Trunk(view, k, self.encoder, self.machine.micro_batch), rows, None, self.sides(view))

    def _trunk(self, view: View, k: int) -> Trunk:
        return Trunk(view, k, self.encoder, self.machine.micro_batch, self.machine.dtype == "bfloat16")

    def _warm(self, plan: Plan, view: View) -> Iterator[Event]:
        """Fill the store for the plan's first frontier, telling how far it has come."""
        k = plan.phases[0].frontier
        if not k or not self.cached:
            return
        if not self._law(view, k):
            yield Said(f"the split law does not hold at stage {k} of this network: the cache is left unused")
            return
        rows = [*self.data.train, *self.data.val, *self.data.test]
        parts = parts_of(self.encoder, rows, self.sides(view))
        try:
            store = self._store(view, k)
            if store.dropped:
                yield Said(f"{store.dropped} cache blocks had changed bytes: dropped, computed again")
            missing = store.lacking(parts)
            for done in store.fill(self._trunk(view, k), missing):
                yield Filled(k, done, len(missing))
            total = len({part.key for row in parts for side in row for part in side})
            yield Said(_told(k, total, len(missing), store.bytes))
        except (ResourceError, UsageError) as error:
            self.cached = False
            yield Said(f"going on without the cache, which cannot be written: {error.saw}")

    def _law(self, view: View, k: int) -> bool:
        """Whether the split law holds at k, on a micro-batch of the most frequent size."""
        if (view.pooling, k) not in self._lawful:
            batch = next(samples(self.encoder, self.data.train, self._trunk(view, k), self.sides(view)))
            self._lawful[view.pooling, k] = cache.holds(view, [k], batch)
        return self._lawful[view.pooling, k]

    def _close(self, plan: Plan, graft: Graft, place: Path, keeper: Keeper) -> Trial:
        """Score a fitted graft, write its predictions and weights, then its record: from then on it is finished."""
        k = plan.phases[-1].frontier
        arrays: dict[str, np.ndarray] = {}
        scores: list[Score] = []
        calibration: tuple[tuple[str, float], ...] = ()
        for split in SPLITS:
            rows = getattr(self.data, split)
            made = outputs(graft, self._as_shipped(graft.view, k, rows))
            ys = [row.y for row in rows]
            scores += score(self.task, made, ys, split, self.seed)
            arrays[split] = made.numpy()
            if split == "val":
                calibration = self.task.calibrate(made, self.task.encode(ys))
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
            calibration=calibration,
        )
        Folder(place).write("trial", trial)
        keeper.clear()
        return trial


def pick(trials: Sequence[Trial], task: Task, data: Data, folder: Path, seed: int) -> tuple[int, str]:
    """The best trial on validation, and the rule that chose it; test rows are never looked at.

    The trial with the best deciding metric leads. The cheapest one that it does not beat, by a paired bootstrap of the
    difference on the same validation rows (95 %), is taken in its place.
    """
    metric = task.metrics[0]
    sign = 1 if metric.better == "higher" else -1
    y = task.encode([row.y for row in data.val]).numpy()
    preds = [task.decode(_outputs(folder / t.predictions, "val"))[metric.takes] for t in trials]
    values = [sign * metric.fn(pred, y, None) for pred in preds]
    lead = max(range(len(trials)), key=lambda i: (values[i], -trials[i].cost.trainable, -_lowest_loss(trials[i])))
    draw = np.random.default_rng(seed)
    index = [draw.integers(0, len(y), len(y)) for _ in range(RESAMPLES)]
    best = [sign * metric.fn(preds[lead][j], y[j], None) for j in index] if len(trials) > 1 else []
    for i in sorted(range(len(trials)), key=lambda i: (trials[i].cost.trainable, -values[i])):
        if trials[i].cost.trainable > CHEAPER * trials[lead].cost.trainable:
            break
        gaps = [b - sign * metric.fn(preds[i][j], y[j], None) for b, j in zip(best, index, strict=True)]
        low, high = np.percentile(gaps, [2.5, 97.5])
        if low <= 0:
            gain = f"{values[lead] - values[i]:+.3f} [{low:+.3f}, {high:+.3f}]"
            return i, (
                f"{trials[i].label} trains fewer weights than {trials[lead].label}, which gains "
                f"{gain} {metric.name} over it on {len(y)} validation rows: not significant"
            )
    if len(trials) == 1:
        return lead, "the only plan that was run"
    told = f"{trials[lead].label} has the best {metric.name} on {len(y)} validation rows"
    equal = [trials[i].label for i in range(len(trials)) if i != lead and values[i] == values[lead]]
    if equal:
        fewest = trials[lead].cost.trainable < min(t.cost.trainable for t in trials if t is not trials[lead])
        told = f"{', '.join(equal)} and {trials[lead].label} are equal on {len(y)} validation rows, and "
        told += f"{trials[lead].label} {'trains the fewest weights' if fewest else 'has the lowest loss'} of these"
    return lead, told


def _lowest_loss(trial: Trial) -> float:
    return min((epoch.val_loss for epoch in trial.curve), default=math.inf)


def samples(encoder: Encoder, rows: Sequence[Row], trunk: Trunk, apart: int) -> Iterator[dict[str, torch.Tensor]]:
    """A micro-batch of each padded size among the first rows, the most frequent size first."""
    parts = [part for row in parts_of(encoder, rows[:SAMPLED], apart) for side in row for part in side]
    for size, _ in Counter(part.size for part in parts).most_common():
        some = [part.value for part in parts if part.size == size]
        yield encoder.tensors([some[i % len(some)] for i in range(trunk.rows(size))])


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
