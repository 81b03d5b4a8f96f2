"""The line from data to verdict: one step after the other, each a record in the run folder."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from regraft.data.inspect import flags_of, in_words
from regraft.data.open import card as card_of
from regraft.data.open import open_data, sentence
from regraft.deliver.inputs import is_there, safe
from regraft.errors import ModelError, UsageError
from regraft.kit import durable, hardware, places, shelf, store
from regraft.planner.propose import propose
from regraft.planner.request import (
    Source,
    balance_of,
    few_rows,
    find_provider,
    prepare,
    resolved,
    strategies_of,
    zoo_of,
)
from regraft.waist import (
    Account,
    BackboneCard,
    Bad,
    Budget,
    Data,
    DataCard,
    Encoder,
    Event,
    Facts,
    Flag,
    MachineCard,
    Options,
    Plan,
    Row,
    Said,
    Seen,
    Task,
    Trial,
    Verdict,
    fingerprint,
    plain,
)

if TYPE_CHECKING:
    from regraft.backbone.view import View
    from regraft.planner.advise import Advice
    from regraft.planner.clock import Clock
    from regraft.planner.course import Course
    from regraft.planner.draws import Draws
    from regraft.planner.rules import Needs

T = TypeVar("T")
FLAGS = 8
"""So many findings about the data are told when a run begins."""
PASS = {"train": 0.35, "val": 0.1, "test": 0.1}
"""Of the seconds that are left when training could begin: what one pass of the backbone over a split may take."""
FORESEEN = 0.1
"""Of a budget in seconds: what advice before the race may take."""
FEWEST = {"train": 64, "val": 32, "test": 32}
CLOSING_S, OPENING = 4.0, 0.15
"""What is held back for the end: seconds for choosing and reporting, and a share for opening the bundle elsewhere."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: what was tried, the verdict, and where bundle and report lie."""

    folder: Path
    data: DataCard
    trials: tuple[Trial, ...]
    verdict: Verdict
    account: Account
    bundle: Path
    report: Path

    @property
    def winner(self) -> Trial:
        return self.trials[self.verdict.winner]

    def predict(
        self, cells: Any, left_out: list[Bad] | None = None, notes: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """As `Model.predict`, with the run's bundle."""
        from regraft.deliver.model import Model

        return Model.load(self.bundle).predict(cells, left_out, notes)


def finish(work: Generator[Event, None, T]) -> T:
    """Pull events until the work is done; returns what it made."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: T = end.value
            return made


def steps(
    options: Options,
    out: Path,
    *,
    fresh: bool = False,
    resume: Path | None = None,
    data: Any = None,
    model: Any = None,
    begun: float | None = None,
) -> Generator[Event, None, Run]:
    """The whole run as events: `Said` first with what the data is, before torch is imported; returns the run.

    `data` and `model` are the things themselves where the options can only name them; `begun` is when a budget's clock
    began to run, by `time.monotonic()`.
    """
    begun, options = begun or time.monotonic(), resolved(options)
    data = _itself(options.data, data, "data")
    query = _itself(options.model, model, "model")
    source = query if isinstance(query, Source) else Source(query)
    find_provider(source.query)
    if isinstance(source.query, str) and not is_there(Path.exists, source.query):
        _ = source.mark  # a name that is not in the caches fails before data is read
    rows = open_data(data, options.seed, options.reading)
    card = card_of(rows)
    yield Said(sentence(card))
    for note in (*card.notes, *_found(rows.flags)):
        yield Said(note)
    mark = source.mark
    reading = replace(options.reading, val="", test="")  # the data's fingerprint covers them, wherever they lie
    request = replace(options, data=rows.fingerprint, model=mark, reading=reading)
    stem = f"{store.slug(rows.name)}-{store.slug(Path(options.model).name)}"
    path = resume or store.place(out, stem, fingerprint(request), fresh=fresh)
    folder = store.Folder(path)
    if resume is not None and folder.load("request", Options) != request:
        raise UsageError(
            "the data or the model has changed since this run began",
            saw=f"{options.data}, {options.model}",
            allowed="the files that the run began with",
            do="start a new run without --resume",
        )
    if folder.has("verdict"):
        if not (harm := _harm(folder)):
            yield Said(f"this was run before: reading {path}")
            return read_run(path)
        yield Said(f"{harm}: it is made anew")
    prepared = prepare(options, rows, source)  # what the model refuses leaves no folder behind
    known = (path / "options.json").is_file()
    with durable.lock(path / ".lock", f"the run {path}"):
        durable.sweep(path)
        durable.remove(path / "verdict.json")
        folder.write("options", _anywhere(options))
        folder.write("request", request)
        folder.write("data", card)
        durable.write(path / "quarantine.jsonl", _quarantine(rows.bad))
        if source.choice is not None:
            folder.write("choice", source.choice)
        _keep_splits(folder, rows)
        yield Said(f"going on with the run {path}" if known else f"run {path}")
        return (yield from _work(options, rows, folder, prepared, mark, begun, not fresh))


def of_best(
    options: Options,
    out: Path,
    named: Mapping[str, Any],
    zoo: str,
    *,
    fresh: bool = False,
    data: Any = None,
    begun: float | None = None,
) -> Generator[Event, None, Run]:
    """As `steps`, with the best of several models, name → query, and of those in the folder `zoo`.

    Raises: as `steps` and `advice`; ModelError: none of them can be used.
    """
    begun, options = begun or time.monotonic(), resolved(options)
    queries = {**zoo_of(zoo, named), **named}
    rows = open_data(_itself(options.data, data, "data"), options.seed, options.reading)
    from regraft.deliver.chosen import choosing
    from regraft.planner import choose

    choice = yield from choose.choose(options, rows, queries, tuple(named))
    for line in choosing(choice):
        yield Said(line)
    name = choice.best.name
    source = Source(queries[name], choice)
    return (yield from steps(replace(options, model=name), out, fresh=fresh, data=data, model=source, begun=begun))


def forecast(options: Options) -> Generator[Event, None, list[dict[str, Any]]]:
    """What the plans of a request would take, without training or writing anything.

    Returns: For each plan its record, trainable parameters, cache bytes and GFLOP at most.
    """
    options = resolved(options)
    data = yield from _read(options, options.data)
    from regraft.planner import sizes

    facts, course, plans = _opened(options, data, options.model)
    return [sizes.forecast(facts, course, plan) for plan in plans]


def shots(options: Options, draws: int, out: Path) -> Generator[Event, None, Draws]:
    """So many rows of each class, drawn several times over: what each strategy reaches on the test split, and how sure
    that is. The same call again reads the trials that are there.

    Raises: as `steps`; DataError: a class has fewer rows.
    """
    from regraft.data import few

    named = replace(options, strategies=options.strategies or tuple(few_rows()))
    options = resolved(named)
    reading = replace(options.reading, shots=0)
    data = yield from _read(replace(options, reading=reading), options.data)
    facts, course, plans = _opened(options, few.drawn(data, options.reading.shots, options.seed), options.model)
    mark = fingerprint(options, data.fingerprint, facts.backbone.fingerprint)
    stem = f"{store.slug(data.name)}-{store.slug(Path(options.model).name)}-shots"
    path = store.place(out, stem, mark, fresh=False)
    from regraft.planner.draws import Draws, repeat

    def one(number: int) -> tuple[Course, list[Plan]]:
        seed = options.seed + number
        some = few.drawn(data, options.reading.shots, seed)
        return replace(course, data=some, folder=store.Folder(path / f"draw-{number + 1}"), seed=seed), plans

    with durable.lock(path / ".lock", f"the draws {path}"):
        found = yield from repeat(one(number) for number in range(draws))
        metric, test = course.task.metrics[0].name, len(data.test)
        told = Draws(data.name, options.model, options.reading.shots, draws, metric, test, found)
        store.Folder(path).write("shots", told)
    return told


def advice(
    options: Options, needs: Needs, hourly: float, on: str, given: Any, named: Mapping[str, Any], zoo: str = ""
) -> Generator[Event, None, tuple[Facts, Advice]]:
    """What to do about a request, from looking at some of its rows and timing some steps; nothing is written.

    Args:
        hourly: What an hour costs, of this machine or of the card that `on` names.
        given: The data, or what the options call it.
        named: Models, name → query. Of these and of those in the folder `zoo` that can be used the best is taken.
    Raises: UsageError: no such card, no model; it is told before the data is read.
    """
    from regraft.planner import cards

    card = cards.find(on) if on else None
    options, queries = resolved(options), {**zoo_of(zoo, named), **named}
    data = yield from _read(options, given)
    from regraft.planner import advise, choose, price

    choice = (yield from choose.choose(options, data, queries, tuple(named))) if zoo or len(named) > 1 else None
    name = choice.best.name if choice else next(iter(named))
    facts, course, plans = _opened(replace(options, model=name), data, queries[name])
    told = yield from advise.advise(facts, course, plans, needs, price.Rate(hourly), card)
    return facts, replace(told, model=name, choice=choice)


def _read(options: Options, given: Any) -> Generator[Event, None, Data]:
    """The data of a request, which is told."""
    data = open_data(given, options.seed, options.reading)
    card = card_of(data)
    for text in (sentence(card), *card.notes, *_found(data.flags)):
        yield Said(text)
    return data


def _opened(options: Options, data: Data, query: Any) -> tuple[Facts, Course, list[Plan]]:
    """The facts of a request, a course that nothing is written for, and what would run."""
    mark = find_provider(query).fingerprint(query)
    from regraft.planner import survey
    from regraft.planner.course import Course

    view, encoder, task = prepare(options, data, query)
    machine = survey.machine(view, data, encoder, options.precision)
    facts = Facts(card_of(data), survey.backbone(view, mark), machine)
    course = Course(view, data, task, encoder, machine, store.Folder(Path()), options.seed)
    return facts, course, _plans(facts, options, task, balance_of(options, data, task))


def _work(
    options: Options,
    data: Data,
    folder: store.Folder,
    prepared: tuple[View, Encoder, Task],
    mark: str,
    begun: float,
    takes: bool,
) -> Generator[Event, None, Run]:
    """From the data to the verdict; everything here may import torch."""
    from regraft.deliver import ship
    from regraft.planner import survey
    from regraft.planner.around import around
    from regraft.planner.clock import Clock
    from regraft.planner.course import Course
    from regraft.planner.energy import WATTS
    from regraft.planner.race import Race

    clock = Clock(folder, options.budget.seconds, begun, options.budget.kwh)
    view, encoder, task = prepared
    body = folder.step("backbone", BackboneCard, lambda: survey.backbone(view, mark), mark)
    machine = folder.step("machine", MachineCard, lambda: survey.machine(view, data, encoder, options.precision), mark)
    hardware.settle(machine.threads)
    clock.energy.watts = machine.watts or WATTS * machine.threads
    clock.opening_s = time.monotonic() - begun  # another process opens the bundle: it imports the same
    clock.reserve_s = CLOSING_S + min(clock.opening_s, OPENING * clock.whole())
    if clock.bounded:
        limits = folder.step("limits", dict[str, int], lambda: _limits(clock.left(), machine, data), mark)
        data, notes = _affordable(data, limits, options)
        for note in notes:
            yield Said(note)
        _keep_splits(folder, data)
    seen = Seen(data, shelf.find("modalities", data.modality).NOUN, inputs=view.inputs, encoder=encoder)
    more = flags_of(seen, "backbone")
    folder.write("flags", [*data.flags, *more])
    for note in _found(more):
        yield Said(note)
    cells = [row.cell for rows in (data.train, data.val, data.test) for row in rows]
    for note in (*body.notes, *machine.notes, *encoder.told(cells)):
        yield Said(note)
    if machine.processor != hardware.processor():
        yield Said(f"this run began on {machine.processor}: from here on its last bits may differ")
    facts = Facts(card_of(data), body, machine)
    balance = balance_of(options, data, task)
    plans = folder.step("plans", list[Plan], lambda: _plans(facts, options, task, balance), facts, options, balance)
    if balance:
        yield Said(
            f"labels are far from equally frequent: rare ones weigh more in training, {task.metrics[0].name} decides "
            "(--balance none, --metric)"
        )
    course = Course(view, data, task, encoder, machine, folder, options.seed, options.cache, mark=mark, takes=takes)
    course.settle()
    if options.advice:
        yield from _foresee(facts, course, plans, clock)
    rare = options.balance == "auto"
    beside = lambda plan: around(plan, facts, options.knobs)  # noqa: E731
    race = Race(course, plans, options.budget, clock, named=bool(options.strategies), rare=rare, around=beside)
    packed = yield from ship.lead(race, body.name)
    yield from ship.end(race, options, body, packed)
    return read_run(folder.path)


def _plans(facts: Facts, options: Options, task: Task, balance: float) -> list[Plan]:
    """What runs: the plans of the strategies, and under a clock the two cheapest of all first.

    These are a model that needs no network and one that trains nothing: usable within seconds, and what any other plan
    must beat.
    """
    from regraft.engine.losses import refuse

    raced = not options.strategies or options.budget != Budget()
    plans = propose(facts, strategies_of(options), options.knobs, balance, raced)
    if options.strategies and (options.budget.seconds or options.budget.kwh):
        every = propose(facts, strategies_of(replace(options, strategies=())), (), balance, raced=True)
        first = [next((p for p in every if p.init == init), None) for init in ("plain", "pretrained")]
        plans = [p for p in first if p is not None and p not in plans] + plans
    for plan in plans:
        refuse(plan, task)
    return plans


def _foresee(facts: Facts, course: Course, plans: list[Plan], clock: Clock) -> Generator[Event, None, None]:
    """Advice before the race, as a step of the run; left out where it would take too much of a budget in seconds."""
    from regraft.planner import advise
    from regraft.planner.rules import Needs

    needs = Needs(seconds=clock.allowed_s)
    found = course.folder.made("advice", advise.Advice, facts, plans, needs)
    if found is None:
        need_s = advise.takes(course, plans)
        if clock.allowed_s and need_s > FORESEEN * clock.allowed_s:
            yield Said(f"no advice: it takes about {need_s:.0f} s, more than {FORESEEN:.0%} of {clock.allowed_s:.0f} s")
            return
        found = yield from advise.advise(facts, course, plans, needs)
        course.folder.write("advice", found, fingerprint(facts, plans, needs))
    yield Said(f"advice: {found.way}, begin with {found.first.label}: {found.why}")


def _limits(left_s: float, machine: MachineCard, data: Data) -> dict[str, int]:
    """The most rows of each split that one pass of the backbone may take; all of them where they fit together."""
    sizes = {name: len(getattr(data, name)) for name in PASS}
    if sum(sizes.values()) * machine.forward_s <= sum(PASS.values()) * left_s:
        return sizes
    return {name: max(FEWEST[name], int(share * left_s / machine.forward_s)) for name, share in PASS.items()}


def _affordable(data: Data, limits: Mapping[str, int], options: Options) -> tuple[Data, tuple[str, ...]]:
    """The data, cut where one pass over it would take too much of the seconds there are; what was cut is said."""
    from regraft.data.split import thin
    from regraft.deliver.story import budget_words

    def some(name: str) -> Sequence[Row]:
        rows: Sequence[Row] = getattr(data, name)
        limit = max(limits[name], 2 * len(data.target.labels) if name == "train" else 0)
        return thin(rows, limit, options.seed, cover=name == "train") if len(rows) > limit else rows

    less = replace(data, train=some("train"), val=some("val"), test=some("test"))
    sizes = {name: (len(getattr(less, name)), len(getattr(data, name))) for name in PASS}
    if all(used == there for used, there in sizes.values()):
        return data, ()
    told = ", ".join(f"{used:,} of {there:,} {name} rows" for name, (used, there) in sizes.items() if used < there)
    return less, (f"{' or '.join(budget_words(options.budget))} do not suffice to read all rows once: {told} are used",)


def read_run(path: Path) -> Run:
    """A finished run from its folder.

    Raises: UsageError: it is not finished.
    """
    folder = store.Folder(path)
    verdict = folder.load("verdict", Verdict)
    trials = tuple(folder.load("trials", list[Trial]))
    card, account = folder.load("data", DataCard), folder.load("account", Account)
    return Run(path, card, trials, verdict, account, path / "bundle", path / "report.html")


def _itself(named: str, thing: Any, what: str) -> Any:
    """What a request is about: the thing that was handed over, or what its options name.

    Raises: UsageError: it was in memory then, and is not handed over now.
    """
    if thing is None and named.startswith("<"):
        raise UsageError(
            f"the {what} of this run was in memory",
            saw=named,
            allowed="a path on the command line",
            do="call regraft.adapt in Python again with the same data and model: it goes on with the run",
        )
    return named if thing is None else thing


def _harm(folder: store.Folder) -> str:
    """What of a finished run is no longer what was written, in words; "" where all is."""
    from regraft.backbone import bundle as bundles

    if path := folder.damaged():
        return f"{path} was changed or is damaged"
    try:
        if (folder.path / "bundle").is_symlink():
            bundles.read(folder.path / "bundle")
    except ModelError as error:
        return f"{error.what} ({error.saw})"
    return ""


def _found(flags: Sequence[Flag]) -> list[str]:
    """Findings about the data in a few lines, warnings first; the report has all of them."""
    from regraft.deliver.story import brief

    more = len(flags) - FLAGS
    short = [replace(flag, examples=tuple(brief(one) for one in flag.examples)) for flag in flags[:FLAGS]]
    told = [("warning: " if flag.status == "warn" else "") + in_words(flag) for flag in short]
    return [*told, f"{more} more findings about the data in the report"] if more > 0 else told


def _anywhere(options: Options) -> Options:
    """The request with paths that mean the same from every folder, so that a run may be resumed from another one."""

    def absolute(path: str) -> str:
        return str(Path(path).resolve()) if path and places.exists(Path(path)) else path

    reading = replace(options.reading, val=absolute(options.reading.val), test=absolute(options.reading.test))
    return replace(options, data=absolute(options.data), model=absolute(options.model), reading=reading)


def _quarantine(bad: Sequence[Bad]) -> bytes:
    """What was left out, a line each."""
    return "".join(json.dumps(plain(one), ensure_ascii=False) + "\n" for one in bad).encode("utf-8", "surrogatepass")


def _keep_splits(folder: store.Folder, data: Data) -> None:
    """Write which row is in which split; the run vouches for it, as nothing else in the file does."""
    durable.write(folder.path / "splits.csv", _splits(data))
    folder.vouch("splits.csv", "quarantine.jsonl")


def _splits(data: Data) -> bytes:
    file = io.StringIO()
    sheet = csv.writer(file)
    more = (["group"] if any(row.group for row in data.train) else []) + list(data.sensitive)
    sheet.writerow(["id", "split", data.target.name, "sha256", *more])
    for name in ("train", "val", "test"):
        for row in getattr(data, name):
            y = json.dumps(row.y, ensure_ascii=False) if isinstance(row.y, tuple) else str(row.y)
            facets = ([row.group] if len(more) > len(data.sensitive) else []) + list(row.facets)
            sheet.writerow(
                [safe(row.id), name, y if data.target.kind == "number" else safe(y), row.key, *map(safe, facets)]
            )
    return file.getvalue().encode("utf-8", "surrogatepass")
