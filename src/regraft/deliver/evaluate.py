"""Score a model on labelled data that it was not adapted to, and say which of the rows it has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from regraft.data import columns, inspect, sources
from regraft.data.columns import Roles
from regraft.data.open import GUESS, ORDER
from regraft.data.sources import FILE, LABEL, Found
from regraft.data.split import thin
from regraft.data.tables import Table as Sheet
from regraft.data.tables import bad_row, together
from regraft.data.target import read_as, valued
from regraft.deliver import runs
from regraft.deliver.model import open_model
from regraft.engine.predict import score
from regraft.errors import DataError, UsageError, near, unknown
from regraft.kit import shelf, store
from regraft.waist import Bundle, Event, Filled, Options, Reading, Row, Said, Score

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


def evaluate(path: str | Path, data: Any, reading: Reading = GUESS, split: str = "") -> Evaluation:
    """Score the model of a run or a bundle on labelled `data`, anything that `adapt` reads.

    Args:
        reading: Columns where they are not called as in training; `max_rows` bounds the rows.
        split: "train", "val", "test" or "all"; the test split if there is one and otherwise all rows if left out.
    Raises: UsageError: no run, no such split or column. DataError: data of another kind, labels that the model does not
    know (they are named), no row with a label. ModelError: no bundle.
    """
    work = steps(Path(path), data, reading, split)
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: Evaluation = end.value
            return made


def steps(path: Path, data: Any, reading: Reading, split: str) -> Generator[Event, None, Evaluation]:
    """As `evaluate`, telling on the way how far it has come."""
    if split and split not in SPLITS:
        raise unknown("split", split, SPLITS)
    model = open_model(path)
    told = model.told
    seed = _seed(path)
    found = _found(data)
    rows, taken, notes = _rows(found, told, reading, split)
    if reading.max_rows and len(rows) > reading.max_rows:
        notes.append(f"{reading.max_rows:,} of {len(rows):,} rows kept, --max-rows")
        rows = thin(rows, reading.max_rows, seed, cover=False)
    trained, validated = _seen(path, told, rows)
    for note in notes:
        yield Said(note)
    name = taken[0][0] if len(taken) == 1 and (split or len(found.tables) > 1) else "all"
    which = ", ".join(f"{count:,} {one}" for one, count in taken)
    yield Said(f"{found.name}: scoring {len(rows):,} rows{f' ({which})' if len(found.tables) > 1 else ''}")
    made: list[torch.Tensor] = []
    for start in range(0, len(rows), CHUNK):
        made.append(model.outputs(rows[start : start + CHUNK]))
        yield Filled(0, min(start + CHUNK, len(rows)), len(rows))
    every = torch.cat(made)
    metric = next((s.metric for s in told.scores), "")
    task = shelf.find("tasks", told.task).make(told.target, metric)
    scores = score(task, every, [row.y for row in rows], name, seed)
    said = task.answers(every, dict(told.calibration))
    answers = tuple({"id": row.id, "truth": _plain(row.y), **one} for row, one in zip(rows, said, strict=True))
    return Evaluation(
        model=str(path),
        data=found.name,
        splits=tuple(taken),
        rows=len(rows),
        scores=scores,
        trained=trained,
        validated=validated,
        answers=answers,
        notes=tuple(notes),
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
