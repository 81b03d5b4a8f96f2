"""Score a model, or the tasks of a family, on labelled data, and say which of the rows each has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from regraft.backbone import bundle as bundles
from regraft.data import columns, inspect, sources
from regraft.data.columns import Roles
from regraft.data.open import GUESS, ORDER
from regraft.data.sources import FILE, LABEL, Found
from regraft.data.split import thin
from regraft.data.tables import Table as Sheet
from regraft.data.tables import bad_row, together
from regraft.data.target import read_as, valued
from regraft.deliver import family, runs
from regraft.deliver.model import Model, open_model
from regraft.engine.predict import score
from regraft.errors import DataError, UsageError, near, unknown
from regraft.kit import shelf, store
from regraft.waist import Bundle, Event, Filled, Options, Reading, Row, Said, Score

T = TypeVar("T")
CHUNK = 512
"""So many rows are computed between two signs of life."""
SPLITS = (*ORDER, "all")
NOWHERE = "there is no training split"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model scores on data. `splits` are those whose rows were taken, with how many there were.

    `trained` counts rows whose content stands in the run's training split, `validated` those of its validation split,
    which chose epoch and plan; both are -1 where only a bundle is there, which does not know its rows. `answers` are
    as `Model.predict` gives them, each with its `truth`.
    """

    model: str
    data: str
    splits: tuple[tuple[str, int], ...]
    rows: int
    scores: tuple[Score, ...]
    trained: int
    validated: int
    answers: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """How new the rows were to the model."""
        if self.trained < 0:
            return f"{self.rows:,} rows; a bundle alone does not tell which of them it was trained on"
        if not self.trained and not self.validated:
            return f"none of the {self.rows:,} rows was trained on or chose the model"
        parts = [f"{self.trained:,} were trained on"] if self.trained else []
        parts += [f"{self.validated:,} chose the model, as validation rows"] if self.validated else []
        return f"of {self.rows:,} rows, {' and '.join(parts)}: scores on them flatter"


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows to be scored by a bundle of record `told`, what is said of them first; `split` is what scores call it."""

    model: str
    told: Bundle
    seed: int
    data: str
    split: str
    rows: Sequence[Row]
    splits: tuple[tuple[str, int], ...]
    seen: tuple[int, int]
    notes: tuple[str, ...]
    said: tuple[str, ...]


def evaluate(path: str | Path, data: Any, reading: Reading = GUESS, split: str = "") -> Evaluation:
    """Score the model of a run or a bundle on labelled `data`, anything that `adapt` reads.

    Args:
        reading: Columns where they are not called as in training; `max_rows` bounds the rows.
        split: "train", "val", "test" or "all"; the test split if there is one and otherwise all rows if left out.
    Raises: UsageError: no run, no such split or column. DataError: data of another kind, labels that the model does not
    know (they are named), no row with a label. ModelError: no bundle.
    """
    return _finish(steps(Path(path), data, reading, split))


def evaluate_family(
    folder: str | Path, data: Mapping[str, Any], reading: Reading = GUESS, split: str = ""
) -> dict[str, Evaluation]:
    """Score tasks of a family, each on its own of `data`, task → labelled data, with one pass of what they share.

    Raises: as `evaluate`; UsageError: no family, no such task.
    """
    return _finish(family_steps(Path(folder), data, reading, split))


def _finish(work: Generator[Event, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: T = end.value
            return made


def steps(
    path: Path, data: Any, reading: Reading, split: str, model: Model | None = None
) -> Generator[Event, None, Evaluation]:
    """As `evaluate`, telling on the way how far it has come; `model` is one that was opened already."""
    _refuse_split(split)
    model = model or open_model(path)
    asked = _asked(path, model.told, data, reading, split)
    yield from map(Said, asked.said)
    made: list[torch.Tensor] = []
    for start in range(0, len(asked.rows), CHUNK):
        made.append(model.outputs(asked.rows[start : start + CHUNK]))
        yield Filled(0, min(start + CHUNK, len(asked.rows)), len(asked.rows))
    return _scored(asked, torch.cat(made))


def family_steps(
    folder: Path, data: Mapping[str, Any], reading: Reading, split: str
) -> Generator[Event, None, dict[str, Evaluation]]:
    """As `evaluate_family`, telling on the way how far it has come. All data is read before a model is opened."""
    _refuse_split(split)
    told = family.read(folder)
    asked: dict[str, Asked] = {}
    for task, one in data.items():
        member = told.member(task)
        record = bundles.read(family.bundle_of(folder, member))
        asked[task] = _asked(folder / member.place, record, one, reading, split)
        yield from (Said(f"{task}: {line}") for line in asked[task].said)
    together = family.open_tasks(folder, asked)
    keys = list(dict.fromkeys(row.key for one in asked.values() for row in one.rows))
    found: dict[str, dict[str, torch.Tensor]] = {task: {} for task in asked}
    for start in range(0, len(keys), CHUNK):
        some = set(keys[start : start + CHUNK])
        rows = {task: [row for row in one.rows if row.key in some] for task, one in asked.items()}
        for task, made in together.outputs(rows).items():
            found[task] |= dict(zip((row.key for row in rows[task]), made, strict=True))
        yield Filled(0, min(start + CHUNK, len(keys)), len(keys))
    return {task: _scored(one, torch.stack([found[task][r.key] for r in one.rows])) for task, one in asked.items()}


def _refuse_split(split: str) -> None:
    if split and split not in SPLITS:
        raise unknown("split", split, SPLITS)


def _asked(path: Path, told: Bundle, data: Any, reading: Reading, split: str) -> Asked:
    """The rows of `data` that the model in `path` is to be scored on."""
    seed = _seed(path)
    found = _found(data)
    rows, taken, notes = _rows(found, told, reading, split)
    if reading.max_rows and len(rows) > reading.max_rows:
        notes.append(f"{reading.max_rows:,} of {len(rows):,} rows kept, --max-rows")
        rows = thin(rows, reading.max_rows, seed, cover=False)
    name = taken[0][0] if len(taken) == 1 and (split or len(found.tables) > 1) else "all"
    which = ", ".join(f"{count:,} {one}" for one, count in taken)
    said = f"{found.name}: scoring {len(rows):,} rows{f' ({which})' if len(found.tables) > 1 else ''}"
    seen = _seen(path, told, rows)
    return Asked(str(path), told, seed, found.name, name, rows, tuple(taken), seen, tuple(notes), (*notes, said))


def _scored(asked: Asked, made: torch.Tensor) -> Evaluation:
    """What outputs for these rows score."""
    told = asked.told
    metric = next((s.metric for s in told.scores), "")
    task = shelf.find("tasks", told.task).make(told.target, metric)
    said = task.answers(made, dict(told.calibration))
    answers = ({"id": row.id, "truth": _plain(row.y), **one} for row, one in zip(asked.rows, said, strict=True))
    return Evaluation(
        model=asked.model,
        data=asked.data,
        splits=asked.splits,
        rows=len(asked.rows),
        scores=score(task, made, [row.y for row in asked.rows], asked.split, asked.seed),
        trained=asked.seen[0],
        validated=asked.seen[1],
        answers=tuple(answers),
        notes=asked.notes,
    )


# ---------------------------------------------------------------- rows


def _found(data: Any) -> Found:
    """What the data is; a folder with a single split is best named itself."""
    try:
        return sources.find(data, GUESS)
    except DataError as error:
        if error.what != NOWHERE:
            raise
        raise DataError(
            "it is not clear which rows to score",
            saw=error.saw,
            allowed="a table, a folder of class folders, or splits with a training split among them",
            do="name the split's own file or folder",
        ) from error


def _rows(
    found: Found, told: Bundle, reading: Reading, split: str
) -> tuple[list[Row], list[tuple[str, int]], list[str]]:
    """The rows with a label, (split, rows) that they come from, and what is worth knowing."""
    names = [split] if split not in ("", "all") else ["test"] if not split and "test" in found.tables else []
    if names and names[0] not in found.tables:
        raise UsageError(
            f"this data has no {split} split",
            saw=f"{found.name}: {', '.join(found.tables)}",
            allowed=", ".join([*found.tables, "all"]),
            do="leave --split away",
        )
    noun = shelf.find("modalities", told.modality).NOUN
    rows: list[Row] = []
    taken = []
    names = names or [name for name in ORDER if name in found.tables]
    unread, notes = together([(name, found.tables[name]) for name in names])
    bad = [*(one for one in found.bad if one.split in names), *unread]
    for name in names:
        table = found.tables[name]
        roles = _roles(table, found, told, reading)
        if roles.modality != told.modality or (told.columns and len(roles.inputs) != len(told.columns)):
            raise DataError(
                "this data is of another kind than the model reads",
                saw=f"{found.name}: {' + '.join(roles.inputs)} ({roles.modality})",
                allowed=f"{noun}{': pairs of ' + ' + '.join(told.columns) if len(told.columns) == 2 else ''}",
                do="give data of that kind, or name its columns with --text or --image",
            )
        made = columns.rows(table, roles)
        kept, gone = valued(made.rows, read_as(roles.target, told.target.kind, [row.y for row in made.rows]))
        bad += [bad_row(table, name, i, why) for i, why in made.bad]
        bad += inspect.without_target(table, name, gone)
        rows += kept
        taken.append((name, len(kept)))
    notes += inspect.counted(bad)
    if not rows:
        raise DataError(
            "no row can be scored",
            saw="; ".join(notes) or f"{found.name} without rows",
            allowed=f"{noun} with a value of {told.target.name}",
            do="name the column of labels with --target",
        )
    _refuse_strangers(rows, told)
    return rows, taken, notes


def _roles(table: Sheet, found: Found, told: Bundle, reading: Reading) -> Roles:
    """Which column is what: as asked for, otherwise called as in training."""
    asked = [("target", reading.target), ("text", ",".join(reading.text)), ("image", reading.image)]
    if found.modality:
        if given := [f"--{flag} {name}" for flag, name in asked if name]:
            raise UsageError(
                "a folder of files has no columns", ", ".join(given), "columns for tables", "leave it away"
            )
        return Roles(found.modality, (FILE,), LABEL)
    usual = Reading(target=told.target.name)
    if told.columns and shelf.find("modalities", told.modality).LITERAL:
        usual = replace(usual, text=told.columns)
    elif told.columns:
        usual = replace(usual, image=told.columns[0])
    if not told.columns and told.target.name not in table.columns:
        usual = GUESS  # trained on a folder of files: a table's columns have no names to be known by
    if reading.text or reading.image:
        usual = replace(usual, text=reading.text, image=reading.image)
    wanted = replace(usual, target=reading.target or usual.target)
    known = {name.lower() for name in table.columns}
    if lacking := [n for n in (wanted.target, *wanted.text, wanted.image) if n and n.lower() not in known]:
        guess = near(lacking[0], table.columns)
        flag = "target" if lacking[0] == wanted.target else "image" if lacking[0] == wanted.image else "text"
        raise UsageError(
            "this data lacks a column",
            saw=f"no {', '.join(lacking)} in {', '.join(list(table.columns)[:20])}",
            allowed="columns called as in training, or named with --target, --text, --image",
            do=f"did you mean --{flag} {guess}?" if guess else f"name it with --{flag}",
        )
    return columns.choose(table, wanted, found.files)


def _refuse_strangers(rows: Sequence[Row], told: Bundle) -> None:
    """Refuse labels that the model cannot answer.

    Raises: DataError: the labels, with how many rows carry each.
    """
    if told.target.kind == "number":
        return
    count = Counter(label for row in rows for label in (row.y if isinstance(row.y, tuple) else (row.y,)))
    strange = sorted(set(count) - set(told.target.labels))
    if not strange:
        return
    some = ", ".join(f"{label[:40]} ({count[label]:,} rows)" for label in strange[:5])
    guess = near(strange[0], told.target.labels)
    raise DataError(
        "the data has labels that the model does not know",
        saw=some + (" …" if len(strange) > 5 else ""),
        allowed=", ".join(told.target.labels[:20]) + (" …" if len(told.target.labels) > 20 else ""),
        do=f"did you mean {guess}? rename them, or leave these rows out" if guess else "leave these rows out",
    )


# ---------------------------------------------------------------- the model and its run


def _seed(path: Path) -> int:
    """The seed of a run, so that its own test split gets its own intervals; 0 for a bundle."""
    return store.Folder(path).load("options", Options).seed if runs.is_run(path) else 0


def _seen(path: Path, told: Bundle, rows: Sequence[Row]) -> tuple[int, int]:
    """How many rows stand in the run's training split and how many in its validation split; -1 if nobody knows."""
    if not runs.is_run(path):
        return -1, -1
    keys: dict[str, set[str]] = {name: set() for name in ORDER}
    for held in runs.rows(path, told.target):
        keys.setdefault(held.split, set()).add(held.key)
    both = keys["train"] | (keys["val"] if told.plan.fold == "all" else set())
    trained = sum(row.key in both for row in rows)
    return trained, sum(row.key in keys["val"] - both for row in rows)


def _plain(y: Any) -> Any:
    return list(y) if isinstance(y, tuple) else y
