"""The run folder: named after its request, locked while in use, made of steps that are never done twice."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from regraft.errors import UsageError, near
from regraft.kit import durable
from regraft.waist import fingerprint, plain

T = TypeVar("T")
EVENTS = "events.jsonl"
FILES = "files"


class Folder:
    """One run on disk. `step` is the program counter: what is there with equal inputs is read, not redone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def step(self, name: str, kind: type[T], work: Callable[[], T], *inputs: Any) -> T:
        """The record of step `name`: read if it was made from equal `inputs`, otherwise made and written."""
        if (held := self.made(name, kind, *inputs)) is not None:
            return held
        made = work()
        self.write(name, made, fingerprint(*inputs))
        return made

    def made(self, name: str, kind: type[T], *inputs: Any) -> T | None:
        """The record of a step that was made from equal `inputs`; None where there is none."""
        held = self._held(name)
        if held is not None and held.get("inputs") == fingerprint(*inputs):
            with contextlib.suppress(ValueError):  # a record of another version's shape is made anew
                return record(kind, held["record"])
        return None

    def write(self, name: str, made: Any, inputs: str = "") -> None:
        """Store a record under `name`, with the fingerprint of what it was made from and one of itself."""
        told = plain(made)
        durable.write_json(
            self.path / f"{name}.json", {"inputs": inputs, "sha256": fingerprint(inputs, told), "record": told}
        )

    def has(self, name: str) -> bool:
        """Whether there is such a record, whole or not."""
        return (self.path / f"{name}.json").is_file()

    def read(self, name: str, kind: type[T]) -> T | None:
        """The record of a step; None where there is none, or one that was changed since."""
        held = self._held(name)
        with contextlib.suppress(ValueError):
            return None if held is None else record(kind, held["record"])
        return None

    def load(self, name: str, kind: type[T]) -> T:
        """The record of a step that must be there.

        Raises: UsageError: it is not, or was changed; the command that goes on is shown.
        """
        if not self.has(name):
            raise UsageError(
                "this run has not come that far",
                saw=f"no {name}.json in {self.path}",
                allowed="a finished run",
                do=f"regraft adapt --resume {self.path}",
            )
        held = self._held(name)
        if held is None:
            raise changed(self.path / f"{name}.json")
        try:
            return record(kind, held["record"])
        except ValueError as error:
            raise UsageError(
                "this run cannot be read: it was changed, or made by another version",
                saw=f"{self.path / name}.json",
                allowed="the files as regraft wrote them",
                do="run the command that made it again, with --fresh",
            ) from error

    def vouch(self, *names: str) -> None:
        """Note the SHA-256 of files that are no records, so that a change of them is noticed."""
        self.write(FILES, {name: durable.file_digest(self.path / name) for name in names})

    def vouched(self, name: str) -> Path:
        """The path of such a file, or of one whose name ends with its own SHA-256.

        Raises: UsageError: it was changed since.
        """
        path = self.path / name
        known = (self.read(FILES, dict[str, str]) or {}).get(name, "") or _in_name(path)
        if path.is_file() and not durable.file_digest(path).startswith(known):
            raise changed(path)
        return path

    def damaged(self) -> Path | None:
        """The first of the run's records, or of the files that they vouch for, that was changed since; None for none.

        Weights are left out: who goes on from them compares them.
        """
        for path in sorted(self.path.rglob("*.json")):
            inside = path.relative_to(self.path).with_suffix("").as_posix()
            if not inside.startswith("bundle") and self._held(inside) is None:
                return path
        files = [self.path / name for name in self.read(FILES, dict[str, str]) or {}]
        for path in [*files, *self.path.glob("trials/*/predictions-*")]:
            try:
                self.vouched(str(path.relative_to(self.path)))
            except UsageError:
                return path
        return None

    def log(self, event: str, told: Any) -> None:
        """Add a line to events.jsonl: wall-clock seconds, the event's name and its fields."""
        line = {"t": round(time.time(), 3), "event": event, **plain(told)}
        durable.append(self.path / EVENTS, [json.dumps(line, ensure_ascii=False)])

    def _held(self, name: str) -> dict[str, Any] | None:
        """What lies under a name; None where nothing does, or where it is not what was written.

        Records of versions that noted no SHA-256 are taken as they are.
        """
        try:
            held = json.loads((self.path / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(held, dict) or not {"inputs", "record"} <= held.keys():
            return None
        same = "sha256" not in held or held["sha256"] == fingerprint(held["inputs"], held["record"])
        return held if same else None


def changed(path: Path) -> UsageError:
    """The error for a file of a run that is not what was written."""
    return UsageError(
        "a file of this run was changed, or is damaged",
        saw=str(path),
        allowed="the files as regraft wrote them",
        do="run the command that made it again: what was changed is made anew, the rest is kept",
    )


def _in_name(path: Path) -> str:
    """The digits of a SHA-256 that a file's name ends with, "" where it has none."""
    found = re.fullmatch(r".*-([0-9a-f]{16,64})", path.stem)
    return found[1] if found else ""


def record(kind: type[T], value: Any) -> T:
    """JSON values validated into a record of the waist."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python(value)


def slug(text: str) -> str:
    """A name that is safe in a path on every system: lower-case letters, digits, dots, dashes; at most 40.

    >>> slug("Ants & Bees/")
    'ants-bees'
    """
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")[:40].strip("-._") or "data"


def place(parent: Path, stem: str, key: str, *, fresh: bool) -> Path:
    """The folder of a request: the newest of `<stem>-<6 hex>`, `…-2`, `…-3`; with `fresh` the next that is free."""
    first = parent / f"{stem}-{key[:6]}"
    there = [first] if first.exists() else []
    while there and (following := first.with_name(f"{first.name}-{len(there) + 1}")).exists():
        there.append(following)
    if not there:
        return first
    return first.with_name(f"{first.name}-{len(there) + 1}") if fresh else there[-1]


def existing(path: Path) -> Path:
    """`path` as a run that exists.

    Raises: UsageError: there is none; the nearest name beside it is shown.
    """
    if (path / "options.json").is_file():
        return path
    parent = path.parent
    beside = sorted(p.parent.name for p in parent.glob("*/options.json")) if parent.is_dir() else []
    guess = near(path.name, beside)
    raise UsageError(
        "there is no run in this folder",
        saw=str(path),
        allowed=", ".join(beside[-5:]) or "a folder that regraft adapt made (it holds options.json)",
        do=f"did you mean {parent / guess}?" if guess else "regraft adapt DATA --model MODEL starts a run",
    )
