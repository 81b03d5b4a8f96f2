"""Write to disk so that after any kill, full disk or power loss a file is whole: the old one or the new one.

Nothing else in regraft writes persistent bytes. A file is written beside its place, synced, renamed, and its folder
synced. A folder is filled under a temporary name, synced whole, then renamed. Litter of processes that died carries
their number and is swept when a folder is opened next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError, ResourceError, UsageError

PART = ".part-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
_DENIED |= {errno.ENAMETOOLONG}


def _nothing(op: str, path: Path) -> None:
    """Called before each durable operation; tests put a fault here."""


before: Callable[[str, Path], None] = _nothing


def private(place: Path) -> None:
    """Make a folder that its owner alone may enter, unless it is there."""
    with _explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)


def digest(data: bytes) -> str:
    """SHA-256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, data: bytes) -> None:
    """Put `data` at `path`: whole or not at all.

    Raises: ResourceError: the disk is full or fails. UsageError: the place may not be written.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{PART}{os.getpid()}-{path.name[-80:]}")
        try:
            before("write", part)
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                before("sync", part)
                os.fsync(file.fileno())
            before("rename", path)
            os.replace(part, path)
            _sync_folder(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Put a JSON value at `path`, indented, keys in the order given."""
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))


def append(path: Path, lines: list[str]) -> None:
    """Add lines to a log. Readers skip a last line that a kill cut short."""
    with _explained(path):
        before("append", path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))


@contextlib.contextmanager
def folder(final: Path) -> Iterator[Path]:
    """A temporary folder to fill, synced and renamed to `final` (a new name) if the block ends well, else removed.

    Raises: ResourceError, UsageError: as `write`.
    """
    with _explained(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f"{PART}{os.getpid()}-{final.name}")
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(mode=0o700)
            yield part
            sums(part)
            before("rename", final)
            os.rename(part, final)
            _sync_folder(final.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def fill(path: Path, data: bytes) -> None:
    """Put a file into a folder that is being filled; `folder` syncs it with all the others at the end."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def sums(place: Path) -> dict[str, str]:
    """Sync every file below `place`; its name and SHA-256, sorted by name."""
    found = {}
    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        before("sync", path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        found[path.relative_to(place).as_posix()] = file_digest(path)
    return found


def changed(place: Path, wanted: Iterable[tuple[str, str]]) -> str:
    """The first of these (name, SHA-256) that is not what lies in `place`, in words; "" when all are."""
    for name, digest_ in wanted:
        path = place / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
            return f"{name} is missing"
        if file_digest(path) != digest_:
            return f"{name} has changed bytes"
    return ""


def point(link: Path, target: str) -> None:
    """Make the symbolic link `link` name `target` (beside it), in one step."""
    with _explained(link):
        part = link.with_name(f"{PART}{os.getpid()}-{link.name}")
        part.unlink(missing_ok=True)
        before("link", link)
        os.symlink(target, part)
        os.replace(part, link)
        _sync_folder(link.parent)


def remove(path: Path) -> None:
    """Delete a file or a folder that is no longer needed; it may be gone already."""
    before("remove", path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(place: Path) -> int:
    """Remove what dead processes left half-written in or below `place`; returns how many pieces."""
    swept = 0
    for part in list(place.rglob(f"{PART}*")):
        number = part.name[len(PART) :].split("-")[0]
        if number.isdigit() and int(number) != os.getpid() and not _alive(int(number)):
            remove(part)
            swept += 1
    return swept


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold `path` for this process; it is free again when the process ends, however it ends.

    Raises: UsageError: another process holds it; its number is shown.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(40).decode("ascii", "replace").strip() or "unknown"
            raise UsageError(
                f"{what} is in use by another process",
                saw=f"process {holder}",
                allowed="one process at a time",
                do="wait for it, or use --fresh for a run of its own",
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        yield
    finally:
        file.close()


def held(path: Path) -> bool:
    """Whether another process holds the lock at `path` now; nothing is written to find out."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the system's refusals into errors with a way out."""
    try:
        yield
    except OSError as error:
        if isinstance(error, RegraftError) or error.errno not in _FULL | _DENIED:
            raise
        if error.errno in _FULL:
            free = shutil.disk_usage(_existing(path)).free
            raise ResourceError(
                "writing failed; what was there before is untouched",
                saw=f"{error.strerror} at {path} ({free / 1e6:,.0f} MB free)",
                allowed="a disk with room",
                do="free space or choose another place with --out, then run the same command again",
            ) from error
        raise UsageError(
            "this place may not be written",
            saw=f"{error.strerror}: {path}",
            allowed="a folder you may write to",
            do="choose another place with --out",
        ) from error


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _sync_folder(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
