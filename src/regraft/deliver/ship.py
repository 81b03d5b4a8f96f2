"""Race, choose, refit, question, pack and report: what leads is packed on the way, and what is refused never ships."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from dataclasses import replace

from regraft.audit.gate import gate, substitutes
from regraft.audit.gather import audit, baselines
from regraft.backbone import bundle as bundles
from regraft.deliver import examine, native, page, report, story
from regraft.deliver.pack import attempt, pack
from regraft.deliver.words import budget_words
from regraft.errors import UsageError
from regraft.kit import durable
from regraft.planner.blend import along, source
from regraft.planner.pick import Field, pick
from regraft.planner.race import Race
from regraft.planner.sizes import refitted
from regraft.planner.standing import standings
from regraft.waist import BackboneCard, Comparison, Event, Finished, Options, PhaseDone, Said, Scored, Verdict

UNTRIED = "packing the bundle; the clock does not allow opening it in a fresh process, so regraft alone reads it back"
LOGGED = (Said, Scored, PhaseDone, Finished)


def lead(race: Race, base: str) -> Generator[Event, None, int]:
    """Run the race; whenever another trial leads, its model is packed, so that a usable one is there at any time.

    Returns: The trial that was packed last, -1 for none.
    """
    course, packed = race.course, -1
    with contextlib.closing(standings(race)) as work:  # what fails here ends the race here, too: it saves what it has
        for event in work:
            if isinstance(event, LOGGED):
                course.folder.log(type(event).__name__, event)
            yield event
            if isinstance(event, Finished) and event.trial.whole and len(race.plans) > 1:
                ahead = _field(race).lead()
                if ahead != packed:
                    since = time.monotonic()
                    pack(course, race.trials[ahead], base, tried=False)
                    packed = ahead
                    race.clock.packing(time.monotonic() - since)
    return packed


def end(race: Race, options: Options, body: BackboneCard, packed: int) -> Generator[Event, None, None]:
    """Choose, refit, question, pack and report; the trial at `packed` lies in a bundle that is to be tried.

    Raises: UsageError: no trial came to an end within the budget.
    """
    course, folder, trials = race.course, race.course.folder, race.trials
    if not any(trial.whole for trial in trials):
        raise UsageError(
            "the budget was too small for a single trial",
            saw=f"{race.clock.spent():.0f} s spent, of {' or '.join(budget_words(options.budget))}",
            allowed="a budget in which one plan can be run",
            do=f"regraft adapt --resume {folder.path} goes on once; or choose a larger --budget",
        )
    winner, rule, compared = pick(trials, course.task, course.data, folder.path, course.seed)
    if options.refit == "all":
        winner = yield from _refit(race, winner)
    verdict = _judged(race, winner, rule, compared)
    if verdict.decision == "refuse":
        verdict = yield from _instead(race, verdict)
    winner = verdict.winner
    tried = race.clock.allows(race.clock.opening_s)
    yield Said("packing the bundle and opening it in a fresh process" if tried else UNTRIED)
    if winner != packed:
        pack(course, trials[winner], body.name, tried)
    elif tried:
        attempt(course, trials[winner])
    if note := native.untried(bundles.read(folder.path / "bundle").opening):
        yield Said(note)
    _tell(race, verdict)


def _judged(race: Race, winner: int, rule: str, compared: tuple[Comparison, ...]) -> Verdict:
    """What the gate says of a trial."""
    task, data, trials = race.course.task, race.course.data, race.trials
    findings = audit(task, data, trials, winner, race.course.folder.path, race.course.seed)
    return gate(trials, winner, rule, baselines(task, data), findings, compared)


def _instead(race: Race, refused: Verdict) -> Generator[Event, None, Verdict]:
    """The verdict on the first substitute that nothing refuses, otherwise the one that was given."""
    trials, field = race.trials, _field(race)
    loser, rule = trials[refused.winner], "the best on validation of what trains less, or differs in its start"
    yield Said(f"{loser.label} is refused: {refused.against}")
    for i in substitutes(trials, refused.winner):
        found = _judged(race, i, rule, tuple(field.compare(i, j) for j in field.values if j != i))
        if found.decision != "refuse":
            told = f"{trials[i].label} in place of {loser.label}, which was refused: {refused.against}"
            yield Said(f"fell back: {trials[i].label} ships in its place")
            return replace(found, decision="fall back", fallback=told)
        yield Said(f"{trials[i].label} does not ship in its place: {found.against}")
    return refused


def _field(race: Race) -> Field:
    course = race.course
    return Field(race.trials, course.task, course.data, course.folder.path, course.seed)


def _refit(race: Race, winner: int) -> Generator[Event, None, int]:
    """Train the winner once more on training and validation rows, as long as it was best; returns its place.

    What validation said of it is taken over: it chose the plan, and its rows are among those trained on now.
    """
    course, chosen = race.course, race.trials[winner]
    tuned, share = source(race.trials, chosen)
    if "soup" in dict(tuned.plan.knobs):
        yield Said(f"not fitted again on all rows: {tuned.label} is the mean of several trials")
        return winner
    plan, number = refitted(tuned), len(race.plans)
    if race.clock.left() < chosen.cost.seconds:
        yield Said("not fitted again on all rows: the clock does not allow it")
        return winner
    yield Said(f"fitting {chosen.label} again, on validation rows too")
    for event in course.trial(number, plan):
        if isinstance(event, Finished):
            made = event.trial if share == 1 else along(course, number, event.trial, share)
            scores = [s for s in chosen.scores if s.split == "val"] + [s for s in made.scores if s.split != "val"]
            note = "validation was scored before it was fitted again on validation rows too"
            held = replace(made, scores=tuple(scores), calibration=chosen.calibration, notes=(note,))
            race.trials.append(held)
            course.folder.log("Finished", Finished(held))
            yield Finished(held)
        else:
            yield event
    return len(race.trials) - 1


def _tell(race: Race, verdict: Verdict) -> None:
    """Write what the run ends with: its records, then the pages made of them."""
    course, folder = race.course, race.course.folder
    made = course.outputs(race.trials[verdict.winner], "test")
    if verdict.decision == "refuse":
        durable.remove(folder.path / "bundle")
    folder.write("examined", examine.examine(course.task, course.data, made))
    folder.write("account", race.account)
    folder.write("trials", race.trials)
    race.clock.tick(now=True)
    told = story.read(folder.path, verdict)
    durable.write(folder.path / "report.md", report.write_report(told).encode("utf-8", "surrogatepass"))
    durable.write(folder.path / "report.html", page.write_page(told).encode("utf-8", "surrogatepass"))
    folder.write("verdict", verdict)
