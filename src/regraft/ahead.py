"""What can be told without a run: which plans there would be, what they would take, which way to go, few-shot draws."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.data.inspect import in_words
from regraft.data.open import card as card_of
from regraft.data.open import open_data, sentence
from regraft.errors import UsageError
from regraft.kit import durable, shelf, store
from regraft.planner.propose import propose
from regraft.planner.request import balance_of, few_rows, find_provider, prepare, resolved, strategies_of, zoo_of
from regraft.waist import Bad, Budget, Data, Event, Facts, Flag, Options, Plan, Said, Task, fingerprint, plain

if TYPE_CHECKING:
    from regraft.planner.advise import Advice
    from regraft.planner.course import Course
    from regraft.planner.draws import Draws
    from regraft.planner.rules import Needs

FLAGS = 8
"""So many findings about the data are told when a run begins."""


def planned(facts: Facts, options: Options, task: Task, balance: float) -> list[Plan]:
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
    if options.reading.unlabelled and not any(plan.means for plan in plans):
        raise UsageError(
            "no strategy of this request uses rows without labels",
            saw=f"--unlabelled {options.reading.unlabelled} for " + ", ".join(strategies_of(options)),
            allowed="strategies whose head is class means: contrast, prototype",
            do="--strategy prototype, or leave --unlabelled away",
        )
    return plans


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

    def drawn(number: int) -> Data:
        return with_unlabelled(few.drawn(data, options.reading.shots, options.seed + number), options)

    first = drawn(0)
    facts, course, plans = _opened(options, first, options.model)
    whole = first.fingerprint if first.unlabelled else data.fingerprint
    mark = called(options, whole, facts.backbone.fingerprint)
    stem = f"{store.slug(data.name)}-{store.slug(Path(options.model).name)}-shots"
    path = store.place(out, stem, mark, fresh=False)
    from regraft.planner.draws import Draws, repeat

    def one(number: int) -> tuple[Course, list[Plan]]:
        folder = store.Folder(path / f"draw-{number + 1}")
        return replace(course, data=drawn(number), folder=folder, seed=options.seed + number), plans

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


def with_unlabelled(data: Data, options: Options) -> Data:
    """The data with the rows without labels that were named, read as `predict` reads what it is asked about.

    Raises: DataError: none can be used; UsageError: the path is wrong, or the target has no classes.
    """
    if not (path := options.reading.unlabelled):
        return data
    from regraft.data import unlabelled
    from regraft.deliver.inputs import expand

    bad: list[Bad] = []
    cells = expand(Path(path), shelf.find("modalities", data.modality), data.columns, bad)
    return unlabelled.beside(data, cells, Path(path).name, bad)


def called(request: Options, *others: str) -> str:
    """The fingerprint that names a run; settings that came later are left out of it where they say nothing."""
    told = plain(request)
    if not request.reading.unlabelled:
        del told["reading"]["unlabelled"]
    return fingerprint(told, *others)


def _read(options: Options, given: Any) -> Generator[Event, None, Data]:
    """The data of a request, which is told."""
    data = open_data(given, options.seed, options.reading)
    card = card_of(data)
    for text in (sentence(card), *card.notes, *findings(data.flags)):
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
    return facts, course, planned(facts, options, task, balance_of(options, data, task))


def findings(flags: Sequence[Flag]) -> list[str]:
    """Findings about the data in a few lines, warnings first; the report has all of them."""
    from regraft.deliver.words import brief

    more = len(flags) - FLAGS
    short = [replace(flag, examples=tuple(brief(one) for one in flag.examples)) for flag in flags[:FLAGS]]
    told = [("warning: " if flag.status == "warn" else "") + in_words(flag) for flag in short]
    return [*told, f"{more} more findings about the data in the report"] if more > 0 else told
