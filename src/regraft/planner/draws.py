"""Repeat a few-shot protocol over several draws: each plan is trained on every shot, and scored on the whole test."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace

from regraft.planner.course import Course
from regraft.planner.sizes import refitted
from regraft.waist import Event, Finished, Plan, Said, Trial


@dataclass(frozen=True, slots=True)
class Drawn:
    """A plan's test scores, one for each draw; their mean and its 95 % interval; seconds of all its trials."""

    plan: str
    scores: tuple[float, ...]
    mean: float
    low: float
    high: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Draws:
    """A few-shot protocol that was run: the metric on `rows` test rows, and the plans, the best first."""

    data: str
    model: str
    shots: int
    draws: int
    metric: str
    rows: int
    plans: tuple[Drawn, ...]


def repeat(
    courses: Iterable[tuple[Course, Sequence[Plan]]],
) -> Generator[Event, None, tuple[Drawn, ...]]:
    """Every plan on every draw, the best mean first.

    Raises: as `Course.trial`.
    """
    scores: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    better, share = "higher", False
    for number, (course, plans) in enumerate(courses):
        for i, plan in enumerate(plans):
            trials = yield from trained(course, 2 * i, plan)
            found = trials[-1].score("test")
            better, share = found.better, course.task.metrics[0].proportion
            scores.setdefault(plan.label, []).append(found.value)
            seconds[plan.label] = seconds.get(plan.label, 0.0) + sum(trial.cost.seconds for trial in trials)
            yield Said(f"draw {number + 1}: {plan.label}: test {found.metric} {found.value:.3f}")
    told = []
    for label, some in scores.items():
        mean, low, high = interval(some)
        low, high = (max(0.0, low), min(1.0, high)) if share and len(some) > 1 else (low, high)
        told.append(Drawn(label, tuple(some), mean, low, high, round(seconds[label], 3)))
    return tuple(sorted(told, key=lambda one: one.mean if better == "lower" else -one.mean))


def trained(course: Course, number: int, plan: Plan) -> Generator[Event, None, list[Trial]]:
    """The trials of a plan up to one on training and validation rows alike.

    Where validation has a say in when it ends, it is run on the training rows alone before that.
    """
    settled = plan.optimizer.whole or all(phase.stop or not phase.epochs for phase in plan.phases)
    if settled:
        return [(yield from _finished(course, number, replace(plan, fold="all")))]
    first = yield from _finished(course, number, plan)
    return [first, (yield from _finished(course, number + 1, refitted(first)))]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a few values, and its 95 % interval by Student's t; of one value there is none: it is not a number.

    >>> [round(number, 3) for number in interval([0.5, 0.6, 0.7])]
    [0.6, 0.352, 0.848]
    """
    from scipy.stats import t

    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan, math.nan
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = float(t.ppf(0.975, n - 1)) * spread
    return mean, mean - reach, mean + reach


def _finished(course: Course, number: int, plan: Plan) -> Generator[Event, None, Trial]:
    for event in course.trial(number, plan):
        if isinstance(event, Finished):
            return event.trial
        yield event
    raise AssertionError("a trial ends with its record")
