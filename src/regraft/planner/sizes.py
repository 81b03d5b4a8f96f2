"""What plans cost beforehand, and how they are cut to a budget: fewer rates, fewer epochs, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from regraft.engine import close, contrast, freeze
from regraft.engine.folds import FOLDS
from regraft.planner.course import Course
from regraft.waist import Epoch, Facts, Filled, Phase, Plan, Skipped, Trial, plain

BACKWARD = 3.0
"""A training step in forward passes, before any was timed."""
STEP_S = 0.003
WEIGHT_S = 4e-9
"""What a weight takes in a step where heads of many settings and folds are trained at once."""
CLOSING_S = 1.0
RUNG = 3
"""Rates of one family are compared after one part in so many of their epochs."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A family's turn: which plans run, by their numbers, as they were cut to the budget, and which do not."""

    numbers: tuple[int, ...]
    plans: tuple[Plan, ...]
    skipped: tuple[Skipped, ...] = ()


def forecast(facts: Facts, course: Course, plan: Plan) -> dict[str, Any]:
    """What a plan would take, without training: its record, trainable parameters, cache bytes and GFLOP at most."""
    rows = sum(count for _, count in facts.data.rows)
    graft = course.graft(plan)
    stages, apart = graft.view.stages, course.trunks.sides(graft.view)
    trained = {n: p for phase in plan.phases for n, (p, _) in freeze.trainable(graft.view, graft.head, phase).items()}
    below = apart * sum(s.flops for s in stages[: plan.frontier])
    above = apart * sum(s.flops for s in stages[plan.frontier :])
    epochs = passes(plan, facts.train_rows) * sum(phase.epochs for phase in plan.phases)
    return {
        "label": plan.label,
        "plan": plain(plan),
        "frontier": plan.trunk,
        "trainable": sum(p.numel() for p in trained.values()),
        "cache_bytes": apart * rows * stages[plan.trunk - 1].out_bytes if plan.trunk else 0,
        "gflop_at_most": (rows * below + epochs * 3 * above * facts.train_rows) / 1e9,
    }


def passes(plan: Plan, rows: int) -> int:
    """How often each of so many rows goes through in an epoch."""
    return contrast.passes(rows // plan.views, plan.batch) if plan.loss.contrast else 1


def through(plan: Plan, stages: int) -> list[int]:
    """The phases that train something of a backbone of so many stages."""
    if plan.init == "plain":
        return []
    return [i for i, phase in enumerate(plan.phases) if phase.epochs and phase.frontier < stages]


def reached(plan: Plan, stages: int, curve: Sequence[Epoch]) -> int:
    """How many epochs of a curve went through the backbone; all of them, where the plan trains a head alone."""
    deep = through(plan, stages)
    return sum(epoch.phase in deep for epoch in curve) if deep else len(curve)


def planned(plan: Plan, stages: int) -> int:
    """How many epochs through the backbone a plan has; of a head alone, where it trains no more."""
    deep = through(plan, stages)
    return sum(phase.epochs for i, phase in enumerate(plan.phases) if i in deep or not deep)


def sized(family: Sequence[tuple[int, Plan]], stages: int, allowed: float, why: str) -> Turn:
    """A family cut to `allowed` epochs: all rates as they are, then with half the epochs, then fewer rates, then one
    with what epochs there are; with less than one epoch nothing of it runs, for the reason `why`.
    """
    most = planned(family[0][1], stages)
    for least in (most, math.ceil(most / 2)):
        for count in range(len(family), 0, -1):
            epochs = _epochs(count, allowed, most)
            if epochs >= max(1, least):
                return _turn(family, count, epochs, stages, why)
    epochs = min(most, int(allowed))
    return _turn(family, min(1, epochs), epochs, stages, why)


def _epochs(count: int, allowed: float, most: int) -> int:
    """The most epochs a plan may have where `count` rates run to a rung and one goes on."""
    for epochs in range(most, 0, -1):
        if (count - 1) * math.ceil(epochs / RUNG) + epochs <= allowed:
            return epochs
    return 0


def _turn(family: Sequence[tuple[int, Plan]], count: int, epochs: int, stages: int, why: str) -> Turn:
    taken, left = family[:count], family[count:]
    return Turn(
        tuple(number for number, _ in taken),
        tuple(shortened(plan, epochs, stages) for _, plan in taken),
        tuple(Skipped(plan, why) for _, plan in left),
    )


def shortened(plan: Plan, epochs: int, stages: int) -> Plan:
    """The plan with so many epochs through the backbone (or of its head), shared out among its phases as before."""
    most, deep = planned(plan, stages), through(plan, stages)
    if epochs >= most:
        return plan

    def cut(i: int, phase: Phase) -> Phase:
        if (deep and i not in deep) or not phase.epochs:
            return phase
        fewer = max(1, phase.epochs * epochs // most)
        return replace(phase, epochs=fewer, stop=min(phase.stop, fewer))

    return replace(plan, phases=tuple(cut(i, phase) for i, phase in enumerate(plan.phases)))


class Pace:
    """Seconds that plans will take, from the measured pace of the backbone; it learns from every epoch that ran."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.row_s = course.machine.forward_s
        self.factor = {True: 1.0, False: 1.0}
        self._filled: set[tuple[object, ...]] = set()

    def epoch(self, plan: Plan) -> float:
        """Seconds of the dearest epoch of a plan."""
        return max((self._epoch(plan, phase) for phase in plan.phases if phase.epochs), default=0.0)

    def fixed(self, plan: Plan) -> float:
        """Seconds for the trunk at frontiers that no trial has filled yet, and for the scores at the end.

        Every view of a row is a pass of its own.
        """
        if plan.init == "plain":
            return self.closing(plan) + self._rows() * self.row_s / 10
        fills = {k for k in self._reads(plan) if self._fill(plan, k) not in self._filled}
        rows = self._rows() + (plan.views - 1) * len(self.course.rows(plan))
        return rows * self.row_s * sum(self._below(plan, k) for k in fills) + self.closing(plan)

    def closing(self, plan: Plan) -> float:
        """Seconds from the last step to a finished trial: scores on validation and test."""
        data = self.course.data
        above = 1.0 - self._below(plan, plan.phases[-1].frontier)
        slow = max(1.0, self.factor[True])  # a machine that became slower is slower here too
        return (len(data.val) + len(data.test)) * self.row_s * above * slow + CLOSING_S

    def ran(self, plan: Plan, event: Filled, seconds: float) -> None:
        """The trunk has run on so many examples: what a row takes is put right by that, from 64 rows on."""
        if event.done >= 64:
            self.row_s = seconds / event.done / max(self._below(plan, event.frontier), 0.05)

    def filled(self, plan: Plan) -> None:
        """The frontiers of this plan are in the cache from now on."""
        self._filled |= {self._fill(plan, k) for k in self._reads(plan)}

    def _reads(self, plan: Plan) -> set[int]:
        """The frontiers that a plan reads: those of its phases, and the features where it stays close to them."""
        close_to = {self._stages(plan)} if close.asked(plan, close.CHANGE) else set()
        return {phase.frontier for phase in plan.phases if phase.frontier} | close_to

    def _fill(self, plan: Plan, k: int) -> tuple[object, ...]:
        return plan.init, plan.reading, k, plan.augment

    def learn(self, plan: Plan, epoch: Epoch, seconds: float) -> None:
        """An epoch took so long: the next forecast of its kind is put right by it."""
        phase = plan.phases[epoch.phase]
        deep = epoch.phase in through(plan, self._stages(plan))
        self.factor[deep] *= seconds / max(self._epoch(plan, phase), 1e-6)

    def _epoch(self, plan: Plan, phase: Phase) -> float:
        rows, above = len(self.course.rows(plan)), 1.0 - self._below(plan, phase.frontier)
        deep = phase.frontier < self._stages(plan) and plan.init != "plain"
        if plan.init == "plain":
            above = 0.05
        backward = BACKWARD / self.course.machine.training.gain if deep else BACKWARD
        work = (backward * rows + len(self.course.data.val)) * self.row_s * above
        return self.factor[deep] * (work + rows / plan.batch * self._step(plan))

    def _step(self, plan: Plan) -> float:
        """Seconds of a step above the backbone: an optimizer's, or of all heads of a grid."""
        if not plan.optimizer.grid:
            return STEP_S
        heads = math.prod(map(len, plan.optimizer.grid)) * (FOLDS + 1) * len(self.course.data.target.labels)
        return heads * (self.course.width(self.course.view.pooled(plan.reading)) + 1) * WEIGHT_S

    def _rows(self) -> int:
        return sum(len(rows) for rows in (self.course.data.train, self.course.data.val, self.course.data.test))

    def _stages(self, plan: Plan) -> int:
        return len(self.course.view.pooled(plan.reading).stages)

    def _below(self, plan: Plan, k: int) -> float:
        """The share of the backbone's work that lies below frontier k."""
        if plan.init == "plain":
            return 1.0
        stages = self.course.view.pooled(plan.reading).stages
        return sum(s.flops for s in stages[:k]) / max(1, sum(s.flops for s in stages))


def refitted(trial: Trial) -> Plan:
    """The trial's plan to be fitted on validation rows too: each phase for as many epochs as it was best after.

    A phase that made nothing better is left out.
    """
    low, phases = math.inf, []
    for i, phase in enumerate(trial.plan.phases):
        losses = [epoch.val_loss for epoch in trial.curve if epoch.phase == i]
        gained = bool(losses) and min(losses) < low
        low = min([low, *losses])
        if trial.plan.optimizer.whole or not phase.epochs or phase.stop:
            phases.append(phase)
        else:
            phases.append(replace(phase, stop=losses.index(min(losses)) + 1) if gained else replace(phase, epochs=0))
    return replace(trial.plan, phases=tuple(phases), fold="all")
