"""Time a few real steps of plans on this machine, and count what autograd saves in them for its gradients."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from regraft.backbone.state import leaves
from regraft.engine import engines, freeze, rates
from regraft.engine.close import Average, Near
from regraft.engine.fit import CHOICES, batches, touched
from regraft.engine.folds import rows_of
from regraft.engine.grid import Setting
from regraft.engine.predict import Graft, everything, score
from regraft.engine.solve import solve
from regraft.engine.trunk import SAMPLED, Shape, Side, groups
from regraft.kit.meter import Meter
from regraft.planner.course import SPLITS, Course
from regraft.planner.sizes import BACKWARD
from regraft.waist import Phase, Plan

ENOUGH_S = 0.6
"""A step that takes longer is timed once, one that takes twice as long on fewer of its rows."""
Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Timed:
    """A kind of work, measured. An epoch has `steps` that take `epoch_s`; the largest has `rows` and saves
    `saved_bytes` for its gradients.

    A row takes `read_s` from its cell to a tensor, `below_s` from there to its state at the frontier, of `state_bytes`,
    and `above_s` on to an output without gradients, `judged_s` to one that epochs are compared by. `made_s` is what the
    model took to be made. Training that begins at the input holds `input_bytes` of a row in memory, where it holds any.
    """

    epoch_s: float
    steps: int
    rows: int
    saved_bytes: int
    read_s: float
    below_s: float
    above_s: float
    state_bytes: float
    judged_s: float
    made_s: float = 0.0
    input_bytes: float = 0.0

    @property
    def row_bytes(self) -> float:
        """What a row of a batch saves."""
        return self.saved_bytes / self.rows


@dataclass(frozen=True, slots=True)
class Steps:
    """Kinds of work by their keys, the bytes that the process held before, and the seconds that scores take."""

    base_bytes: int
    scored_s: float
    kinds: Mapping[Key, Timed]

    def of(self, plan: Plan, phase: Phase) -> Timed:
        """What was measured for a phase of a plan."""
        return self.kinds[key(plan, phase)]


def key(plan: Plan, phase: Phase) -> Key:
    """What plans share whose steps cost the same: the values of rates and schedules do not matter."""
    rule, trained = plan.optimizer, tuple(pattern for pattern, _ in phase.rates)
    how = rule.name, rule.momentum > 0, rule.clip > 0, rule.grid, rule.weight_decay if rule.whole else 0.0
    epochs = phase.epochs if rule.whole else phase.epochs > 0
    where = plan.init, plan.reading, plan.trunk, plan.batch, plan.augment, plan.fold, plan.inserts
    near = tuple(name for name, _ in plan.regularise)
    return *where, near, phase.frontier, trained, phase.norm, epochs, *how


def timed(course: Course, plans: Sequence[Plan]) -> Steps:
    """Time a few steps of each kind of work in these plans, on copies of the weights; nothing is written.

    Cost: for each frontier, set of trained weights and batch two steps, of about twice `ENOUGH_S` together; of texts
    for two of their sizes.
    """
    base, scored_s, kinds = Meter.start().peak_bytes(), 0.0, dict[Key, Timed]()
    for plan in plans:
        todo = {key(plan, phase): phase for phase in plan.phases if key(plan, phase) not in kinds}
        if not todo:
            continue
        begun = time.perf_counter()
        graft = course.graft(plan)
        if graft.training.engine != "eager":
            engines.lay(graft.view, plan.trunk)
        made_s = time.perf_counter() - begun
        scored_s = scored_s or _scored(course, graft)
        kinds |= {name: _Bench(course, plan, phase, graft).timed(made_s) for name, phase in todo.items()}
    return Steps(base, scored_s, kinds)


@contextmanager
def counted(graft: Graft, found: dict[int, int]) -> Iterator[None]:
    """Count into `found` the bytes that autograd saves, each storage once; weights and buffers are not counted."""
    module = graft.view.module
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers(), *graft.head.parameters())}

    def kept(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(kept, lambda tensor: tensor):
        yield


class _Bench:
    """A phase of a plan on some of its rows, to be timed."""

    def __init__(self, course: Course, plan: Plan, phase: Phase, graft: Graft) -> None:
        self.course, self.plan, self.phase, self.graft = course, plan, phase, graft
        rows = course.views(plan)
        self.sample = rows[:: math.ceil(len(rows) / SAMPLED)]
        self.scale = len(rows) / plan.views / len(self.sample)
        self.table = replace(course.trunks, cached=False).table(graft.view, phase.frontier, self.sample)
        self.targets = course.task.encode([row.y for row in self.sample])
        chosen = freeze.apply(graft.view, graft.head, phase)
        self.named = {name: p for name, (p, _) in chosen.items()}
        self.chosen = list(self.named.values())
        trunks = replace(course.trunks, cached=False)
        before = lambda: trunks.table(course.pretrained(plan), len(graft.view.stages), self.sample)  # noqa: E731
        self.near = Near.of(plan, graft, touched(plan, graft), before)
        self.average = Average(plan, touched(replace(plan, phases=(phase,)), graft))

    def timed(self, made_s: float) -> Timed:
        """Steps of the largest shape of rows and of the most frequent, the others by their sizes."""
        members = groups(self.table.shapes)
        many = {shape: max(1, round(len(index) * self.scale)) for shape, index in members.items()}
        steps = {shape: math.ceil(n / self.plan.batch) for shape, n in many.items()}
        rows = {shape: math.ceil(n / steps[shape]) for shape, n in many.items()}
        size = {shape: rows[shape] * _size(shape) for shape in members}
        picked = {max(size, key=size.__getitem__), max(many, key=many.__getitem__)}
        took = {shape: self._step(members[shape], rows[shape]) for shape in picked}
        near = {shape: min(took, key=lambda one: abs(size[one] - size[shape])) for shape in members}
        share = {shape: n / sum(many.values()) * _size(shape) / _size(near[shape]) for shape, n in many.items()}
        most, whole = max(took.values(), key=lambda one: one.saved_bytes), self.plan.optimizer.whole

        def mean(name: str) -> float:
            return sum(part * float(getattr(took[near[shape]], name)) for shape, part in share.items())

        return Timed(
            epoch_s=self._fitted()
            if whole
            else sum(steps[shape] * took[near[shape]].epoch_s * size[shape] / size[near[shape]] for shape in members),
            steps=1 if whole else sum(steps.values()),
            rows=most.rows,
            saved_bytes=most.saved_bytes,
            read_s=mean("read_s"),
            below_s=mean("below_s"),
            above_s=mean("above_s"),
            state_bytes=mean("state_bytes"),
            judged_s=mean("judged_s"),
            made_s=made_s,
            input_bytes=mean("input_bytes"),
        )

    def _step(self, members: list[int], rows: int) -> Timed:
        """One step of so many rows: of as many of them as `ENOUGH_S` allow, the rest in proportion."""
        graft, k, machine = self.graft, self.phase.frontier, self.course.machine
        flops = [stage.flops for stage in graft.view.stages]
        dear = BACKWARD * machine.forward_s * sum(flops[k:]) / max(1, sum(flops))
        fewer = max(1, min(rows, int(2 * ENOUGH_S / dear))) if dear else rows
        index = [members[i % len(members)] for i in range(fewer)]
        few = index[: machine.micro_batch]
        sides = zip(*(self.table.parts[i] for i in few), strict=True)
        cells = [[part.value for parts in side for part in parts] for side in sides]
        read_s = _seconds(lambda: [self.table.trunk.encoder.tensors(some) for some in cells]) / len(few)
        begun = time.perf_counter()
        batch = self.table.batch(index)
        below_s = max(0.0, (time.perf_counter() - begun) / fewer - read_s) if k else 0.0
        some = self.table.batch(few)
        with torch.no_grad(), freeze.mode(graft.view, graft.head, None):
            graft.forward(some, k)
            above_s = judged_s = _seconds(lambda: graft.forward(some, k)) / len(few)
            if graft.halves(k):
                judged_s = _seconds(lambda: graft.descend(batch, k)) / fewer
        descended, ruled, saved = self._descended(batch, index)
        state = sum(t.numel() * t.element_size() for side in batch for t in leaves(side.state.value)) if k else 0
        stays = not k and self.course.trunks.holds(graft.view)
        held = [t for side in batch for t in side.state.inputs.values()] if stays else []
        more = rows / fewer
        return Timed(
            epoch_s=descended * more + ruled,
            steps=1,
            rows=rows,
            saved_bytes=round(saved * more),
            read_s=read_s,
            below_s=below_s,
            above_s=above_s,
            state_bytes=state / fewer,
            judged_s=judged_s,
            input_bytes=sum(t.numel() * t.element_size() for t in held) / fewer,
        )

    def _descended(self, batch: list[Side], index: list[int]) -> tuple[float, float, int]:
        """Seconds of a batch there and back and of the update, after one that is not timed; bytes saved on the way."""
        asked = self.plan.optimizer
        if asked.whole or not self.chosen or not self.phase.epochs:
            return 0.0, 0.0, 0
        before = self.near.pretrained(index)  # from the cache, where it is trained
        weights, saved = [{"params": [p]} for p in self.chosen], dict[int, int]()
        rule: torch.optim.Optimizer = torch.optim.AdamW(weights, lr=0.0, fused=True)
        if asked.name == "sgd":
            rule = torch.optim.SGD(weights, lr=0.0, momentum=asked.momentum, fused=True)

        def loss() -> Tensor:
            rule.zero_grad(set_to_none=True)
            made, features = self.graft.descend(batch, self.phase.frontier)
            found = self.course.task.loss(made, self.targets[index], self.plan.loss).mean()
            penalty = self.near.of_weights(self.named.items())
            found = found if penalty is None else found + penalty
            return found + self.near.of_features(features, before)

        def update() -> None:
            if asked.clip:
                torch.nn.utils.clip_grad_norm_(self.chosen, asked.clip)
            rule.step()
            self.average.take(0)

        with freeze.mode(self.graft.view, self.graft.head, self.phase), torch.random.fork_rng(devices=[]):
            begun = time.perf_counter()
            with counted(self.graft, saved):
                first = loss()
            first.backward()
            descended = time.perf_counter() - begun
            update()  # the first one makes its state
            if descended < ENOUGH_S:
                descended = _seconds(lambda: loss().backward())
            ruled = _seconds(update)
        rule.zero_grad(set_to_none=True)
        return descended, ruled, sum(saved.values())

    def _fitted(self) -> float:
        """Seconds of a head's fit to all rows, from fits to some and to half of these; features are drawn at random."""
        n, head = len(self.sample), self.graft.head
        wanted = self.targets.reshape(n, -1).float()
        if not self.targets.is_floating_point():
            wanted = torch.nn.functional.one_hot(self.targets).float()
        if self.plan.init == "plain":
            features = everything(self.graft, self.table)
        else:
            draw, width = torch.Generator().manual_seed(0), self.course.width(self.graft.view)
            features = torch.randn(n, width, generator=draw)
            features += wanted @ torch.randn(wanted.shape[1], width, generator=draw)
        half = features.to_dense()[::2].contiguous()
        half = half if features.layout == torch.strided else half.to_sparse_csr()
        half_s = _seconds(lambda: self._fit(head, half, 2))
        all_s = _seconds(lambda: self._fit(head, features, 1))
        return all_s + max(0.0, all_s - half_s) * 2 * (self.scale - 1)

    def _fit(self, head: Any, features: Tensor, every: int) -> None:
        plan, task, rule = self.plan, self.course.task, self.plan.optimizer
        targets, rows = self.targets[::every], self.sample[::every]
        names = [row.group or row.key for row in rows]
        if rule.name == "lbfgs":
            solve(head, features, targets, lambda made, y: task.loss(made, y, plan.loss), rule.weight_decay)
        elif choose := CHOICES.get(rule.name):
            choose(head, features, targets, task, plan.loss, names, 0)
        else:
            settings = [Setting(*one) for one in product(*rule.grid)]
            order = batches([()] * len(rows), plan.batch, 0) * self.phase.epochs
            folded = rows_of(head, features, targets, task, plan.loss, names, 0)
            rates.choose(head, folded, task, plan.loss, settings, order, [1e-3] * len(order))


def _scored(course: Course, graft: Graft) -> float:
    """Seconds that the scores of validation and test take: a bootstrap costs more than some networks."""
    begun = time.perf_counter()
    for split in SPLITS:
        rows = getattr(course.data, split)
        with torch.no_grad():
            made = graft.head(torch.zeros(len(rows), course.width(graft.view)))
        score(course.task, made, [row.y for row in rows], split, course.seed)
    return time.perf_counter() - begun


def _size(shape: Shape) -> int:
    """How much of a row goes through the network."""
    return sum(max(1, size) * windows for size, windows in shape)


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
