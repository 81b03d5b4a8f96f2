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


class Folder:
    """One run on disk. `step` is the program counter: what is there with equal inputs is read, not redone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def step(self, name: str, kind: type[T], work: Callable[[], T], *inputs: Any) -> T:
        """The record of step `name`: read if it was made from equal `inputs`, otherwise made and written."""
        key = fingerprint(*inputs)
        held = self._read(name)
        if held is not None and held.get("inputs") == key:
            with contextlib.suppress(ValueError):  # a record of another version's shape is made anew
                return record(kind, held["record"])
        made = work()
        self.write(name, made, key)
        return made

    def write(self, name: str, made: Any, inputs: str = "") -> None:
        """Store a record under `name`, with the fingerprint of what it was made from."""
        durable.write_json(self.path / f"{name}.json", {"inputs": inputs, "record": plain(made)})

    def has(self, name: str) -> bool:
        return self._read(name) is not None

    def load(self, name: str, kind: type[T]) -> T:
        """The record of a step that must be there.

        Raises: UsageError: it is not; the command that goes on is shown.
        """
        held = self._read(name)
        if held is None:
            raise UsageError(
                "this run has not come that far",
                saw=f"no {name}.json in {self.path}",
                allowed="a finished run",
                do=f"regraft adapt --resume {self.path}",
            )
        try:
            return record(kind, held["record"])
        except ValueError as error:
            raise UsageError(
                "this run cannot be read: it was changed, or made by another version",
                saw=f"{self.path / name}.json",
                allowed="the files as regraft wrote them",
                do="run the command that made it again, with --fresh",
            ) from error

    def log(self, event: str, told: Any) -> None:
        """Add a line to events.jsonl: wall-clock seconds, the event's name and its fields."""
        line = {"t": round(time.time(), 3), "event": event, **plain(told)}
        durable.append(self.path / EVENTS, [json.dumps(line, ensure_ascii=False)])

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            held = json.loads((self.path / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return held if isinstance(held, dict) and "record" in held else None


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
