"""Part of the way from the pretrained weights to tuned ones (WiSE-FT), where validation prefers that to all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regraft.engine.fit import ANSWERS, touched
from regraft.engine.predict import Graft, outputs
from regraft.engine.snapshot import Keeper, Progress
from regraft.kit.meter import Meter
from regraft.planner.course import SNAPSHOTS, Course
from regraft.waist import Event, Finished, Loss, Plan, Said, Trial

SHARES = (0.8, 0.6, 0.4, 0.2)
KNOB = "wise"


@dataclass
class Line:
    """A tuned trial's network between its `start` and its `end`, by name of tensor; what has no start stays tuned."""

    graft: Graft
    start: dict[str, Tensor]
    end: dict[str, Tensor]
    plan: Plan

    def put(self, share: float) -> None:
        """Move the network to this share of the way."""
        with torch.no_grad():
            for name, tensor in touched(self.plan, self.graft).items():
                begun, tuned = self.start.get(name), self.end[name]
                tensor.copy_(tuned if begun is None else torch.lerp(begun, tuned, share))


def blend(course: Course, number: int, trial: Trial) -> Iterator[Event]:
    """Shares of the way that a tuned trial went, scored on validation; the best is a trial where it is better.

    Better is a lower loss of a row and a deciding metric that is no worse. The head stays the tuned one, as it began
    without an opinion. Nothing happens where nothing of the pretrained weights was trained.

    Reference: Wortsman et al., Robust fine-tuning of zero-shot models, 2022 (WiSE-FT).

    Raises: NoMemory: not even one row at a time fits.
    """
    line = _line(course, trial)
    if line is None:
        return
    plans = {share: part(trial.plan, share) for share in SHARES}
    if held := next((t for plan in plans.values() if (t := course.finished(number, plan))), None):
        yield Finished(held)
        return
    best, low = 1.0, judged(course, course.outputs(trial, "val"))
    least = low[0]
    for share in SHARES:
        line.put(share)
        found = judged(course, answers(course, line.plan, line.graft))
        if found[0] >= least and found[1] > low[1]:
            best, low = share, found
    told = f"{trial.label}, {best:g} of the way from the pretrained weights" if best < 1 else f"{trial.label} as it is"
    yield Said(f"between pretrained and tuned weights (WiSE-FT): {told}")
    if best < 1:
        yield Finished(along(course, number, trial, best))


def along(course: Course, number: int, trial: Trial, share: float) -> Trial:
    """The trial of this share of the way that a tuned one went, written as any other."""
    plan, line = part(trial.plan, share), _line(course, trial)
    assert line is not None, trial.label
    keeper = Keeper(course.place(number, plan) / SNAPSHOTS, Meter.start(trial.cost.seconds), course.every_s)
    line.put(share)
    said = {ANSWERS: answers(course, line.plan, line.graft)}
    held = {f"best/{name}": tensor for name, tensor in touched(plan, line.graft).items()}
    note = f"{share:g} of the way from the pretrained weights to those of {trial.label}"
    keeper.save(Progress(notes=[note]), held | said)
    return course.conclude(number, plan, trial.stopped)


def part(plan: Plan, share: float) -> Plan:
    """The plan of a share of the way that a plan goes.

    >>> part(Plan("full", (), (("lr", 1e-3),)), 0.6).label
    'full lr 0.001 wise 0.6'
    """
    return replace(plan, knobs=(*plan.knobs, (KNOB, share)))


def source(trials: Sequence[Trial], trial: Trial) -> tuple[Trial, float]:
    """The tuned trial that a trial is a share of, and that share; any other is all of itself."""
    share = float(dict(trial.plan.knobs).get(KNOB, 1.0))
    return next((one for one in trials if part(one.plan, share) == trial.plan), trial), share


def _line(course: Course, trial: Trial) -> Line | None:
    """What lies between a trial's start and its end; None where nothing of the pretrained weights was trained."""
    plan = trial.plan
    if plan.init != "pretrained" or not trial.whole:
        return None
    graft = course.restore(trial)
    new = graft.view.card().new
    old = {name for name, stage, _ in graft.view.named() if stage not in new}
    old |= {f"buffer/{name}" for name, _, _ in graft.view.buffers()}
    end = {name: tensor.detach().clone() for name, tensor in touched(plan, graft).items()}
    begun = touched(plan, course.graft(plan))
    start = {name: t.detach() for name, t in begun.items() if name in old and t.is_floating_point()}
    return Line(graft, start, end, plan) if start else None


def answers(course: Course, plan: Plan, graft: Graft) -> Tensor:
    """What a network answers on the validation rows where it stands."""
    k = plan.phases[-1].frontier
    return outputs(graft, course.trunks.as_shipped(graft.view, k, course.data.val))


def judged(course: Course, made: Tensor) -> tuple[float, float]:
    """The deciding metric and the loss of a row, signed so that higher is better."""
    task, metric = course.task, course.task.metrics[0]
    targets = task.encode([row.y for row in course.data.val])
    value = metric.fn(task.decode(made)[metric.takes], targets.numpy(), None)
    return (value if metric.better == "higher" else -value), -float(task.loss(made, targets, Loss()).mean())
