"""Tell how the plans of a race stand: one line per plan and rung, with its score, what it took, and its state."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from dataclasses import replace

from regraft.engine.predict import share_interval
from regraft.planner.race import Race
from regraft.planner.sizes import planned, reached
from regraft.waist import Epoch, Event, Finished, Plan, Raced, Score, Scored, Standing


def standings(race: Race) -> Generator[Event, None, None]:
    """The events of a race, each after the standings that it changes; then that the race is over."""
    board = _Board(race)
    with contextlib.closing(race.run()) as work:
        for event in work:
            yield from board.before(event)
            yield event
    yield from board.left_out()
    yield Raced()


class _Board:
    """The last standing of each plan that has begun or was left out."""

    def __init__(self, race: Race) -> None:
        self.race, self.rows, self.skipped = race, dict[int, Standing](), 0
        self.now: tuple[int, Plan, int] | None = None
        self.since = time.monotonic()

    def before(self, event: Event) -> Iterator[Standing]:
        """What changes with an event."""
        passed, self.since = time.monotonic() - self.since, time.monotonic()
        if self.now is not None:
            row = self.rows[self.now[0]]
            self.rows[row.number] = replace(row, seconds=row.seconds + passed)
        yield from self.left_out()
        if self.race.running is not None and self.race.running != self.now:
            yield from self._turn(self.race.running)
        if isinstance(event, Scored) and self.now is not None:
            yield self._put(self.now[0], score=self._best(event.epoch))
        if isinstance(event, Finished):
            yield from self._ended(event)

    def left_out(self) -> Iterator[Standing]:
        """Plans that were left out since this was asked last."""
        found = self.race.skipped[self.skipped :]
        self.skipped = len(self.race.skipped)
        for one in found:
            number = self._number(one.plan)
            self.rows.setdefault(number, Standing(number, one.plan.label, 0, "left out"))
            yield self._put(number, state="left out")

    def _turn(self, running: tuple[int, Plan, int]) -> Iterator[Standing]:
        """Another plan runs, or the same one to another rung; the one before is paused, if it has not ended."""
        if self.now is not None and self.rows[self.now[0]].state == "runs":
            yield self._put(self.now[0], state="paused")
        number, plan, rung = self.now = running
        known = self.rows.get(number)
        spent, score = (known.seconds, known.score) if known else (0.0, None)
        forecast_s = spent + self._forecast(number, plan, rung)
        self.rows[number] = Standing(number, plan.label, rung, "runs", spent, forecast_s, score)
        yield self.rows[number]

    def _ended(self, event: Finished) -> Iterator[Standing]:
        """A trial ended: by itself, or because another rate or plan was ahead."""
        trial, number = event.trial, self._number(event.trial.plan)
        score = next((score for score in trial.scores if score.split == "val"), None)
        self.rows.setdefault(number, Standing(number, trial.label, 0, "finished"))
        state = "lost" if trial.stopped else "finished"
        yield self._put(number, state=state, seconds=trial.cost.seconds, score=score or self.rows[number].score)

    def _put(self, number: int, state: str = "", seconds: float | None = None, score: Score | None = None) -> Standing:
        row = self.rows[number]
        row = replace(row, state=state or row.state, score=score or row.score)  # type: ignore[arg-type]
        self.rows[number] = row if seconds is None else replace(row, seconds=seconds)
        return self.rows[number]

    def _best(self, epoch: Epoch) -> Score | None:
        """The best score of the plan that runs: shares have an interval at once, other metrics when the trial ends."""
        assert self.now is not None
        course = self.race.course
        metric, n = course.task.metrics[0], len(course.data.val)
        low, high = share_interval(epoch.metric, n) if metric.proportion else (epoch.metric, epoch.metric)
        made = Score(metric.name, "val", epoch.metric, low, high, n, metric.better)
        held = self.rows[self.now[0]].score
        worse = (
            held is not None and (held.value < made.value) == (metric.better == "lower") and held.value != made.value
        )
        return held if worse else made

    def _forecast(self, number: int, plan: Plan, rung: int) -> float:
        """Seconds that a plan will take to its rung, or to its end."""
        course, pace = self.race.course, self.race.pace
        stages = len(course.view.pooled(plan.reading).stages)
        left = (rung or planned(plan, stages)) - reached(plan, stages, course.curve(number, plan))
        left = min(left, 1) if plan.optimizer.whole else left
        return pace.fixed(plan) + max(0, left) * pace.epoch(plan)

    def _number(self, plan: Plan) -> int:
        """The place of a plan among those of the race; a shortened one has the label that it had."""
        plans = self.race.plans
        if plan in plans:
            return plans.index(plan)
        return next((i for i, one in enumerate(plans) if one.label == plan.label), len(plans))
