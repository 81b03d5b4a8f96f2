"""Many tasks on one backbone: a folder with the base, once, and a run or a bundle for each task that lacks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft.backbone import bundle as bundles
from regraft.backbone import shared
from regraft.backbone.state import as_state
from regraft.backbone.view import View
from regraft.deliver.inputs import expand
from regraft.deliver.model import Model
from regraft.deliver.pack import LINK
from regraft.engine import freeze
from regraft.engine.cache import Table
from regraft.engine.predict import sides
from regraft.engine.trunk import Side, Trunk
from regraft.errors import UsageError, unknown
from regraft.kit import durable, shelf, store
from regraft.waist import Bad, Bundle, Row, Score, Target

RECORD, BASE = "family", "base"


@dataclass(frozen=True, slots=True)
class Member:
    """A task, and the folder of its run or bundle in the family's."""

    task: str
    place: str


@dataclass(frozen=True, slots=True)
class Family:
    """The tasks on one backbone; `model` is what it is called, `mark` the fingerprint of its files."""

    model: str
    mark: str
    tasks: tuple[Member, ...] = ()

    def member(self, task: str) -> Member:
        """The task of that name.

        Raises: UsageError: there is none.
        """
        found = next((one for one in self.tasks if one.task == task), None)
        if found is None:
            raise unknown("task", task, [one.task for one in self.tasks])
        return found


def is_family(folder: Path) -> bool:
    """Whether a folder holds tasks on one backbone."""
    return (folder / f"{RECORD}.json").is_file()


def read(folder: Path) -> Family:
    """The tasks of a family.

    Raises: UsageError: there is no such record, or it was changed.
    """
    if not is_family(folder):
        raise UsageError(
            "there is no family of tasks in this folder",
            saw=str(folder),
            allowed=f"a folder with {RECORD}.json",
            do="regraft adapt A B --model MODEL makes one",
        )
    told = store.Folder(folder).load(RECORD, Family)
    if stray := shared.strays(part for one in told.tasks for part in (one.place, one.task)):
        raise UsageError(
            "this family names folders outside of its own",
            saw=f"{folder}: {stray}",
            allowed="folders in it",
            do="do not open it: nothing here writes such a record",
        )
    return told


def bundle_of(folder: Path, member: Member) -> Path:
    """The folder of a task's bundle."""
    place = folder / member.place
    return place / LINK if (place / LINK).exists() else place


def begin(folder: Path, family: Family, view: View) -> None:
    """Write the base and the record of a family without tasks, where there is none yet."""
    if not is_family(folder):
        if not (folder / BASE / shared.BASE).is_file():
            durable.remove(folder / BASE)
            _write_base(folder / BASE, family, view)
        store.Folder(folder).write(RECORD, family)


def join(folder: Path, task: str, place: Path) -> None:
    """Take what the base has out of a task's bundle, and note the task; `place` is a run or bundle in the folder."""
    link = place / LINK
    whole = link.resolve() if link.exists() else place
    told = bundles.read(whole)
    if not shared.is_shared(whole):
        number = 1 + max((int(p.name[7:]) for p in place.glob("bundle-*") if p.name[7:].isdigit()), default=0)
        final = place / f"bundle-{number}"
        shared.share(whole, folder / BASE, final, adapters_of(whole, told))
        durable.point(link, final.name)
        durable.remove(whole)
    family = read(folder)
    tasks = {one.task: one for one in family.tasks}
    tasks[task] = Member(task, place.relative_to(folder).as_posix())
    store.Folder(folder).write(RECORD, replace(family, tasks=tuple(tasks.values())))


@dataclass(frozen=True, slots=True)
class Listed:
    """A task as a line of a list: what it is made of, what it takes beside the base, what it scored, when it ended."""

    task: str
    place: str
    kind: str
    bytes: int
    score: Score | None
    when: str


def listed(folder: Path) -> list[Listed]:
    """The tasks of a family, in the order that they came.

    Raises: UsageError: it is none; ModelError: a bundle or the base was changed.
    """
    found = []
    for one in read(folder).tasks:
        place = bundle_of(folder, one)
        told = bundles.read(place)
        score = next((s for s in told.scores if s.split == "test"), None)
        kind = " + ".join(dict.fromkeys(insert.kind for insert in told.plan.inserts)) or told.plan.strategy
        when = datetime.fromtimestamp((place / bundles.NAME).stat().st_mtime, UTC).isoformat(timespec="seconds")
        found.append(Listed(one.task, one.place, kind, size_of(place), score, when))
    return found


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.resolve().rglob("*") if path.is_file())


def adapters_of(folder: Path, told: Bundle) -> list[str]:
    """The inserts of a bundle whose files lie in it, as `share` takes them."""
    places = [bundles.adapter(i) for i in range(len(told.plan.inserts))]
    named = zip(told.plan.inserts, places, strict=True)
    able = [(one.kind, place) for one, place in named if "remake" in vars(shelf.find("inserts", one.kind))]
    return [f"{kind}:{place}" for kind, place in able if (folder / place).is_dir()]


def _write_base(place: Path, family: Family, view: View) -> None:
    """The backbone's native files, with its own head, or one of zeros where it has none of a linear layer's form."""
    head = view.native
    if not isinstance(head, nn.Linear) or head.in_features != view.dim:
        head = nn.utils.skip_init(nn.Linear, view.dim, 2)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.zero_()
    labels = view.labels if len(view.labels) == head.out_features else [str(i) for i in range(head.out_features)]
    target = Target("label", "class", tuple(labels), (0,) * len(labels))
    with durable.folder(place) as part:
        opening = view.export(head, target, str(part))
        provider, modality = opening.provider or view.provider, view.inputs.modality
        files = tuple(durable.sums(part).items())
        shared.write_base(part, shared.Base(shared.SCHEMA, family.model, provider, modality, family.mark, files))


# ---------------------------------------------------------------- answers


Group = dict[str, tuple[Model, int]]
"""Task → its model and how many of its stages are those of the group's first."""


@dataclass(slots=True)
class Together:
    """The models of a family's tasks, opened: they answer with one pass of the trunk that they share."""

    models: Mapping[str, Model]
    groups: Sequence[Group]

    @property
    def first(self) -> Model:
        return next(iter(self.models.values()))

    @property
    def literal(self) -> bool:
        """Whether a string is a cell itself, not the path of one."""
        return self.first.literal

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table that are read."""
        return self.first.columns

    def predict(
        self, cells: Any, left_out: list[Bad] | None = None, notes: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """As `Model.predict`; what a task answers is called "<task>.label" and so on."""
        item = shelf.find("modalities", self.first.told.modality)
        given = expand(cells, item, self.columns, left_out, notes)
        rows = [Row(name, cell, None, "", str(i)) for i, (name, cell) in enumerate(given)]
        found: list[dict[str, Any]] = [{"id": row.id} for row in rows]
        for task, made in self.outputs(dict.fromkeys(self.models, rows)).items():
            for one, answer in zip(found, self.models[task].answers(made), strict=True):
                one |= {f"{task}.{name}": value for name, value in answer.items()}
        return found

    def outputs(self, rows: Mapping[str, Sequence[Row]]) -> dict[str, Tensor]:
        """The outputs of tasks for rows of their own, [N, …] each; rows of one key run once where trunks are alike."""
        found: dict[str, Tensor] = {}
        for group in self.groups:
            if asked := {task: rows[task] for task in group if rows.get(task)}:
                found |= _pass(group, asked)
        return {task: found[task] for task in self.models if task in found}


def open_family(folder: Path, task: str = "") -> Model | Together:
    """The models of all tasks in a family, weights that they share once in memory; or of one task.

    Raises: UsageError: no such task, none at all, or tasks that read rows of another form; ModelError: a bundle or the
    base was changed.
    """
    family = read(folder)
    if task:
        return Model.load(bundle_of(folder, family.member(task)))
    if not family.tasks:
        raise UsageError("there are no tasks in this family", str(folder), "one or more", "regraft adapters add")
    opened = open_tasks(folder, [one.task for one in family.tasks])
    forms = {name: len(model.columns) for name, model in opened.models.items()}
    if len(set(forms.values())) > 1:
        raise UsageError(
            "these tasks do not read the same rows",
            saw=", ".join(f"{name}: {count} columns" for name, count in forms.items()),
            allowed="tasks that all read one text or picture, or all read pairs",
            do="choose one with --task",
        )
    return opened


def open_tasks(folder: Path, tasks: Iterable[str]) -> Together:
    """The models of some tasks of a family, whatever rows they read; no other bundle is opened.

    Raises: UsageError: no such task; ModelError: a bundle or the base was changed.
    """
    family = read(folder)
    models = {task: Model.load(bundle_of(folder, family.member(task))) for task in tasks}
    return Together(models, _groups(models))


def _groups(models: Mapping[str, Model]) -> list[Group]:
    """Models by their trunk; the weights of stages that are alike are the first's from then on."""
    groups: list[Group] = []
    for task, model in models.items():
        for group in groups:
            first = next(iter(group.values()))[0]
            if k := _common(first, model):
                group[task] = model, k
                break
        else:
            groups.append({task: (model, len(model.graft.view.stages))})
    return groups


def _common(a: Model, b: Model) -> int:
    """How many of the first stages two models have alike, to the bit; 0 where they read rows in another way."""
    if _reading(a) != _reading(b):
        return 0
    mine, yours = list(a.graft.view.named()), list(b.graft.view.named())
    held, other = list(a.graft.view.buffers()), list(b.graft.view.buffers())
    if [n for n, *_ in (*mine, *held)] != [n for n, *_ in (*yours, *other)]:
        return 0
    common = len(a.graft.view.stages)
    for (_, stage, one), (_, _, two) in zip(mine, yours, strict=True):
        if stage < common and not torch.equal(one, two):
            common = stage
    for (_, stage, x), (_, _, y) in zip(held, other, strict=True):
        if stage < common and not torch.equal(x, y):
            common = stage
    for (_, stage, one), (_, _, two) in zip(mine, yours, strict=True):
        if stage < common:
            two.data = one.data
    return common


def _reading(model: Model) -> tuple[Any, ...]:
    """How a model reads its rows."""
    told = model.told
    return told.inputs, model.graft.view.reading, told.plan.blocks, told.provider, len(model.columns)


def _pass(group: Group, asked: Mapping[str, Sequence[Row]]) -> dict[str, Tensor]:
    """The outputs of one group: the trunk up to where the first of them is apart, from there on each by itself.

    Those that have the whole trunk in common go on together; what nobody asked of a task is not computed.
    """
    first = next(iter(group.values()))[0]
    view, columns = first.graft.view, len(first.columns)
    every = {row.key: row for rows in asked.values() for row in rows}
    at_row = {key: i for i, key in enumerate(every)}
    wanted = {task: {at_row[row.key] for row in rows} for task, rows in asked.items()}
    begin = min(group[task][1] for task in asked)
    trunk = Trunk(view, begin, view.encoder(), first.told.micro_batch)
    table = Table(trunk, list(every.values()), None, sides(view.pooling, columns))
    found: dict[str, dict[int, Tensor]] = {task: {} for task in asked}
    for index, count in table.micro_batches():
        here = set(index[:count])
        some = {task: group[task] for task in asked if wanted[task] & here}
        states, at = table.batch(index), begin
        for task, (model, k) in sorted(some.items(), key=lambda one: one[1][1]):
            if k > at:
                states, at = [_on(view, side, at, k) for side in states], k
            with torch.no_grad(), freeze.mode(model.graft.view, model.graft.head, None):
                made = model.graft.forward(states, k)
            found[task] |= dict(zip(index[:count], made[:count], strict=True))
    return {task: torch.stack([found[task][at_row[row.key]] for row in rows]) for task, rows in asked.items()}


def _on(view: View, side: Side, start: int, stop: int) -> Side:
    """States at a frontier taken on to a higher one."""
    with torch.no_grad():
        made = view.run(side.state.inputs, start=start, stop=stop, state=side.state)
    return Side(as_state(made, side.state.inputs), side.windows)
