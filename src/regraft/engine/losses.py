"""Refuse options of a loss that would be ignored, or that contradict each other."""

from __future__ import annotations

from dataclasses import fields

from regraft.errors import UsageError
from regraft.waist import Plan, Task

SHAPES = ("focal", "robust", "reverse")
"""Options that each put another function in the place of cross-entropy."""


def refuse(plan: Plan, task: Task) -> None:
    """Go on only where the task and the way of fitting honour all that a plan asks of its loss.

    Raises: UsageError: they do not.
    """
    asked = {f.name: getattr(plan.loss, f.name) for f in fields(plan.loss)} | {"sampling": plan.sampling}
    asked = {name: value for name, value in asked.items() if value and name != "contrast"}
    what, takes, do = f"the task {task.name} does not take this option of the loss", task.takes, "leave it out"
    if asked.keys() <= {*takes} and plan.optimizer.chosen:
        what = "a head that cross-validation chooses is fitted by cross-entropy"
        takes = tuple(name for name in takes if name in ("smoothing", "balance", "sampling"))
        do = "train the head in steps: --probe.by steps"
    if asked.keys() <= {*takes} and plan.loss.contrast:
        what = "features are compared by class, and class means are the head"
        takes = tuple(name for name in takes if name in ("smoothing", "balance"))
    both = [name for name in SHAPES if name in asked]
    if asked.keys() <= {*takes} and len(both) > 1:
        what, do = f"two shapes of the loss contradict each other: {both[0]} and {both[1]}", "choose one of them"
        takes = tuple(name for name in takes if name not in both[:-1])
    if wrong := [name for name in asked if name not in takes]:
        raise UsageError(
            what,
            saw=", ".join(f"{name} {asked[name]:g}" for name in wrong) + f" of {plan.label}",
            allowed=", ".join(takes) or "none of them",
            do=do,
        )
