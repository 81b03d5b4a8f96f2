"""Race plans under a budget: the cheapest first, several rates each, losers stopped early, everything kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence

from regraft.engine.predict import share_interval
from regraft.errors import Diverged
from regraft.planner.after import after
from regraft.planner.arms import RARE, arms, uneven, wrong_labels
from regraft.planner.clock import Clock
from regraft.planner.course import Course
from regraft.planner.energy import KWH
from regraft.planner.families import families
from regraft.planner.pick import Field, lowest
from regraft.planner.rules import NOISY
from regraft.planner.saved import saved
from regraft.planner.sizes import RUNG, Pace, Turn, planned, reached, sized, through
from regraft.waist import Account, Budget, Epoch, Event, Filled, Finished, Plan, Said, Scored, Skipped, Trial

Entry = tuple[int, Plan]
AFTER_S = 3.0
"""Choosing, packing and reporting after the last trial, beside what packing was seen to take."""
SURE = 0.98
"""A score of 1 ends the race where its interval lies above this: from about 200 validation rows on."""


class Race:
    """One race: `run` yields the events of all trials; then `trials` and `account` say what came of it.

    Which plans run, how long and in which order follows from the plans, the budget and validation scores. Only a budget
    in seconds or energy asks the clock; what the clock decided is written down before it is done, so that a killed race
    goes on as it began.

    Args:
        plans: What was proposed, the rates of a kind with the most promising first.
        named: The plans were asked for: none is left out because it cannot win, none stopped because it is behind.
        rare: Nobody has said how rare classes are dealt with: where that matters the best plan is tried in other ways.
        around: The plans that are tried around a leader.
    `running` is what runs or ran last: its number, the plan, and the epoch to which it runs, 0 for its end.
    """

    def __init__(
        self,
        course: Course,
        plans: Sequence[Plan],
        budget: Budget,
        clock: Clock,
        named: bool,
        rare: bool = False,
        around: Callable[[Plan], list[Plan]] = lambda _: [],
    ) -> None:
        self.course, self.budget, self.clock, self.named = course, budget, clock, named
        self.around = around
        self.rare = rare and not named and uneven(course.data.target, course.task)
        self.plans = list(plans)
        self.trials: list[Trial] = []
        self.skipped: list[Skipped] = []
        self.pace = Pace(course)
        self.running: tuple[int, Plan, int] | None = None
        self.diverged: dict[int, Diverged] = {}
        self._seen: dict[int, Trial] = {}

    def run(self) -> Generator[Event, None, None]:
        """Family by family, in the order of the plans. The last event of each trial is `Finished`.

        Raises: Diverged: every plan that was run ended with a loss that is no number; one of several is left out.
        """
        with self.course.waiting():
            yield from self._all()

    def _all(self) -> Iterator[Event]:
        self.course.trunks.expect(self.plans)
        waiting = families(self.plans, self.budget.trials)
        kept = {number for family in waiting for number, _ in family}
        late = [plan for number, plan in enumerate(self.plans) if number not in kept]
        yield from self._skip([Skipped(plan, f"not among the first {self.budget.trials} trials") for plan in late])
        yield from self._families(waiting, len(RARE) if self.rare else 0)
        yield from self._arms()
        yield from self.after()
        if self.diverged and self.nothing_yet():
            raise next(iter(self.diverged.values()))

    def after(self) -> Iterator[Event]:
        """What is made of the leader."""
        yield from after(self)

    def _families(self, waiting: list[list[Entry]], later: int) -> Iterator[Event]:
        """Family after family, each with its share of what is left; so many more come `later`."""
        while waiting:
            family = waiting.pop(0)
            if why := self._pointless(family[0][1]):
                yield from self._skip([Skipped(plan, why) for _, plan in family])
                continue
            turn = self._turn(family, len(waiting) + 1 + later)
            yield from self._skip(turn.skipped)
            yield from self._family(list(zip(turn.numbers, turn.plans, strict=True)))
            self.clock.tick(now=True)

    def _arms(self) -> Iterator[Event]:
        """Train the best plan that trains something again, for rare classes and wrong labels, where there are such."""
        if self.named or self.nothing_yet():
            return
        field, wrong = self.field(), wrong_labels(self.course, self.trials)
        ways = {i: arms(self.trials[i].plan, self.course.task, self.rare, wrong) for i in field.values}
        able = [i for i in ways if ways[i]]
        left = max(0, self.budget.trials - len(self.trials)) if self.budget.trials else len(RARE) + 1
        if not able or not left:
            return
        lead = max(able, key=lambda i: field.values[i])
        found, begin = ways[lead][:left], len(self.plans)
        why = ["classes are far apart in size"] if self.rare else []
        why += [f"about {wrong:.0%} of the labels look wrong"] if wrong >= NOISY else []
        count = f"{len(found)} other way{'s' * (len(found) > 1)}"
        yield Said(f"{' and '.join(why)}: {self.trials[lead].label} is trained again in {count}")
        self.plans += found
        self.course.trunks.expect(found)
        yield from self._families([[entry] for entry in enumerate(found, begin)], 0)

    @property
    def account(self) -> Account:
        """How the budget was spent."""
        splits = {name: len(getattr(self.course.data, name)) for name in ("train", "val", "test")}
        return Account(
            budget=self.budget,
            seconds=round(self.clock.spent(), 1),
            trials=len(self.trials),
            epochs=sum(reached(t.plan, n, t.curve) for t in self.trials if through(t.plan, n := self.stages(t.plan))),
            rows=tuple(splits.items()),
            skipped=tuple(self.skipped),
            saved=saved(self.course, self.trials),
            kwh=round(self.clock.energy.spent() / KWH, 9),
            metered=self.clock.energy.metered,
        )

    def _turn(self, family: list[Entry], families_left: int) -> Turn:
        """The family's plans, cut to what of the budget is theirs; what a clock decides is kept in the run."""
        plan, stages = family[0][1], self.stages(family[0][1])
        if self.budget.epochs and through(plan, stages):
            left = self.budget.epochs - self.account.epochs
            share = self._share(left, families_left, 1.0)
            return sized(family, stages, share, f"{left} epochs of {self.budget.epochs} were left for it")
        if not self.clock.bounded:
            return Turn(tuple(n for n, _ in family), tuple(p for _, p in family))

        def measured() -> Turn:
            epoch_s, fixed_s, left = self.pace.epoch(plan), self.pace.fixed(plan), self.clock.left()
            share = self._share(left, families_left, 3 * epoch_s + fixed_s)
            why = (
                f"it takes about {fixed_s:.0f} s and {epoch_s:.1f} s an epoch, and of {max(0.0, left):.0f} s that are "
                f"left its share is {max(0.0, share):.0f} s"
            )
            if not planned(plan, stages) and fixed_s <= left:  # it trains nothing
                return Turn(tuple(n for n, _ in family), tuple(p for _, p in family))
            turn = sized(family, stages, max(0.0, share - fixed_s) / max(epoch_s, 1e-6), why)
            if turn.plans or not self._must(plan, fixed_s):
                return turn
            return Turn(family[0][:1], family[0][1:], tuple(Skipped(other, why) for _, other in family[1:]))

        name = f"turns/{family[0][0] + 1}"
        return self.course.folder.step(name, Turn, measured, [plan for _, plan in family])

    def _share(self, left: float, families_left: int, least: float) -> float:
        """What of the rest goes to the next family: an even share, or more where it needs that to start at all."""
        even = left / families_left
        return max(even, min(least, 0.6 * left)) if families_left > 1 else left

    def _family(self, family: list[Entry]) -> Iterator[Event]:
        """Run the rates of one family against each other to a rung, then the best one to its end."""
        epochs = max((planned(plan, self.stages(plan)) for _, plan in family), default=0)
        if epochs >= RUNG and (len(family) > 1 or not self.named):
            for entry in family:
                yield from self.rung(entry, math.ceil(epochs / RUNG))
            family = [entry for entry in family if entry[0] not in self.diverged]
            begun = {entry: curve for entry in family if (curve := self.curve(entry))}
            for entry in [entry for entry in family if entry not in begun]:
                yield from self.end(entry, "the clock ended it")
            if not begun:
                return
            best = min(begun, key=lambda entry: lowest(begun[entry]))
            for entry in [entry for entry in begun if entry != best]:
                yield from self.lost(entry, f"{best[1].label} was ahead after {len(begun[entry])} epochs")
            family = [best]
        for entry in family:
            if why := self._behind(entry):
                yield from self.end(entry, why)
                continue
            yield from self.whole(entry)

    def whole(self, entry: Entry) -> Iterator[Event]:
        """Run a plan to its end, or to where the clock ends it."""
        yield from self.pull(entry, 0)
        if entry[0] not in self.diverged and self.course.finished(*entry) is None:
            yield from self.end(entry, "the clock ended it")

    def rung(self, entry: Entry, rung: int) -> Iterator[Event]:
        """Run a plan to `rung` epochs, or look up what these came to in another run: a loser is not run again."""
        number, plan = entry
        stages = self.stages(plan)
        begun = bool(self.course.curve(number, plan))
        seen = None if begun else self.course.earlier.begun(plan, lambda curve: reached(plan, stages, curve) >= rung)
        if seen is None:
            yield from self.pull(entry, rung)
        else:
            self._seen[number] = seen

    def curve(self, entry: Entry) -> tuple[Epoch, ...]:
        """The epochs of a plan that has begun, here or, to its rung, in another run."""
        curve = self.course.curve(*entry)
        return self._seen[entry[0]].curve if not curve and entry[0] in self._seen else curve

    def pull(self, entry: Entry, rung: int) -> Iterator[Event]:
        """Run a plan to its end, to `rung` epochs, or until the clock says stop; a paused one keeps a snapshot."""
        number, plan = entry
        curve, stages = list(self.course.curve(number, plan)), self.stages(plan)
        if rung and (self.course.finished(number, plan) or reached(plan, stages, curve) >= rung):
            return
        self.running = number, plan, rung
        yield Said(f"{number + 1}/{len(self.plans)} {plan.label}{' goes on' if curve else ''}")
        closing = self.pace.closing(plan)
        self.clock.reserve_s += closing
        work, since, fresh = self.course.trial(number, plan), self.clock.now(), True
        try:
            for event in work:
                yield from self.note(event)
                self.clock.tick()
                if isinstance(event, Filled):
                    self.pace.ran(plan, event, self.clock.now() - since)
                if isinstance(event, Scored):
                    curve.append(event.epoch)
                    if not fresh:
                        self.pace.learn(plan, event.epoch, self.clock.now() - since)
                    fresh, since = False, self.clock.now()
                    if rung and reached(plan, stages, curve) >= rung:
                        break
                if self.clock.left() <= 0 and not isinstance(event, Finished) and not self._must(plan, closing):
                    break
        except Diverged as error:
            self.diverged[number] = error
            yield from self._skip([Skipped(plan, error.what)])
        finally:
            work.close()
            self.pace.filled(plan)
            self.clock.reserve_s -= closing

    def note(self, event: Event) -> Iterator[Event]:
        if isinstance(event, Finished):
            if any(trial.plan == event.trial.plan for trial in self.trials):
                return
            self.trials.append(event.trial)
        yield event

    def end(self, entry: Entry, why: str) -> Iterator[Event]:
        """End a paused trial with its best epoch; one that has none was not run."""
        held = self.course.finished(*entry)
        if held is None and not self.course.curve(*entry) and (seen := self._seen.get(entry[0])):
            held = self.course.taken(*entry, seen.curve, why)
            yield from self.pull(entry, reached(entry[1], self.stages(entry[1]), seen.curve)) if held is None else ()
        if held is None and not self.course.curve(*entry):
            yield from self._skip([Skipped(entry[1], f"{why} before its first epoch")])
            return
        yield from self.note(Finished(held or self.course.conclude(*entry, why)))

    def lost(self, entry: Entry, why: str) -> Iterator[Event]:
        """End a trial that lost to another rate; one that had ended by itself stays what it is."""
        yield from self.note(Finished(self.course.stop(*entry, why, self._seen.get(entry[0]))))

    def _skip(self, some: Sequence[Skipped]) -> Iterator[Event]:
        self.skipped += some
        for why in dict.fromkeys(one.why for one in some):
            yield Said(f"left out: {', '.join(one.plan.label for one in some if one.why == why)}: {why}")

    def _pointless(self, plan: Plan) -> str:
        """Why a plan cannot win any more, "" where it can: nothing beats a model that is right on every one of many.

        The same network from random weights is run all the same: it says what the pretrained ones were good for.
        """
        if self.named or self.nothing_yet():
            return ""
        field = self.field()
        leader = self.trials[field.lead()]
        perfect = field.metric.better == "higher" and field.values[field.lead()] >= 1.0
        if (
            not perfect
            or share_interval(1.0, field.n)[0] < SURE
            or (plan.init != "pretrained" and leader.plan.init != "plain")
        ):
            return ""
        return f"{leader.label} is right on all {field.n} validation rows: nothing can be better there"

    def _behind(self, entry: Entry) -> str:
        """Why a paused trial is ended: the interval of its best share lies below that of the leader's share."""
        curve, metric = self.curve(entry), self.course.task.metrics[0]
        if self.named or not curve or not metric.proportion or self.nothing_yet():
            return ""
        field = self.field()
        best, lead = max(epoch.metric for epoch in curve), self.trials[field.lead()]
        high, low = share_interval(best, field.n)[1], share_interval(field.values[field.lead()], field.n)[0]
        if high >= low or lead.plan == entry[1]:
            return ""
        told = f"{metric.name} {best:.3f} (at most {high:.3f}) after {len(curve)} epochs"
        return f"{told} was behind {lead.label} (at least {low:.3f})"

    def nothing_yet(self) -> bool:
        """Whether there is no usable model so far: the first one is made whatever the clock says."""
        return not any(trial.whole for trial in self.trials)

    def _must(self, plan: Plan, need_s: float) -> bool:
        """Whether a plan runs though nothing is left for it: the first model of all, and the first of a pretrained
        network as long as the promise can be kept, if it still needs so many seconds.
        """
        known = {trial.plan.init for trial in self.trials if trial.whole}
        first = plan.init == "pretrained" and "pretrained" not in known
        return not known or (first and self.clock.allows(need_s + self.clock.packing_s + AFTER_S))

    def field(self) -> Field:
        course = self.course
        return Field(self.trials, course.task, course.data, course.folder.path, course.seed)

    def stages(self, plan: Plan) -> int:
        return len(self.course.view.pooled(plan.reading).stages)
