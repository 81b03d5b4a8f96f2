"""What a race makes of its leader at the end: other knobs, close to its start, averages, a part of the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from regraft.errors import NoMemory
from regraft.planner.blend import SHARES, blend
from regraft.planner.closer import closer
from regraft.planner.pick import lowest
from regraft.planner.sizes import RUNG, planned, reached, through
from regraft.planner.soup import mates, soup
from regraft.waist import Event, Finished, Plan, Said, Trial

if TYPE_CHECKING:
    from regraft.planner.race import Race

More = tuple[float, Iterator[Event]]
"""What a piece of work needs in seconds, and its events."""


def after(race: Race) -> Iterator[Event]:
    """Where the leader tuned the network: other knobs; held close to its start; averages; a part of the way."""
    yield from _extra(race, "around", "tried with other knobs", _around)
    yield from _extra(race, "closer", "trained again close to its start", _closer)
    yield from _extra(race, "souped", "averaged with other trials", _soup)
    yield from _extra(race, "between", "interpolated with the pretrained weights", _between)


def _extra(race: Race, name: str, what: str, more: Callable[[Race, Trial], More | None]) -> Iterator[Event]:
    """More of a leader that tuned the network, if trials and the clock allow it."""
    if race.named or race.nothing_yet() or (race.budget.trials and len(race.trials) >= race.budget.trials):
        return
    lead = race.trials[race.field().lead()]
    if lead.plan.init != "pretrained" or not through(lead.plan, race.stages(lead.plan)):
        return
    if (made := more(race, lead)) is None:
        return
    need_s, work = made
    fits = lambda: need_s <= race.clock.left()  # noqa: E731
    if race.clock.bounded and not race.course.folder.step(name, bool, fits, lead.plan):
        yield Said(f"{lead.label} is not {what}: the clock does not allow it")
        return
    try:
        yield from work
    except NoMemory as error:
        yield Said(f"{lead.label} is not {what}: {error.what}")


def _around(race: Race, lead: Trial) -> More | None:
    """The leader's strategy with other knobs, to a third of its epochs; the best goes on if it is ahead there."""
    stages = race.stages(lead.plan)
    epochs, known = planned(lead.plan, stages), [trial.plan for trial in race.trials]
    if epochs < RUNG:
        return None
    rung, found = math.ceil(epochs / RUNG), [plan for plan in race.around(lead.plan) if plan not in known]
    if race.budget.trials:
        found = found[: race.budget.trials - len(race.trials)]
    if race.budget.epochs:
        found = found[: max(0, (race.budget.epochs - race.account.epochs - epochs + rung) // rung)]
    if not found:
        return None
    need_s = sum(race.pace.fixed(plan) + rung * race.pace.epoch(plan) for plan in found)
    return need_s + (epochs - rung) * race.pace.epoch(lead.plan), _rivals(race, found, lead, rung)


def _rivals(race: Race, found: list[Plan], lead: Trial, rung: int) -> Iterator[Event]:
    """Run plans against a leader's first epochs; those that were not ahead of it there are stopped."""
    stages, begin = race.stages(lead.plan), len(race.plans)
    long_enough = (i for i in range(1, len(lead.curve)) if reached(lead.plan, stages, lead.curve[:i]) >= rung)
    least = lowest(lead.curve[: next(long_enough, len(lead.curve))])
    race.plans += found
    race.course.trunks.expect(found)
    family = list(enumerate(found, begin))
    for entry in family:
        yield from race.rung(entry, rung)
    begun = {entry: curve for entry in family if entry[0] not in race.diverged and (curve := race.curve(entry))}
    for entry in [entry for entry in family if entry not in begun and entry[0] not in race.diverged]:
        yield from race.end(entry, "the clock ended it")
    best = min(begun, key=lambda entry: lowest(begun[entry]), default=None)
    ahead = best if best is not None and lowest(begun[best]) < least else None
    for entry in [entry for entry in begun if entry != ahead]:
        other = ahead[1] if ahead else lead.plan
        yield from race.lost(entry, f"{other.label} was ahead after {len(begun[entry])} epochs")
    if ahead is not None:
        yield from race.whole(ahead)


def _closer(race: Race, lead: Trial) -> More | None:
    """The leader's plan with regularisers, where rows are few."""
    spent = race.account.epochs
    plan = closer(race.course, lead.plan, spent, race.budget.epochs - spent if race.budget.epochs else spent)
    if plan is None:
        return None
    epochs = planned(plan, race.stages(plan))
    return race.pace.fixed(plan) + epochs * race.pace.epoch(plan), _once_more(race, plan)


def _once_more(race: Race, plan: Plan) -> Iterator[Event]:
    race.plans.append(plan)
    yield from race.whole((len(race.plans) - 1, plan))


def _soup(race: Race, lead: Trial) -> More | None:
    some = mates(race.course, race.trials, lead)
    if len(some) < 2:
        return None
    return (len(some) + 1) * race.pace.closing(lead.plan), _noted(race, soup(race.course, len(race.plans), some))


def _between(race: Race, lead: Trial) -> More:
    need_s = (len(SHARES) + 1) * race.pace.closing(lead.plan)
    return need_s, _noted(race, blend(race.course, len(race.plans), lead))


def _noted(race: Race, work: Iterator[Event]) -> Iterator[Event]:
    for event in work:
        if isinstance(event, Finished):
            race.plans.append(event.trial.plan)
        yield from race.note(event)
