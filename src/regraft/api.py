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
from regraft.errors import ModelError, UsageError, near, unknown
from regraft.kit import durable, hardware, shelf, store
from regraft.planner.propose import check_knobs, propose
from regraft.waist import (
    BackboneCard,
    Data,
    DataCard,
    Event,
    Facts,
    Finished,
    MachineCard,
    Options,
    PhaseDone,
    Plan,
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
    _graft: Graft
    _task: Task
    _micro: int
    _modality: str

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Open a bundle after comparing its bytes with its record.

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
        view = shelf.find("providers", "bundle").load(str(folder))
        task = shelf.find("tasks", told.task).make(told.target)
        hardware.settle(hardware.threads())
        return cls(folder, told.target.labels, Graft(view, view.native), task, told.micro_batch, told.modality)

    def predict(self, cells: Any) -> list[dict[str, Any]]:
        """A dictionary per cell: `id`, `label`, `confidence`, `probabilities`.

        Args:
            cells: A path, a folder (everything in it that the model reads), a picture, an array, or a list of these.
        Raises: DataError: a cell cannot be read; it is named. UsageError: nothing was given.
        """
        from regraft.engine.cache import Table, Trunk
        from regraft.engine.predict import outputs

        item = shelf.find("modalities", self._modality)
        rows = [Row(name, cell, None, "", "") for name, cell in expand(cells, item)]
        trunk = Trunk(self._graft.view, 0, item.encoder(self._graft.view.inputs, False), self._micro)
        answers = self._task.answers(outputs(self._graft, Table(trunk, rows, None)))
        return [{"id": row.id, **answer} for row, answer in zip(rows, answers, strict=True)]


def adapt(
    data: str | Path,
    *,
    model: str | Path,
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
        data: A folder of class folders, with or without train, val and test above them.
        model: A folder in Hugging Face layout, or a bundle.
        strategies: Names of files in strategies/, or dotted module paths.
        knobs: "<strategy>.<knob>" → value.
        precision: "fp32", or "auto": bfloat16 for the frozen trunk where this processor is measured faster with it.
    Returns: The finished run. The same call again reads it; after a kill it goes on.
    Raises: DataError, ModelError, UsageError, ResourceError: each with what was seen and what to do.
    """
    texts = tuple(sorted((name, str(value)) for name, value in (knobs or {}).items()))
    options = Options(str(data), str(model), "", tuple(strategies), texts, precision, cache, seed)  # type: ignore[arg-type]
    return finish(steps(options, Path(out), fresh=fresh))


def open_result(path: str | Path) -> Run | Model:
    """Open a run or a bundle; both predict.

    Raises: UsageError: there is neither, or the run is not finished.
    """
    place = Path(path)
    return open_model(place) if (place / "regraft.json").is_file() else read_run(store.existing(place))


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
    options: Options, out: Path, *, fresh: bool = False, resume: Path | None = None
) -> Generator[Event, None, Run]:
    """The whole run as events: `Said` first with what the data is, before torch is imported; returns the run."""
    check_request(options)
    data = open_data(options.data, options.seed)
    card = card_of(data)
    yield Said(sentence(card))
    for note in card.notes:
        yield Said(note)
    provider = find_provider(options.model)
    mark = provider.fingerprint(options.model)
    request = replace(options, data=data.fingerprint, model=mark)
    stem = f"{store.slug(data.name)}-{store.slug(Path(options.model).name)}"
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
        durable.write(path / "splits.csv", _splits(data))
        yield Said(f"going on with the run {path}" if begun else f"run {path}")
        return (yield from _work(options, data, card, folder, provider, mark))


def forecast(options: Options) -> Generator[Event, None, list[dict[str, Any]]]:
    """What the plans of a request would take, without training or writing anything.

    Returns: For each plan its record, trainable parameters, cache bytes and GFLOP at most.
    """
    check_request(options)
    data = open_data(options.data, options.seed)
    yield Said(sentence(card_of(data)))
    provider = find_provider(options.model)
    mark = provider.fingerprint(options.model)
    from regraft.engine import freeze
    from regraft.planner import survey

    view = provider.load(options.model)
    head = choose_task(data).head(view.dim)
    encode = shelf.find("modalities", data.modality).encoder(view.inputs, True)
    machine = survey.machine(view, data, encode, options.precision)
    facts = Facts(card_of(data), survey.backbone(view, mark), machine)
    rows = sum(count for _, count in facts.data.rows)
    told = []
    for plan in propose(facts, options.strategies, options.knobs):
        trained = {n: p for phase in plan.phases for n, (p, _) in freeze.trainable(view, head, phase).items()}
        below = sum(s.flops for s in view.stages[: plan.trunk])
        above = sum(s.flops for s in view.stages[plan.trunk :])
        epochs = sum(phase.epochs for phase in plan.phases)
        told.append(
            {
                "plan": plain(plan),
                "frontier": plan.trunk,
                "trainable": sum(p.numel() for p in trained.values()),
                "cache_bytes": rows * view.stages[plan.trunk - 1].out_bytes if plan.trunk else 0,
                "gflop_at_most": (rows * below + epochs * 3 * above * facts.train_rows) / 1e9,
            }
        )
    return told


def _work(
    options: Options, data: Data, card: DataCard, folder: store.Folder, provider: ModuleType, mark: str
) -> Generator[Event, None, Run]:
    """From the data to the verdict; everything here may import torch."""
    from regraft.audit.gate import gate
    from regraft.audit.gather import audit, baselines
    from regraft.deliver import report
    from regraft.deliver.pack import pack
    from regraft.planner import survey
    from regraft.planner.race import Course, pick

    view = provider.load(options.model)
    task = choose_task(data)
    encode = shelf.find("modalities", data.modality).encoder(view.inputs, True)
    body = folder.step("backbone", BackboneCard, lambda: survey.backbone(view, mark), mark)
    machine = folder.step("machine", MachineCard, lambda: survey.machine(view, data, encode, options.precision), mark)
    hardware.settle(machine.threads)
    for note in (*body.notes, *machine.notes):
        yield Said(note)
    if machine.processor != hardware.processor():
        yield Said(f"this run began on {machine.processor}: from here on its last bits may differ")
    facts = Facts(card, body, machine)
    asked = options.strategies, options.knobs
    plans = folder.step("plans", list[Plan], lambda: propose(facts, *asked), facts, *asked)
    course = Course(view, data, task, encode, machine, folder, options.seed, options.cache)
    trials: list[Trial] = []
    packed = -1
    for number, plan in enumerate(plans):
        yield Said(f"{number + 1}/{len(plans)} {plan.strategy}")
        for event in course.trial(number, plan):
            if isinstance(event, LOGGED):
                folder.log(type(event).__name__, event)
            yield event
            if isinstance(event, Finished):
                trials.append(event.trial)
        if packed < 0 and len(plans) > 1:
            packed = number
            pack(course.restore(trials[-1]), trials[-1], task, data, machine, folder.path, body.name)
    winner, rule = pick(trials, task, data, folder.path, options.seed)
    findings = audit(task, data, trials, winner, folder.path, options.seed)
    verdict = gate(winner, rule, baselines(task, data), findings)
    if winner != packed:
        yield Said("packing the bundle and opening it in a fresh process")
        pack(course.restore(trials[winner]), trials[winner], task, data, machine, folder.path, body.name)
    if verdict.decision == "refuse":
        durable.remove(folder.path / "bundle")
    text = report.write_report(str(folder.path), card, body, machine, trials, verdict)
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
    if options.precision not in ("fp32", "auto"):
        raise unknown("precision", options.precision, ("fp32", "auto"))
    check_knobs(options.strategies, options.knobs)


def find_provider(query: str) -> ModuleType:
    """The first provider on the shelf that knows `query`.

    Raises: ModelError: none does; the nearest folder beside it is shown.
    """
    for name in shelf.names("providers"):
        if (item := shelf.find("providers", name)).find(query):
            return item
    path = Path(query)
    beside = [p.name for p in path.parent.iterdir() if (p / "config.json").is_file()] if path.parent.is_dir() else []
    guess = near(path.name, beside)
    raise ModelError(
        "this folder holds no model" if path.exists() else "there is no model of that name here",
        saw=query,
        allowed="a folder with config.json and model.safetensors, or a bundle; nothing is fetched from the network",
        do=f"did you mean {path.parent / guess}?" if guess else "check the path",
    )


def choose_task(data: Data) -> Task:
    """The first task on the shelf that fits the target."""
    for name in shelf.names("tasks"):
        item = shelf.find("tasks", name)
        if item.fits(data.target):
            made: Task = item.make(data.target)
            return made
    raise UsageError("no task fits this target", saw=data.target.kind, allowed=", ".join(shelf.names("tasks")))


def expand(cells: Any, modality: ModuleType) -> list[tuple[str, Any]]:
    """(name, cell) pairs: folders become the files in them that the modality recognises.

    Raises: UsageError: nothing is left, or a path does not exist.
    """
    from regraft.data.read import files

    many = list(cells) if isinstance(cells, (list, tuple)) else [cells]
    found: list[tuple[str, Any]] = []
    for i, cell in enumerate(many):
        if not isinstance(cell, (str, Path)):
            found.append((str(i), cell))
        elif _is(Path.is_dir, cell):
            found += [(str(p), p) for p in files(Path(cell)) if modality.sniff(p)]
        elif _is(Path.is_file, cell):
            found.append((str(cell), Path(cell)))
        else:
            raise UsageError("there is no such file or folder", saw=str(cell), do="check the path")
    if not found:
        raise UsageError(f"there are no {modality.NOUN} to predict", saw=", ".join(map(str, many)) or "nothing")
    return found


def _is(kind: Callable[[Path], bool], cell: str | Path) -> bool:
    """Whether a path is of a kind; a name that no file can have is of none."""
    try:
        return kind(Path(cell))
    except (OSError, ValueError):
        return False


def as_csv(answers: Iterable[dict[str, Any]]) -> str:
    """Predictions as CSV: id, label, confidence, probabilities (a JSON object).

    A text that a spreadsheet would run as a formula gets a quote before it.
    """
    file = io.StringIO()
    sheet = csv.writer(file)
    sheet.writerow(["id", "label", "confidence", "probabilities"])
    for a in answers:
        probabilities = json.dumps(a["probabilities"], ensure_ascii=False)
        sheet.writerow([_cell(a["id"]), _cell(a["label"]), f"{a['confidence']:.6f}", probabilities])
    return file.getvalue()


def _cell(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _absolute(path: str) -> str:
    """A path that means the same from every folder, so that a run may be resumed from another one."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def _splits(data: Data) -> bytes:
    file = io.StringIO()
    sheet = csv.writer(file)
    sheet.writerow(["id", "split", "label", "sha256"])
    for name in ("train", "val", "test"):
        for row in getattr(data, name):
            sheet.writerow([_cell(row.id), name, _cell(str(row.y)), row.key])
    return file.getvalue().encode("utf-8", "surrogatepass")
