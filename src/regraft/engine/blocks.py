"""Stores of the trunk cache on disk, looked at without torch: listed, checked, removed; the least used make room."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from regraft.errors import ResourceError, UsageError, near
from regraft.kit import durable, hardware, store

ABOUT = "store"
SHORT = 8
"""So many digits of an address are shown, and half of them are enough to name a store."""
ADDRESS = re.compile(r"[0-9a-f]{32}")
UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class About:
    """What a store holds the states of, for people: its address alone decides who reads it."""

    model: str
    provider: str
    pooling: str
    frontier: int
    stages: int
    engine: str
    dtype: str
    threads: int
    micro_batch: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A store as a line of a list; `about` is None where an older version made it. `used` is ISO 8601 in UTC."""

    address: str
    about: About | None
    rows: int
    blocks: int
    bytes: int
    used: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a store's blocks when their bytes were compared to their names."""

    address: str
    blocks: int
    damaged: tuple[str, ...]
    removed: tuple[str, ...]


def root() -> Path:
    """The folder that stores lie in."""
    return hardware.cache_folder() / "trunk"


def within(folder: Path) -> list[Path]:
    """The blocks of a store, sorted; another process may be removing it."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(folder.glob("*.block"))
    return []


def ls() -> list[Stored]:
    """Every store of the cache, the one that was used last first; nothing is changed."""
    found = [(date(path), path) for path in _stores()]
    return [_listed(path, when) for when, path in sorted(found, reverse=True) if when]


def named(names: Sequence[str]) -> list[Stored]:
    """The stores that have these addresses, or the only ones that begin with them, or are of models of these names.

    Raises: UsageError: a name is none of these, or the beginning of several addresses.
    """
    there = ls()
    chosen: dict[str, Stored] = {}
    for name in names:
        models = [one for one in there if one.about is not None and one.about.model == name]
        found = models or [one for one in there if len(name) >= SHORT // 2 and one.address.startswith(name)]
        known = list(dict.fromkeys(one.about.model for one in there if one.about is not None))
        addresses = [one.address[:SHORT] for one in there]
        if not found or (len(found) > 1 and not models):
            guess = near(name, [*known, *addresses])
            raise UsageError(
                "this names several stores" if found else "there is no store of that name in the cache",
                saw=repr(name),
                allowed=", ".join([*known, *addresses][:12]) or f"nothing: there are no stores in {root()}",
                do=f"did you mean {guess}?" if guess and not found else "regraft cache ls lists them",
            )
        chosen |= {one.address: one for one in found}
    return list(chosen.values())


def unused(age_s: float) -> list[Stored]:
    """The stores that were not used for so many seconds."""
    now = datetime.now(UTC).timestamp()
    return [one for one in ls() if now - datetime.fromisoformat(one.used).timestamp() > age_s]


def seconds(age: str) -> float:
    """An age such as 30d in seconds.

    Raises: UsageError: it is none.

    >>> seconds("12h"), seconds("30d"), seconds("2w")
    (43200.0, 2592000.0, 1209600.0)
    """
    told = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", age.strip().lower())
    if told is None:
        raise UsageError("this is no age", saw=repr(age), allowed="hours, days or weeks: 12h, 30d, 2w", do="write 30d")
    return float(told[1]) * UNITS[told[2]]


def remove(one: Stored) -> int:
    """Remove a store; returns the bytes that it held. A process that uses it keeps what it has open and goes on.

    Raises: UsageError: something in it could not be removed.
    """
    place = root() / one.address
    durable.remove(place)
    durable.remove(place)  # a process that fills it may have put a block there meanwhile
    if place.exists():
        raise UsageError(
            "a store could not be removed whole",
            saw=f"{place}: {', '.join(sorted(path.name for path in place.iterdir())[:3])}",
            allowed="files you may delete, in a store that no process is filling",
            do="check the permissions, or wait for the run that fills it, then remove it again",
        )
    return one.bytes


def verify(one: Stored, fix: bool) -> Checked:
    """Compare the bytes of a store's blocks to their names, which are their SHA-256; with `fix` remove what differs."""
    blocks = within(root() / one.address)
    damaged = [path for path in blocks if not whole(path)]
    removed = []
    for path in damaged if fix else ():
        with contextlib.suppress(UsageError, ResourceError):
            durable.remove(path)
            removed.append(path.name)
    return Checked(one.address, len(blocks), tuple(path.name for path in damaged), tuple(removed))


def whole(path: Path) -> bool:
    """Whether a block can be read and is what was written; one that another process has removed is no damage."""
    try:
        return durable.file_digest(path) == path.stem
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def head(path: Path) -> dict[str, Any]:
    """What a block tells of itself: its keys, and how its tensors make states.

    Raises: ValueError: it is no block. OSError: it cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            made: dict[str, Any] = json.loads(file.metadata()["regraft"])
            return made
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no block") from error


def trim(place: Path, limit_bytes: int, keep: Path) -> None:
    """Remove the stores in `place` that were opened longest ago until the rest fits `limit_bytes`."""
    found = {path: date(path) for path in place.glob("*") if path != keep}
    stores = sorted((path for path, when in found.items() if when), key=lambda path: found[path])
    sizes = {path: size(path) for path in stores}
    total = sum(sizes.values())
    for path in stores:
        if total <= limit_bytes:
            break
        durable.remove(path)
        total -= sizes[path]


def date(path: Path) -> float:
    """When a folder was last opened; 0 where it is none, or another process has just removed it."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime if path.is_dir() else 0.0
    return 0.0


def size(folder: Path) -> int:
    """The bytes of a store's blocks; another process may be removing some."""
    found = 0
    for path in within(folder):
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def _stores() -> list[Path]:
    """The folders of the cache that are stores: nothing else there is ours to list, or to remove by name."""
    with contextlib.suppress(FileNotFoundError):
        return [path for path in root().iterdir() if ADDRESS.fullmatch(path.name) and not path.is_symlink()]
    return []


def _listed(path: Path, when: float) -> Stored:
    keys: set[str] = set()
    blocks = within(path)
    for block in blocks:
        with contextlib.suppress(OSError, ValueError):
            keys.update(head(block)["keys"])
    about = store.Folder(path).read(ABOUT, About)
    stamp = datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")
    return Stored(path.name, about, len(keys), len(blocks), size(path), stamp)
