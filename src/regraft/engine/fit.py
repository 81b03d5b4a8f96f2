"""Train a graft by its plan: a generator of typed events, which whoever pulls them may stop at any step.

Every random number is a function of (seed, phase, epoch, step), so a fit that was stopped anywhere and resumed ends
with the same bits, and trials that take turns do not disturb each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor

from regraft.engine import contrast, engines, freeze, penalties, prototypes, rates
from regraft.engine.cache import Table
from regraft.engine.close import Average, Near, put
from regraft.engine.folds import rows_of
from regraft.engine.grid import Setting
from regraft.engine.losses import refuse
from regraft.engine.predict import Graft, everything, gathered, outputs
from regraft.engine.sampling import drawn
from regraft.engine.snapshot import Keeper, Progress, optimizer_state, restore_optimizer
from regraft.engine.solve import solve
from regraft.engine.trunk import Shape, groups
from regraft.errors import Diverged, UsageError, memory_watched
from regraft.waist import Epoch, Event, PhaseDone, Plan, Said, Scored, Step, Task, fingerprint

Tables = Callable[[int], tuple[Table, ...]]
MEAN = "mean/"
AS_WEIGHTS = "all rows are fitted at once: rare classes weigh more, in place of being drawn more often"
CHOICES: dict[str, prototypes.Choose] = {"path": penalties.choose, "means": prototypes.choose}
"""Rules by which cross-validation chooses a head among others than those of a grid."""
ANSWERS = "outputs/val"
"""Where a snapshot has the outputs for validation of the best weights, if its phase made them."""


def fit(
    plan: Plan,
    graft: Graft,
    task: Task,
    tables: Tables,
    keeper: Keeper,
    seed: int,
    before: Callable[[], Table] | None = None,
) -> Iterator[Event]:
    """Train `graft` in place, phase by phase, from the newest snapshot if there is one.

    Args:
        tables: Frontier → (training, validation) states of the graft's trunk; the training rows once for each view of
            the plan, one view after the other. A third table may hold rows without labels, for class means.
        before: The same training rows with the features that the pretrained network gives, where the plan asks for it.
        keeper: Where snapshots go: on a clock, and wherever it is paused.
    Raises: Diverged: the loss is not finite; the step and the rows are named. UsageError: the plan asks for
        something that is not built, or its rates do not fit the backbone.
    """
    _refuse_unbuilt(plan)
    refuse(plan, task)
    held = touched(plan, graft)
    near = Near.of(plan, graft, held, before)
    progress, saved = keeper.load() or (Progress(), {})
    keeper.meter.spent_s = progress.seconds
    put(held, saved, "now/")
    for number, phase in enumerate(plan.phases):
        if number >= progress.phase and phase.epochs:
            for text in freeze.calm(graft.view, phase, plan):
                if text not in progress.notes:
                    progress.notes.append(text)
                    yield Said(text)
            yield from _Phase(plan, number, near, task, tables(phase.frontier), keeper, seed).run(progress, saved)
            saved = {}


def touched(plan: Plan, graft: Graft) -> dict[str, Tensor]:
    """Name → tensor of all that some phase of the plan may change, and of the head in any case."""
    found: dict[str, Tensor] = {f"{freeze.HEAD}/{name}": p for name, p in graft.head.named_parameters()}
    for phase in plan.phases:
        found |= {name: p for name, (p, _) in freeze.trainable(graft.view, graft.head, phase).items()}
    return found | freeze.moving_buffers(graft.view, plan)


def put_best(plan: Plan, graft: Graft, keeper: Keeper) -> None:
    """Give a graft the weights of its best epoch so far, as its newest snapshot holds them."""
    progress, saved = keeper.load() or (Progress(), {})
    keeper.meter.spent_s = progress.seconds
    held = touched(plan, graft)
    put(held, saved, "now/")
    put(held, saved, "best/")


def seed_of(*parts: object) -> int:
    """A seed of 60 bits that any change of `parts` changes."""
    return int(fingerprint(*parts)[:15], 16)


class _Phase:
    """One phase being run; it owns the optimizer, the average of the weights and the best ones so far."""

    def __init__(
        self, plan: Plan, number: int, near: Near, task: Task, data: tuple[Table, ...], keeper: Keeper, seed: int
    ) -> None:
        self.plan, self.number, self.phase, self.near = plan, number, plan.phases[number], near
        self.graft = graft = near.graft
        self.task, self.keeper, self.seed = task, keeper, seed
        self.train, self.val, *self.unlabelled = data
        self.targets = task.encode([row.y for row in self.train.rows])
        self.val_targets = task.encode([row.y for row in self.val.rows])
        self.loss = plan.judged
        self.rows = len(self.train.rows) // plan.views
        # what is fitted to features meets rows of all shapes in a batch
        self.shapes = self.train.shapes[: 1 if plan.optimizer.whole else self.rows]
        self.shapes *= self.rows // len(self.shapes)
        self.drawn = bool(plan.sampling) and not plan.optimizer.whole
        # where all rows are taken at once, rare ones weigh more in place of coming often
        weigh = plan.sampling if plan.optimizer.whole else 0.0
        self.asked = replace(plan.loss, balance=plan.loss.balance + weigh)
        epoch = self._batches(0)
        self.steps, self.count = len(epoch), sum(map(len, epoch))
        self.before = sum(p.epochs for p in plan.phases[:number]) * self.steps
        self.chosen = freeze.apply(graft.view, graft.head, self.phase)
        self.held = touched(plan, graft)
        self.still = freeze.known(freeze.frozen(graft.view, graft.head, self.phase))
        self.best: dict[str, Tensor] = {}
        self.answers: dict[str, Tensor] = {}
        self.average = Average(plan, touched(replace(plan, phases=(self.phase,)), graft))
        self.optimizer = _optimizer(plan, self.chosen, near.start)

    def run(self, progress: Progress, saved: dict[str, Tensor]) -> Iterator[Event]:
        graft, phase = self.graft, self.phase
        if saved and progress.phase == self.number:
            restore_optimizer(self.optimizer, list(self.chosen), saved)
            self.best = {name[5:]: t for name, t in saved.items() if name.startswith("best/")}
            self.answers = {name: t for name, t in saved.items() if name == ANSWERS and self.best}
            put(self.average.mean, saved, MEAN)
        if (
            not self.best and progress.best_loss is not None
        ):  # what the phase before ended with is the first to be beaten
            self.best = {name: t.detach().clone() for name, t in self.held.items()}
        try:
            if self.plan.optimizer.whole and not progress.epoch:
                yield from self._solve(progress)
            while not self._over(progress):
                yield from self._epoch(progress)
        except GeneratorExit:
            self.keeper.pause(progress, self._all())
            raise
        put(self.held, self.best or self.average.mean)
        verified = freeze.verify(self.still, freeze.frozen(graft.view, graft.head, phase))
        progress.phase, progress.epoch, progress.waited = self.number + 1, 0, 0
        ended = {f"now/{name}": t for name, t in self.held.items()} | self.answers
        self.keeper.end(progress, ended)
        try:
            yield PhaseDone(self.number, verified)
        except GeneratorExit:
            self.keeper.pause(progress, ended)
            raise

    def _over(self, progress: Progress) -> bool:
        """Whether the phase has run its epochs, has been told to stop, or has waited long enough."""
        phase = self.phase
        if progress.epoch >= (phase.stop or phase.epochs) or self.plan.optimizer.whole:
            return True
        return not phase.stop and 0 < phase.patience_epochs <= progress.waited

    def _solve(self, progress: Progress) -> Iterator[Event]:
        """Fit the head to all rows at once; the backbone's features do not change."""
        features = everything(self.graft, self.train)
        if self.asked != self.plan.loss:
            progress.notes.append(told := f"{self.plan.label}: {AS_WEIGHTS}")
            yield Said(told)
        with torch.random.fork_rng(devices=[]), freeze.mode(self.graft.view, self.graft.head, self.phase):
            if self.plan.optimizer.chosen:
                loss, told = self._choose(features)
                progress.notes.append(told)
                yield Said(told)
            else:
                _, loss = solve(
                    self.graft.head,
                    features,
                    self.targets,
                    lambda made, targets: self.task.loss(made, targets, self.asked),
                    self.plan.optimizer.weight_decay,
                )
        progress.loss_sum, progress.loss_rows, progress.step = loss * len(self.targets), len(self.targets), 1
        scored = self._score(progress)
        progress.epoch, progress.loss_sum, progress.loss_rows = 1, 0.0, 0
        yield Step(self.number, 1, 1, loss, 0.0)
        yield scored

    def _choose(self, features: Tensor) -> tuple[float, str]:
        """Fit the head that cross-validation chooses; rows of equal content or group stay together."""
        head, rule, loss = self.graft.head, self.plan.optimizer, self.asked
        names = [row.group or row.key for row in self.train.rows]
        given = head, features, self.targets, self.task, loss, names, seed_of(self.seed, "folds")
        choose: prototypes.Choose | None = CHOICES.get(rule.name)
        if self.plan.means:
            choose = prototypes.beside(next((everything(self.graft, table) for table in self.unlabelled), None))
        if choose is not None:
            found = choose(*given)
            return found.loss, found.told
        settings = [Setting(*one) for one in itertools.product(*rule.grid)]
        order = [batch for epoch in range(self.phase.epochs) for batch in self._order(epoch)]
        factors = [self._rate(step) for step in range(len(order))]
        grid = rates.choose(head, rows_of(*given), self.task, loss, settings, order, factors)
        return grid.loss, grid.told

    def _order(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch."""
        return self._batches(seed_of(self.seed, "order", self.number, epoch))

    def _batches(self, seed: int) -> list[list[int]]:
        if self.plan.loss.contrast:
            return contrast.batches(self.targets[: self.rows], self.plan.batch, seed)
        if not self.drawn:
            return batches(self.shapes, self.plan.batch, seed)
        rows = drawn(self.targets[: self.rows].tolist(), self.shapes, self.plan.sampling, seed)
        order = batches([self.shapes[i] for i in rows], self.plan.batch, seed_of(seed, "batches"))
        return [[rows[i] for i in index] for index in order]

    def _epoch(self, progress: Progress) -> Iterator[Event]:
        order = self._order(progress.epoch)
        if self.plan.views > 1:
            turn = self._turns(progress.epoch)
            order = [[turn[i] * self.rows + i for i in index] for index in order]
        with freeze.mode(self.graft.view, self.graft.head, self.phase):
            while progress.step_in_epoch < self.steps:
                step = self._step(progress, order)
                if self.keeper.due():
                    self.keeper.save(progress, self._all())
                yield step
        scored = self._score(progress)
        progress.epoch, progress.step_in_epoch, progress.loss_sum, progress.loss_rows = progress.epoch + 1, 0, 0.0, 0
        yield scored

    def _turns(self, epoch: int) -> list[int]:
        """The view that each row shows in an epoch: all of its views in turn, in an order drawn anew for each round."""
        views = self.plan.views
        draw = torch.Generator().manual_seed(seed_of(self.seed, "views", self.number, epoch // views))
        turns: list[int] = torch.rand(self.rows, views, generator=draw).argsort(1)[:, epoch % views].tolist()
        return turns

    def _step(self, progress: Progress, order: list[list[int]]) -> Step:
        i, steps = progress.step_in_epoch, self.steps
        index = order[i]
        rate = self._rate(progress.epoch * steps + i)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * rate
        self.optimizer.zero_grad(set_to_none=True)
        with memory_watched(in_step=True), torch.random.fork_rng(devices=[]):
            # not torch.manual_seed: where CUDA is built in it keeps a stack trace of each call, at 2 ms a step
            torch.default_generator.manual_seed(seed_of(self.seed, "step", self.number, progress.epoch, i))
            following = order[i + 1] if i + 1 < steps and self.graft.pieces == 1 and not self.plan.loss.contrast else []
            losses = torch.cat([self._descend(some, following) for some in cut(index, self.graft.pieces)])
            penalty = self.near.of_weights((name, p) for name, (p, _) in self.chosen.items())
            if penalty is not None:
                penalty.backward()
        value = losses.mean().item()
        if not math.isfinite(value):
            self._not_finite(value, progress, [self.train.rows[i].id for i in index])
        if self.plan.optimizer.clip:
            torch.nn.utils.clip_grad_norm_([p for p, _ in self.chosen.values()], self.plan.optimizer.clip)
        self.optimizer.step()
        self.average.take(progress.epoch * steps + i)
        progress.loss_sum += value * len(index)
        progress.loss_rows += len(index)
        progress.step += 1
        progress.step_in_epoch += 1
        total = sum(p.epochs for p in self.plan.phases) * steps
        return Step(self.number, progress.step, total, value, self.plan.optimizer.lr * rate)

    def _descend(self, index: list[int], following: list[int]) -> Tensor:
        """Add the gradients of some rows of a batch to those that are there; the rows' losses.

        The batch that follows is read and prepared meanwhile.
        """
        if self.plan.loss.contrast:
            with engines.autocast(self.graft.training):
                features = gathered(self.graft, self.train, index).float()
            losses = contrast.contrast(features, self.targets[index])
            (losses.sum() * (self.steps / self.count)).backward()
            return losses.detach()
        batch = self.train.batch(index)
        if following:
            self.train.prepare(following)
        made, features = self.graft.descend(batch, self.phase.frontier)
        losses = self.task.loss(made, self.targets[index], self.plan.loss)
        penalty = self.near.of_features(features, self.near.pretrained(index))
        share = self.steps / self.count  # a row counts the same in a short batch
        (losses.sum() * share + penalty * (len(index) * share)).backward()
        return losses.detach()

    def _score(self, progress: Progress) -> Scored:
        """Score validation with the weights, or their average; keep what was scored if its loss is the phase's lowest.

        The loss chooses among epochs because it is smooth: on a few dozen rows an untrained start may reach the best
        accuracy by luck. Plans are compared by the task's metric, with its interval.
        """
        with self.average.instead():
            return self._judge(progress)

    def _judge(self, progress: Progress) -> Scored:
        if self.plan.loss.contrast:
            with torch.no_grad():
                _, told = self._choose(everything(self.graft, self.train))
            if progress.epoch + 1 == (self.phase.stop or self.phase.epochs):
                progress.notes.append(told)
        half = self.graft.halves(self.phase.frontier)
        made = outputs(self.graft, self.val, self.plan.batch if half else 0)
        losses = self.task.loss(made, self.val_targets, self.loss)
        loss = float(losses.mean())
        if not math.isfinite(loss):
            wrong = (~losses.isfinite()).nonzero().flatten().tolist()
            self._not_finite(loss, progress, [self.val.rows[i].id for i in wrong])
        metric = self.task.metrics[0]
        value = metric.fn(self.task.decode(made)[metric.takes], self.val_targets.numpy(), None)
        if not self.phase.stop:  # with it, validation rows are among those trained on: their loss chooses nothing
            if progress.best_loss is None or loss < progress.best_loss:
                progress.best_loss, progress.waited = loss, 0
                self.best = {name: t.detach().clone() for name, t in self.held.items()}
                self.answers = {} if half else {ANSWERS: made}  # what is scored and shipped is never rounded
            else:
                progress.waited += 1
        line = Epoch(self.number, progress.epoch, progress.loss_sum / progress.loss_rows, loss, value)
        progress.curve.append(line)
        return Scored(line)

    def _rate(self, step: int) -> float:
        """The schedule's factor at a step of this phase, in (0, 1]."""
        total = self.phase.epochs * self.steps
        warm = round(self.phase.warmup_frac * total)
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, total - warm)
        return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[
            self.phase.schedule
        ]

    def _all(self) -> dict[str, Tensor]:
        """All that a fit goes on from, by name."""
        tensors = {f"now/{name}": t for name, t in self.held.items()}
        tensors |= {f"best/{name}": t for name, t in self.best.items()} | self.answers
        tensors |= {f"{MEAN}{name}": t for name, t in self.average.mean.items()}
        return tensors | optimizer_state(self.optimizer, list(self.chosen))

    def _not_finite(self, value: float, progress: Progress, rows: list[str]) -> NoReturn:
        raise Diverged(
            f"the loss is not finite at step {progress.step + 1} (phase {self.number + 1}, epoch {progress.epoch + 1})",
            saw=f"{value} for {', '.join(rows[:4])} …",
            allowed="finite losses",
            do=f"look at these rows; if they are sound, lower the rate (now {self.plan.optimizer.lr:g})",
        )


def _optimizer(
    plan: Plan, chosen: dict[str, tuple[torch.nn.Parameter, float]], held: Collection[str] = ()
) -> torch.optim.Optimizer:
    """One group a parameter, holding nothing that is frozen; decay on matrices and kernels alone, not on those `held`
    close to their start.

    Fused: each weight is read and written once. AdamW over MiniLM takes 47 ms on one thread in place of 190.
    """
    o = plan.optimizer
    groups = [
        {"params": [p], "base": o.lr * rate, "weight_decay": o.weight_decay if p.ndim > 1 and name not in held else 0.0}
        for name, (p, rate) in chosen.items()
    ]
    if o.name == "sgd":
        return torch.optim.SGD(groups, lr=o.lr, momentum=o.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=o.lr, fused=True)


def batches(shapes: Sequence[Shape], size: int, seed: int) -> list[list[int]]:
    """Positions of all rows in batches of at most `size`, drawn anew by each seed; as many batches whatever the seed.

    Rows of two shapes never meet. The rows of a shape are dealt out nearly evenly, and batches of several shapes come
    in random order.
    """
    draw = torch.Generator().manual_seed(seed)
    order: list[int] = torch.randperm(len(shapes), generator=draw).tolist()
    found = []
    for members in groups([shapes[i] for i in order]).values():
        n, steps = len(members), math.ceil(len(members) / size)
        for i in range(steps):
            found.append([order[j] for j in members[i * n // steps : (i + 1) * n // steps]])
    if len(set(shapes)) == 1:
        return found
    return [found[i] for i in torch.randperm(len(found), generator=draw).tolist()]


def cut(index: list[int], pieces: int) -> list[list[int]]:
    """A batch in at most so many pieces of nearly equal sizes, none of them empty.

    >>> cut([4, 7, 1, 9, 3], 2)
    [[4, 7], [1, 9, 3]]
    """
    n, count = len(index), min(pieces, len(index))
    return [index[i * n // count : (i + 1) * n // count] for i in range(count)]


def _refuse_unbuilt(plan: Plan) -> None:
    if plan.pooling == "tokens":
        raise UsageError(
            "this version cannot train a plan with this setting",
            saw=f"pooling = {plan.pooling!r}",
            allowed="native or mean",
            do="choose another strategy",
        )
    if plan.regularise and plan.optimizer.whole:
        raise UsageError(
            "a head that is fitted to all rows at once takes no steps in which it could be held close to anything",
            saw=", ".join(f"{name} {strength:g}" for name, strength in plan.regularise) + f" by {plan.optimizer.name}",
            allowed="regularisers of plans that take steps",
            do="leave them out, or train the network with full, partial, layerwise or gradual",
        )
