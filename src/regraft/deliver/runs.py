"""Runs on disk: what lies in a folder of runs, which rows a run had in which split, and how a run is removed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from regraft.errors import UsageError, near
from regraft.kit import durable, store
from regraft.waist import Options, Score, Target, Trial, Verdict

State = Literal["finished", "in use", "begun", "unreadable"]
LOCK = ".lock"
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Listed:
    """A run as a line of a list; what is not known yet is empty, 0 or None.

    `when` is when it ended, or was last begun, as ISO 8601 in UTC. "begun" waits to be gone on with; "unreadable" was
    changed, or made by another version.
    """

    run: str
    data: str
    model: str
    when: str
    state: State
    decision: str
    winner: str
    score: Score | None
    bytes: int


class Held(NamedTuple):
    """A row as a run's splits.csv keeps it: `y` is a label, a tuple of labels or a number, `key` names its content."""

    id: str
    split: str
    y: Any
    key: str


def ls(folder: Path) -> list[Listed]:
    """The runs right below `folder`, or the run that it is, the newest first.

    Raises: UsageError: there is no such folder; the nearest name is shown.
    """
    if not folder.is_dir():
        beside = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        guess = near(folder.name, beside)
        raise UsageError(
            "there is no such folder",
            saw=str(folder),
            allowed="a folder that runs were put into",
            do=f"did you mean {folder.parent / guess}?" if guess else "regraft adapt DATA --model MODEL starts a run",
        )
    places = [folder] if is_run(folder) else [p for p in folder.iterdir() if is_run(p)]
    return sorted((_listed(path) for path in places), key=lambda one: (one.when, one.run), reverse=True)


def is_run(path: Path) -> bool:
    """Whether a folder holds the request of a run: its form is looked at, so that no other options.json passes."""
    try:
        held = json.loads((path / "options.json").read_bytes())
        return {"data", "model", "strategies"} <= set(held["record"]) and "inputs" in held
    except (OSError, ValueError, TypeError, KeyError):
        return False


def rows(path: Path, target: Target) -> list[Held]:
    """The rows that a run used, in the order of its splits.csv.

    Raises: UsageError: it is missing or was changed.
    """
    try:
        data = store.Folder(path).vouched("splits.csv").read_bytes()
        sheet = csv.reader(io.StringIO(data.decode("utf-8", "surrogatepass"), newline=""))
        next(sheet)
        return [Held(i, split, _value(y, target), key) for i, split, y, key, *_ in sheet]
    except (OSError, ValueError, StopIteration, csv.Error) as error:
        raise UsageError(
            "the rows of this run are not known",
            saw=f"{path / 'splits.csv'}: {type(error).__name__}",
            allowed="the file as regraft wrote it",
            do="run the command that made it again, with --fresh",
        ) from error


def removable(path: Path) -> None:
    """Refuse what must not be removed as a run.

    Raises: UsageError: a link, no run, or a run in use.
    """
    if path.is_symlink():
        raise UsageError(
            "this is a link, not a run", saw=f"{path} → {os.readlink(path)}", allowed="a run's own folder", do="name it"
        )
    if not is_run(path):
        store.existing(path)  # tells the nearest run, where there is no options.json at all
        raise UsageError(
            "this folder is no run of regraft",
            saw=f"{path}/options.json of another form",
            allowed="folders that regraft adapt made",
            do="remove it yourself if it is not needed",
        )
    with _held(path):
        pass


def remove(path: Path) -> int:
    """Remove a run with all that is in it; returns the bytes that it held. A removal that a kill cuts short goes on.

    Raises: UsageError: as `removable`; or something in it could not be removed.
    """
    removable(path)
    place, size = path.resolve(), size_of(path)
    with _held(place):
        last = ("options.json", LOCK)  # while its request is there, it is a run and can be removed
        for inside in sorted(place.iterdir()):
            if inside.name not in last:
                durable.remove(inside)
        durable.remove(place)
    if place.exists():
        raise UsageError(
            "a run could not be removed whole",
            saw=", ".join(sorted(p.name for p in place.iterdir())[:5]),
            allowed="files you may delete",
            do="check the permissions, then remove it again",
        )
    return size


# ---------------------------------------------------------------- one run


def _listed(path: Path) -> Listed:
    folder = store.Folder(path)
    state: State = "in use" if durable.held(path / LOCK) else "begun"
    data = model = decision = winner = ""
    score = None
    ended = path / "verdict.json"
    try:
        asked = folder.load("options", Options)
        data, model = _name(asked.data), _name(asked.model)
        if folder.has("verdict"):
            verdict, trials = folder.load("verdict", Verdict), folder.load("trials", list[Trial])
            best = trials[verdict.winner]
            decision, winner = verdict.decision, best.label
            score = next((s for s in best.scores if s.split == "test"), None)
            state = "finished"
    except (UsageError, IndexError):
        state = "unreadable"
    when = datetime.fromtimestamp((ended if ended.is_file() else path / "options.json").stat().st_mtime, UTC)
    stamp = when.isoformat(timespec="seconds")
    return Listed(str(path), data, model, stamp, state, decision, winner, score, size_of(path))


def _name(what: str) -> str:
    """A path by its last part; a name, or what was in memory, as it is."""
    return Path(what).name if Path(what).is_absolute() else what


def _value(text: str, target: Target) -> Any:
    """A target as the data had it: a number, several labels or one."""
    if target.kind == "number":
        return float(text)
    return tuple(json.loads(text)) if target.kind == "multi" else _label(text, target)


def _label(text: str, target: Target) -> str:
    """A label as it is: spreadsheets get a quote before what looks like a formula."""
    quoted = text not in target.labels and text[:1] == "'" and text[1:].startswith(FORMULA)
    return text[1:] if quoted else text


def size_of(path: Path) -> int:
    """The bytes of the files below a folder, links not followed; 0 where there is none."""
    return sum(Path(top, name).lstat().st_size for top, _, names in os.walk(path) for name in names)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a run's lock, so that nobody begins to use it."""
    try:
        with durable.lock(path / LOCK, f"the run {path}"):
            yield
    except UsageError as error:
        raise UsageError(
            error.what, error.saw, error.allowed, "wait for it, or stop it, then remove the run"
        ) from error
