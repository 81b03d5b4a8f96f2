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

from regraft.ahead import called, findings, planned, with_unlabelled
from regraft.data.inspect import flags_of
from regraft.data.open import card as card_of
from regraft.data.open import open_data, sentence
from regraft.deliver.inputs import is_there, safe
from regraft.errors import ModelError, UsageError
from regraft.kit import durable, hardware, places, shelf, store
from regraft.planner.request import (
    Source,
    balance_of,
    find_provider,
    prepare,
    resolved,
    zoo_of,
)
from regraft.waist import (
    Account,
    BackboneCard,
    Bad,
    Data,
    DataCard,
    Encoder,
    Event,
    Facts,
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
    from regraft.planner.clock import Clock
    from regraft.planner.course import Course

T = TypeVar("T")
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
    rows = with_unlabelled(open_data(data, options.seed, options.reading), options)
    card = card_of(rows)
    yield Said(sentence(card))
    for note in (*card.notes, *findings(rows.flags)):
        yield Said(note)
    mark = source.mark
    reading = replace(options.reading, val="", test="", unlabelled="")  # the data's fingerprint covers them
    request = replace(options, data=rows.fingerprint, model=mark, reading=reading)
    stem = f"{store.slug(rows.name)}-{store.slug(Path(options.model).name)}"
    path = resume or store.place(out, stem, called(request), fresh=fresh)
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
    from regraft.deliver import native, ship
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
    for note in findings(more):
        yield Said(note)
    cells = [row.cell for rows in (data.train, data.val, data.test) for row in rows]
    for note in (*body.notes, *machine.notes, *encoder.told(cells)):
        yield Said(note)
    if machine.processor != hardware.processor():
        yield Said(f"this run began on {machine.processor}: from here on its last bits may differ")
    facts = Facts(card_of(data), body, machine)
    balance = balance_of(options, data, task)
    plans = folder.step("plans", list[Plan], lambda: planned(facts, options, task, balance), facts, options, balance)
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
    with native.ahead():
        packed = yield from ship.lead(race, body.name)
        yield from ship.end(race, options, body, packed)
    return read_run(folder.path)


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
    from regraft.deliver.words import budget_words

    def some(name: str) -> Sequence[Row]:
        rows: Sequence[Row] = getattr(data, name)
        limit = max(limits[name], 2 * len(data.target.labels) if name == "train" else 0)
        return thin(rows, limit, options.seed, cover=name == "train") if len(rows) > limit else rows

    less = replace(data, train=some("train"), val=some("val"), test=some("test"))
    less = replace(less, unlabelled=data.unlabelled[: limits["train"]])
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


def _anywhere(options: Options) -> Options:
    """The request with paths that mean the same from every folder, so that a run may be resumed from another one."""

    def absolute(path: str) -> str:
        return str(Path(path).resolve()) if path and places.exists(Path(path)) else path

    asked = options.reading
    reading = replace(asked, val=absolute(asked.val), test=absolute(asked.test), unlabelled=absolute(asked.unlabelled))
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
