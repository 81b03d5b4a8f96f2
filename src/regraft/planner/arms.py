"""Give the best plan of a race rivals that differ in the loss alone: for rare classes, for labels that look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from regraft.data.split import thin
from regraft.engine.predict import everything
from regraft.planner.course import Course
from regraft.planner.noise import FEWEST, noise
from regraft.planner.rules import NOISY
from regraft.waist import Loss, Plan, Scalar, Target, Task, Trial

RARE: tuple[tuple[str, Scalar], ...] = (("balance", 1.0), ("adjust", 1.0), ("sampling", "balanced"))
"""What may be better for rare classes than the root of their weights, which every plan of a race has."""
ROBUST, SMOOTHING = 0.7, 0.1
"""The q of Zhang & Sabuncu's experiments, and as much smoothing as is usual."""
MOST = 2000
"""Rows that are looked at for wrong labels."""


def uneven(target: Target, task: Task) -> bool:
    """Whether ways with rare classes matter: classes are far apart in size, and count the same in what decides."""
    return target.unequal and task.metrics[0].equal


def arms(plan: Plan, task: Task, rare: bool, wrong: float) -> list[Plan]:
    """The plan with other losses: three for `rare` classes, one where a share of `wrong` labels is high.

    Those are left out that the task or the way of fitting does not take; there are none for a plan that trains nothing,
    or that has such a loss already.

    >>> from regraft.kit import shelf
    >>> from regraft.waist import Phase
    >>> task = shelf.find("tasks", "classify").make(Target("y", "class", ("a", "b"), (90, 10)))
    >>> plan = Plan("full", (Phase(3, 0, ()),), loss=Loss(balance=0.5))
    >>> [one.label for one in arms(plan, task, rare=True, wrong=0.2)]
    ['full balance 1', 'full adjust 1', 'full sampling balanced', 'full robust 0.7']
    """
    own = replace(plan.loss, smoothing=0.0, balance=0.0) != Loss() or plan.sampling or "balance" in dict(plan.knobs)
    if own or not any(phase.epochs for phase in plan.phases):
        return []
    asked = list(RARE) if rare else []
    asked += [("robust", ROBUST)] if wrong >= NOISY else []
    rule = plan.optimizer
    idle = ("adjust", "robust", "sampling") if rule.chosen else ("sampling",) if rule.whole else ()
    return [_with(plan, name, value) for name, value in asked if name in task.takes and name not in idle]


def _with(plan: Plan, name: str, value: Scalar) -> Plan:
    plain = replace(plan, knobs=(*plan.knobs, (name, value)), loss=replace(plan.loss, balance=0.0))
    if name == "sampling":
        return replace(plain, sampling=1.0)
    if name == "robust":
        return replace(plain, loss=replace(plan.loss, robust=float(value), smoothing=SMOOTHING))
    return replace(plain, loss=replace(plain.loss, **{name: float(value)}))


def wrong_labels(course: Course, trials: Sequence[Trial]) -> float:
    """The estimated share of wrong labels among some training rows; 0 where it cannot be told for next to nothing.

    It takes features that a head was trained on in this race, so that no row goes through the network for it.
    """
    task, target, rows = course.task, course.data.target, course.data.train
    ready = (t.plan for t in trials if t.whole and t.plan.init == "pretrained" and any(p.epochs for p in t.plan.phases))
    heads = (plan for plan in ready if plan.trunk == len(course.view.pooled(plan.reading).stages))
    plan = next(heads, None)
    if plan is None or not course.cached or target.kind != "class" or "robust" not in task.takes or len(rows) < FEWEST:
        return 0.0

    def measured() -> float:
        some = thin(rows, max(MOST, 2 * len(target.labels)), course.seed, cover=True) if len(rows) > MOST else rows
        graft = course.graft(plan)
        features = everything(graft, course.table(graft.view, plan.trunk, some))
        found = noise(features, task.encode([row.y for row in some]), [row.group or row.key for row in some])
        return round(found or 0.0, 4)

    return course.folder.step("noise", float, measured, plan)
