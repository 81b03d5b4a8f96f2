"""What the cache spared: rows through the frozen trunk that a loop without it would have run, at a measured price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from regraft.backbone.view import View
from regraft.engine import close
from regraft.planner.course import SPLITS, Course
from regraft.waist import Saved, Trial


def saved(course: Course, trials: Sequence[Trial]) -> Saved:
    """Rows that went through frozen trunks in this run, against those that the same trials take without a cache.

    A plain loop runs the trunk on training and validation rows in every epoch, and on every split at the end; where a
    plan stays close to the pretrained network's features, also all of that network on training rows. A trunk counts by
    its share of the network's FLOPs; seconds and joules are computed from the pass that the survey timed.
    """
    rows = {name: len(getattr(course.data, name)) for name in ("train", *SPLITS)}
    plain, whole = 0, 0.0
    for trial in trials:
        if trial.plan.init != "pretrained":
            continue
        fitted, view = len(course.rows(trial.plan)), course.view.pooled(trial.plan.reading)
        epochs = Counter(line.phase for line in trial.curve)
        used = [(phase.frontier, epochs[i] * (fitted + rows["val"])) for i, phase in enumerate(trial.plan.phases)]
        if trial.whole:
            used.append((trial.plan.phases[-1].frontier, sum(rows[name] for name in SPLITS)))
        if close.asked(trial.plan, close.CHANGE):
            top = len(view.stages)
            used += [(top, epochs[i] * fitted) for i, phase in enumerate(trial.plan.phases) if phase.frontier < top]
        if trial.plan.start != "zero":
            used.append((trial.plan.phases[0].frontier, fitted))
        plain += sum(count for k, count in used if k)
        whole += sum(count * _share(view, k) for k, count in used)
    ran = course.trunks.ran()
    done: float = sum(count * _share(course.view.pooled(name), k) for (name, k), count in ran.items())
    spared = max(0.0, whole - done) * course.machine.forward_s
    return Saved(sum(ran.values()), plain, round(spared, 1), round(spared * course.machine.watts, 1))


def _share(view: View, k: int) -> float:
    """The share of a network's FLOPs below frontier k."""
    flops = [stage.flops for stage in view.stages]
    return sum(flops[:k]) / max(1, sum(flops))
