"""Average the weights of tuned trials that began alike (a model soup), where validation is no worse for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from safetensors.torch import load_file
from torch import Tensor

from regraft.engine.fit import ANSWERS, touched
from regraft.engine.snapshot import Keeper, Progress
from regraft.kit.meter import Meter
from regraft.planner.blend import answers, judged
from regraft.planner.course import SNAPSHOTS, Course
from regraft.waist import Event, Finished, Plan, Said, Trial, fingerprint

KNOB, OF = "soup", "of"


def mates(course: Course, trials: Sequence[Trial], lead: Trial) -> list[Trial]:
    """The lead and the other trials that may be averaged with it, the best on validation first.

    They began at the same weights, read the network the same way, trained the same weights of it and on the same rows.
    """

    def alike(trial: Trial) -> bool:
        a, b = trial.plan, lead.plan
        same = (a.init, a.reading, a.start, a.fold, a.inserts) == (b.init, b.reading, b.start, b.fold, b.inserts)
        return trial.whole and same and not a.inserts and set(_weights(course, trial)) == names

    names = set(_weights(course, lead))
    others = [trial for trial in trials if trial != lead and alike(trial)]
    return [lead, *sorted(others, key=lambda trial: judged(course, course.outputs(trial, "val")), reverse=True)]


def soup(course: Course, number: int, some: Sequence[Trial]) -> Iterator[Event]:
    """The greedy soup of trials, the lead first: each is taken on where neither metric nor loss on validation is worse.

    Which ones were is a record. What two or more give is a trial that holds the mean of their weights, head included.

    Reference: Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time, 2022, recipe 1.

    Raises: NoMemory: not even one row at a time fits.
    """
    taken = course.folder.step("soup", list[int], lambda: _greedy(course, some), [trial.plan for trial in some])
    if len(taken) < 2:
        yield Said(f"no other trial makes {some[0].label} better where their weights are averaged (model soups)")
        return
    members = [some[i] for i in taken]
    plan = mixed([trial.plan for trial in members])
    yield Said(f"{plan.label} (model soups): {', '.join(trial.label for trial in members)}")
    yield Finished(course.finished(number, plan) or _stirred(course, number, plan, members))


def mixed(plans: Sequence[Plan]) -> Plan:
    """The plan of the mean of what plans end with: the first one's, with how many there are and which.

    >>> a, b = (Plan("full", (), (("lr", lr),)) for lr in (1e-3, 1e-4))
    >>> mixed([a, b]).label, mixed([a, b]) == mixed([a, a])
    ('full lr 0.001 soup 2', False)
    """
    return replace(plans[0], knobs=(*plans[0].knobs, (KNOB, len(plans)), (OF, fingerprint(list(plans))[:12])))


def _greedy(course: Course, some: Sequence[Trial]) -> list[int]:
    """The places of those that are averaged."""
    graft, plan = course.restore(some[0]), some[0].plan
    held = touched(plan, graft)
    taken, best = [0], judged(course, course.outputs(some[0], "val"))
    mean = {name: tensor.detach().clone() for name, tensor in held.items()}
    for i, trial in enumerate(some[1:], 1):
        made = _with(mean, _weights(course, trial), len(taken))
        with torch.no_grad():
            for name, tensor in held.items():
                tensor.copy_(made[name])
        found = judged(course, answers(course, plan, graft))
        if found[0] >= best[0] and found[1] >= best[1]:
            mean, best = made, found
            taken.append(i)
    return taken


def _stirred(course: Course, number: int, plan: Plan, members: Sequence[Trial]) -> Trial:
    """The trial of the mean of some, written as any other; it costs what they cost."""
    graft = course.restore(members[0])
    held = touched(members[0].plan, graft)
    for count, trial in enumerate(members[1:], 1):
        made = _with(held, _weights(course, trial), count)
        with torch.no_grad():
            for name, tensor in held.items():
                tensor.copy_(made[name])
    seconds = sum(trial.cost.seconds for trial in members)
    keeper = Keeper(course.place(number, plan) / SNAPSHOTS, Meter.start(seconds), course.every_s)
    note = f"the mean of the weights of {', '.join(trial.label for trial in members)}"
    said = {ANSWERS: answers(course, plan, graft)}
    keeper.save(Progress(notes=[note]), {f"best/{name}": tensor for name, tensor in held.items()} | said)
    return course.conclude(number, plan, members[0].stopped)


def _with(mean: dict[str, Tensor], one: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The mean of `count` networks with one more; counters stay those of the first."""
    return {
        name: torch.lerp(t.detach(), one[name], 1 / (count + 1)) if t.is_floating_point() else t.detach().clone()
        for name, t in mean.items()
    }


def _weights(course: Course, trial: Trial) -> dict[str, Tensor]:
    return load_file(course.folder.path / trial.snapshot)
