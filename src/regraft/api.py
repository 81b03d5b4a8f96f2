"""The verbs in Python: `adapt` data with a model, `open` what came of it, `predict` with it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from regraft.data.open import card as card_of
from regraft.data.open import open_data, sentence
from regraft.errors import DataError, ModelError, UsageError, near, unknown
from regraft.kit import durable, hardware, shelf, store
from regraft.planner.propose import check_knobs, propose
from regraft.waist import (
    BackboneCard,
    Bundle,
    Data,
    DataCard,
    Encoder,
    Event,
    Facts,
    Finished,
    MachineCard,
    Options,
    PhaseDone,
    Plan,
    Reading,
    Row,
    Said,
    Scored,
    Task,
    Trial,
    Verdict,
    fingerprint,
    plain,
)

if TYPE_CHECKING:
    from types import ModuleType

    from regraft.backbone.view import View
    from regraft.engine.predict import Graft

T = TypeVar("T")
STRATEGIES = ("probe", "partial", "scratch")
LOGGED = (Said, Scored, PhaseDone, Finished)


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: what was tried, the verdict, and where bundle and report lie."""

    folder: Path
    data: DataCard
    trials: tuple[Trial, ...]
    verdict: Verdict
    bundle: Path
    report: Path

    @property
    def winner(self) -> Trial:
        return self.trials[self.verdict.winner]

    def predict(self, cells: Any) -> list[dict[str, Any]]:
        """As `Model.predict`, with the run's bundle."""
        return Model.load(self.bundle).predict(cells)


@dataclass(slots=True)
class Model:
    """A bundle that was opened: `labels` in order, `predict`."""

    folder: Path
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    _graft: Graft
    _task: Task
    _told: Bundle

    @property
    def literal(self) -> bool:
        """Whether a string is a cell itself, not the path of one."""
        found: bool = shelf.find("modalities", self._told.modality).LITERAL
        return found

    @classmethod
    def load(cls, folder: Path, module: Any = None) -> Model:
        """Open a bundle after comparing its bytes with its record.

        Args:
            module: The network, built as it was for the run, for a bundle of a network from your own code.
        Raises: ModelError: it is no bundle, was changed, or cannot be opened.
        """
        from regraft.backbone import bundle as bundles
        from regraft.engine.predict import Graft

        if not bundles.is_bundle(folder):
            raise ModelError(
                "there is no bundle here",
                saw=str(folder),
                allowed="a bundle's folder, or a run that shipped one",
                do="finish the run with regraft adapt --resume RUN; if its result was refused, report.md says why",
            )
        told = bundles.read(folder)
        if module is None:
            view = shelf.find("providers", "bundle").load(str(folder))
        else:
            view = shelf.find("providers", told.provider).reopen(folder, module)
        native, view = view.native, view.pooled(told.plan.pooling)
        view.inputs = told.inputs
        task = shelf.find("tasks", told.task).make(told.target)
        hardware.settle(hardware.threads())
        return cls(folder, told.target.labels, told.columns, Graft(view, native), task, told)

    def predict(self, cells: Any) -> list[dict[str, Any]]:
        """A dictionary per cell: `id` and the task's answer (`label`, `confidence`, `probabilities`; `value`, `low` …).

        Args:
            cells: A `Path` (a file, a folder with everything in it that the model reads, a table with the columns of
                training), a picture, an array, a text, a tuple of two texts, or a list of these. A string is a text for
                a model of texts, and a path for a model of pictures.
        Raises: DataError: a cell cannot be read; it is named. UsageError: nothing was given, or a table lacks a column.
        """
        from regraft.engine.cache import Table, Trunk
        from regraft.engine.predict import outputs, sides

        view, told = self._graft.view, self._told
        item = shelf.find("modalities", told.modality)
        rows = [Row(name, cell, None, "", name) for name, cell in expand(cells, item, self.columns)]
        trunk = Trunk(view, 0, item.encoder(view.inputs, False, view.source), told.micro_batch)
        table = Table(trunk, rows, None, sides(view.pooling, len(self.columns)))
        answers = self._task.answers(outputs(self._graft, table), dict(told.calibration))
        return [{"id": row.id, **answer} for row, answer in zip(rows, answers, strict=True)]


def adapt(
    data: Any,
    *,
    model: Any,
    target: str = "",
    text: str | Sequence[str] = (),
    image: str = "",
    group: str = "",
    sensitive: str | Sequence[str] = (),
    time: str = "",
    task: str = "",
    val: str | Path = "",
    test: str | Path = "",
    max_rows: int = 0,
    positive: str = "",
    order: Sequence[str] = (),
    metric: str = "",
    balance: str = "auto",
    long: str = "cut",
    max_tokens: int = 0,
    arch: str = "",
    strategies: Sequence[str] = STRATEGIES,
    knobs: dict[str, Any] | None = None,
    out: str | Path = "runs",
    seed: int = 0,
    precision: str = "fp32",
    cache: bool = True,
    fresh: bool = False,
) -> Run:
    """Adapt a pretrained model to data: run the strategies, pick on validation, audit, pack.

    Args:
        data: A path (class folders of pictures or texts, a table, a folder of tables by split), a DataFrame, a
            `datasets.Dataset`, a tuple of arrays (X, y), or a dictionary split → one of these.
        model: A folder in Hugging Face or timm layout, `minilm`, `provider/NAME`, a state dict with `arch`, a bundle, a
            module.
        target, text, image, group, sensitive, time: Columns, where they are not to be guessed; two texts make a pair.
        task: A name in tasks/; `val`, `test`: paths of given splits; `max_rows`: most rows of a split, 0 for all.
        positive: Of two classes the one that is looked for; `order`: the labels from low to high, for task "ordinal".
        metric: What decides.
        balance: "auto", "none" or "classes": whether every class counts equally however rare it is.
        long, max_tokens: What becomes of texts of more tokens than that: "cut", "ends" or "windows"; 0 is the default.
        strategies: Names of files in strategies/, or dotted module paths.
        knobs: "<strategy>.<knob>" → value.
        precision: "fp32", or "auto": bfloat16 for the frozen trunk where this processor is measured faster with it.
    Returns: The finished run. The same call again reads it; after a kill it goes on.
    Raises: DataError, ModelError, UsageError, ResourceError: each with what was seen and what to do.
    """
    texts = tuple(sorted((name, str(value)) for name, value in (knobs or {}).items()))
    reading = Reading(
        target=target,
        text=(text,) if isinstance(text, str) and text else tuple(text),
        image=image,
        group=group,
        sensitive=(sensitive,) if isinstance(sensitive, str) and sensitive else tuple(sensitive),
        time=time,
        task=task,
        val=str(val),
        test=str(test),
        max_rows=max_rows,
        positive=positive,
        order=tuple(order),
    )
    options = Options(
        data=str(data) if isinstance(data, (str, Path)) else f"<{type(data).__name__}>",
        model=str(model) if isinstance(model, (str, Path)) else f"<{_class(model)}>",
        reading=reading,
        strategies=tuple(strategies),
        knobs=texts,
        metric=metric,
        balance=balance,  # type: ignore[arg-type]
        long=long,  # type: ignore[arg-type]
        max_tokens=max_tokens,
        arch=arch,
        precision=precision,  # type: ignore[arg-type]
        cache=cache,
        seed=seed,
    )
    return finish(steps(options, Path(out), fresh=fresh, data=data, model=model))


def open_result(path: str | Path, module: Any = None) -> Run | Model:
    """Open a run or a bundle; both predict. `module` is the network of a bundle from your own code.

    Raises: UsageError: there is neither, or the run is not finished.
    """
    place = Path(path)
    if (place / "regraft.json").is_file() or module is not None:
        return Model.load(place if (place / "regraft.json").is_file() else place / "bundle", module)
    return read_run(store.existing(place))


def open_model(path: Path) -> Model:
    """The model of a bundle or of a run, to predict with.

    Raises: UsageError: there is no run; ModelError: it has no bundle, or a changed one.
    """
    if (path / "regraft.json").is_file():
        return Model.load(path)
    return Model.load(store.existing(path) / "bundle")


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
) -> Generator[Event, None, Run]:
    """The whole run as events: `Said` first with what the data is, before torch is imported; returns the run.

    `data` and `model` are the things themselves where the options can only name them.
    """
    check_request(options)
    data = _itself(options.data, data, "data")
    query = _itself(options.model, model, "model")
    provider = find_provider(query)
    named = isinstance(query, str) and not _is(Path.exists, query)
    mark = provider.fingerprint(query) if named else ""  # a name that is not in the caches fails before data is read
    rows = open_data(data, options.seed, options.reading)
    card = card_of(rows)
    yield Said(sentence(card))
    for note in card.notes:
        yield Said(note)
    mark = mark or provider.fingerprint(query)
    request = replace(options, data=rows.fingerprint, model=mark)
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
        yield Said(f"this was run before: reading {path}")
        return read_run(path)
    begun = (path / "options.json").is_file()
    with durable.lock(path / ".lock", f"the run {path}"):
        durable.sweep(path)
        folder.write("options", replace(options, data=_absolute(options.data), model=_absolute(options.model)))
        folder.write("request", request)
        folder.write("data", card)
        durable.write(path / "splits.csv", _splits(rows))
        yield Said(f"going on with the run {path}" if begun else f"run {path}")
        return (yield from _work(options, rows, folder, query, mark))


def forecast(options: Options) -> Generator[Event, None, list[dict[str, Any]]]:
    """What the plans of a request would take, without training or writing anything.

    Returns: For each plan its record, trainable parameters, cache bytes and GFLOP at most.
    """
    check_request(options)
    data = open_data(options.data, options.seed, options.reading)
    card = card_of(data)
    for text in (sentence(card), *card.notes):
        yield Said(text)
    mark = find_provider(options.model).fingerprint(options.model)
    from regraft.engine import freeze
    from regraft.planner import survey
    from regraft.planner.race import Course

    view, encoder, task = prepare(options, data, options.model)
    machine = survey.machine(view, data, encoder, options.precision)
    facts = Facts(card_of(data), survey.backbone(view, mark), machine)
    course = Course(view, data, task, encoder, machine, store.Folder(Path()), options.seed)
    rows = sum(count for _, count in facts.data.rows)
    told = []
    for plan in propose(facts, options.strategies, options.knobs, balance_of(options, data, task)):
        graft = course.graft(plan)
        stages, apart = graft.view.stages, course.sides(graft.view)
        trained = {
            n: p for phase in plan.phases for n, (p, _) in freeze.trainable(graft.view, graft.head, phase).items()
        }
        below = apart * sum(s.flops for s in stages[: plan.trunk])
        above = apart * sum(s.flops for s in stages[plan.trunk :])
        epochs = sum(phase.epochs for phase in plan.phases)
        told.append(
            {
                "label": plan.label,
                "plan": plain(plan),
                "frontier": plan.trunk,
                "trainable": sum(p.numel() for p in trained.values()),
                "cache_bytes": apart * rows * stages[plan.trunk - 1].out_bytes if plan.trunk else 0,
                "gflop_at_most": (rows * below + epochs * 3 * above * facts.train_rows) / 1e9,
            }
        )
    return told


def prepare(options: Options, data: Data, query: Any) -> tuple[View, Encoder, Task]:
    """The backbone with its preprocessing as asked for, the encoder and the task of a request.

    Raises: as the provider; UsageError: an option that the modality does not know.
    """
    view = find_provider(query).load(query, data.modality, options.arch)
    item = shelf.find("modalities", data.modality)
    view.inputs = item.adjust(view.inputs, options)
    return view, item.encoder(view.inputs, True, view.source), choose_task(data, options)


def _work(options: Options, data: Data, folder: store.Folder, query: Any, mark: str) -> Generator[Event, None, Run]:
    """From the data to the verdict; everything here may import torch."""
    from regraft.audit.gate import gate
    from regraft.audit.gather import audit, baselines
    from regraft.backbone import bundle as bundles
    from regraft.deliver import native, report
    from regraft.deliver.pack import pack
    from regraft.planner import survey
    from regraft.planner.race import Course, pick

    card = card_of(data)
    view, encoder, task = prepare(options, data, query)
    body = folder.step("backbone", BackboneCard, lambda: survey.backbone(view, mark), mark)
    machine = folder.step("machine", MachineCard, lambda: survey.machine(view, data, encoder, options.precision), mark)
    hardware.settle(machine.threads)
    cells = [row.cell for rows in (data.train, data.val, data.test) for row in rows]
    for note in (*body.notes, *machine.notes, *encoder.told(cells)):
        yield Said(note)
    if machine.processor != hardware.processor():
        yield Said(f"this run began on {machine.processor}: from here on its last bits may differ")
    facts = Facts(card, body, machine)
    asked = options.strategies, options.knobs, balance_of(options, data, task)
    plans = folder.step("plans", list[Plan], lambda: propose(facts, *asked), facts, *asked)
    if asked[-1]:
        yield Said(
            f"labels are far from equally frequent: rare ones weigh more in training, {task.metrics[0].name} decides "
            "(--balance none, --metric)"
        )
    course = Course(view, data, task, encoder, machine, folder, options.seed, options.cache)
    trials: list[Trial] = []
    packed = -1
    for number, plan in enumerate(plans):
        yield Said(f"{number + 1}/{len(plans)} {plan.label}")
        for event in course.trial(number, plan):
            if isinstance(event, LOGGED):
                folder.log(type(event).__name__, event)
            yield event
            if isinstance(event, Finished):
                trials.append(event.trial)
        if packed < 0 and len(plans) > 1:
            packed = number
            pack(course, trials[-1], body.name)  # a usable model early, whatever comes
    winner, rule = pick(trials, task, data, folder.path, options.seed)
    findings = audit(task, data, trials, winner, folder.path, options.seed)
    verdict = gate(winner, rule, baselines(task, data), findings)
    if winner != packed:
        yield Said("packing the bundle and opening it in a fresh process")
        pack(course, trials[winner], body.name)
    opening = bundles.read(folder.path / "bundle").opening
    if note := native.untried(opening):
        yield Said(note)
    if verdict.decision == "refuse":
        durable.remove(folder.path / "bundle")
    text = report.write_report(str(folder.path), card, body, machine, trials, verdict, opening)
    durable.write(folder.path / "report.md", text.encode("utf-8", "surrogatepass"))
    folder.write("trials", trials)
    folder.write("verdict", verdict)
    return read_run(folder.path)


def read_run(path: Path) -> Run:
    """A finished run from its folder.

    Raises: UsageError: it is not finished.
    """
    folder = store.Folder(path)
    verdict = folder.load("verdict", Verdict)
    trials = tuple(folder.load("trials", list[Trial]))
    return Run(path, folder.load("data", DataCard), trials, verdict, path / "bundle", path / "report.md")


def check_request(options: Options) -> None:
    """Refuse a request that cannot be, before any work.

    Raises: UsageError: an unknown strategy, knob or precision.
    """
    if not options.strategies:
        raise unknown("strategy", "", shelf.names("strategies"))
    for name in options.strategies:
        shelf.find("strategies", name)
    for kind, value, known in (
        ("precision", options.precision, ("fp32", "auto")),
        ("balance", options.balance, ("auto", "none", "classes")),
        ("way with long texts", options.long, ("cut", "ends", "windows")),
    ):
        if value not in known:
            raise unknown(kind, value, known)
    check_knobs(options.strategies, options.knobs)


def find_provider(query: Any) -> ModuleType:
    """The first provider on the shelf that knows `query`: a path that exists comes before any name.

    Raises: UsageError: a name without its provider; ModelError: nobody knows it; the nearest folder is shown.
    """
    for name in shelf.names("providers"):
        if (item := shelf.find("providers", name)).find(query):
            return item
    path = Path(query) if isinstance(query, (str, Path)) else Path()
    bare = isinstance(query, str) and bool(query) and not {"/", "\\"} & set(query) and not path.suffix
    if bare and not path.exists():
        named = [f"{name}/{query}" for name in ("timm", "torchvision", "transformers")]
        raise UsageError(
            "this name could mean several things",
            saw=query,
            allowed=", ".join([*named, "minilm", "a path"]),
            do="say where it comes from",
        )
    beside = [p.name for p in path.parent.iterdir() if (p / "config.json").is_file()] if path.parent.is_dir() else []
    guess = near(path.name, beside)
    raise ModelError(
        "this folder holds no model" if path.exists() else "there is no model of that name here",
        saw=str(query),
        allowed="a folder with config.json and model.safetensors, a bundle, a state dict with --arch, minilm, or "
        "timm/NAME, torchvision/NAME, transformers/NAME from the local caches; nothing is fetched from the network",
        do=f"did you mean {path.parent / guess}?" if guess else "check the path",
    )


def choose_task(data: Data, options: Options) -> Task:
    """The task that was asked for, or the first on the shelf that fits the target.

    Raises: UsageError: there is none, or no such metric.
    """
    names = (options.reading.task,) if options.reading.task else shelf.names("tasks")
    for name in names:
        item = shelf.find("tasks", name)
        if options.reading.task or item.fits(data.target):
            made: Task = item.make(data.target, options.metric)
            return made
    raise UsageError("no task fits this target", saw=data.target.kind, allowed=", ".join(shelf.names("tasks")))


def balance_of(options: Options, data: Data, task: Task) -> float:
    """How much rows weigh by how rare their labels are, as `Loss.balance`.

    "auto" takes the root where labels are far from equally frequent and the deciding metric counts classes the same.
    """
    auto = 0.5 if data.target.unequal and task.metrics[0].equal else 0.0
    return {"auto": auto, "none": 0.0, "classes": 1.0}[options.balance]


def expand(cells: Any, modality: ModuleType, columns: Sequence[str] = ()) -> list[tuple[str, Any]]:
    """(name, cell) pairs: folders become the files in them that the modality reads, tables their rows.

    Raises: UsageError: nothing is left, a path does not exist, or a text stands where a pair is wanted.
    """
    from regraft.data import tables
    from regraft.data.cells import read_cells
    from regraft.data.read import files

    many = list(cells) if isinstance(cells, (list, Sequence)) and not isinstance(cells, (str, tuple)) else [cells]
    found: list[tuple[str, Any]] = []
    for i, cell in enumerate(many):
        if (isinstance(cell, str) and modality.LITERAL) or not isinstance(cell, (str, Path)):
            _fits(cell, modality, columns)
            found.append((str(i), cell))
        elif _is(Path.is_dir, cell):
            known = [p for p in files(Path(cell)) if modality.sniff(p)]
            for one in known[:1]:
                _fits(one, modality, columns)
            found += [(str(p), p) for p in known]
        elif _is(Path.is_file, cell) and Path(cell).suffix.lower() in tables.ENDINGS:
            found += read_cells(Path(cell), columns, modality.__name__.rpartition(".")[2])
        elif _is(Path.is_file, cell):
            _fits(Path(cell), modality, columns)
            found.append((str(cell), Path(cell)))
        else:
            raise UsageError("there is no such file or folder", saw=str(cell), do="check the path")
    if not found:
        raise UsageError(f"there are no {modality.NOUN} to predict", saw=", ".join(map(str, many)) or "nothing")
    return found


def _fits(cell: Any, modality: ModuleType, columns: Sequence[str]) -> None:
    """Refuse a cell that the model does not read: another kind, one text for a pair, two for one."""
    pair = isinstance(cell, tuple)
    if len(columns) == 2 and not pair:
        raise UsageError(
            "this model wants pairs of texts", saw=repr(cell)[:80], allowed=" + ".join(columns), do="give two"
        )
    if (pair and len(columns) != 2) or not modality.sniff(cell):
        raise DataError(
            f"a cell is none of the {modality.NOUN} that this model reads",
            saw=str(cell) if isinstance(cell, Path) else repr(cell)[:80],
            allowed=modality.NOUN if len(columns) != 2 else "tuples of two texts",
            do="leave it out, or use a model that reads it",
        )


def lines(file: Iterable[str], model: Model) -> list[Any]:
    """Cells from lines: texts, pairs with a tab between them, or paths; empty lines are left out.

    Raises: UsageError: a line of a pair has no tab.
    """
    found = [line.rstrip("\r\n") for line in file]
    if not model.literal:
        return [Path(line) for line in found if line.strip()]
    return texts([side for line in found if line.strip() for side in _sides(line, len(model.columns))], model)


def texts(found: Sequence[str], model: Model) -> list[Any]:
    """Texts as cells: one by one, or by twos for a model of pairs.

    Raises: UsageError: the model reads no texts, or one text of a pair lacks.
    """
    if found and not model.literal:
        raise UsageError("this model reads no texts", saw="--text", allowed="files", do="leave --text out")
    if len(model.columns) != 2:
        return list(found)
    if len(found) % 2:
        raise UsageError("a pair lacks its second text", saw=repr(found[-1])[:80], allowed=" + ".join(model.columns))
    return list(zip(found[::2], found[1::2], strict=True))


def _sides(line: str, columns: int) -> list[str]:
    sides = line.split("\t", 1)
    if columns == 2 and len(sides) < 2:
        raise UsageError("a line holds no pair", saw=repr(line)[:80], allowed="two texts with a tab between them")
    return sides if columns == 2 else [line]


def _is(kind: Callable[[Path], bool], cell: str | Path) -> bool:
    """Whether a path is of a kind; a name that no file can have is of none."""
    try:
        return kind(Path(cell))
    except (OSError, ValueError):
        return False


def as_csv(answers: Sequence[dict[str, Any]]) -> str:
    """Predictions as CSV, a column for each part of an answer; lists and dictionaries as JSON.

    A text that a spreadsheet would run as a formula gets a quote before it.
    """
    file = io.StringIO()
    sheet = csv.writer(file)
    sheet.writerow(list(answers[0]))
    for answer in answers:
        sheet.writerow(
            [
                _cell(v)
                if isinstance(v, str)
                else f"{v:.6g}"
                if isinstance(v, float)
                else json.dumps(v, ensure_ascii=False)
                for v in answer.values()
            ]
        )
    return file.getvalue()


def _cell(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


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


def _class(thing: Any) -> str:
    """What a model that is no path is called."""
    return type(thing[0] if isinstance(thing, tuple) else thing).__name__


def _absolute(path: str) -> str:
    """A path that means the same from every folder, so that a run may be resumed from another one."""
    return str(Path(path).resolve()) if Path(path).exists() else path


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
                [_cell(row.id), name, y if data.target.kind == "number" else _cell(y), row.key, *map(_cell, facets)]
            )
    return file.getvalue().encode("utf-8", "surrogatepass")
