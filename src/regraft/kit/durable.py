"""Write to disk so that after any kill, full disk or power loss a file is whole: the old one or the new one.

Nothing else in regraft writes persistent bytes. A file is written beside its place, synced, renamed, and its folder
synced. A folder is filled under a temporary name, synced whole, then renamed. What is being written is locked; litter
of processes that died is not, and is swept when a folder is opened next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from regraft.errors import RegraftError, ResourceError, UsageError
from regraft.kit import hardware

PART = ".part-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
_DENIED |= {errno.ENAMETOOLONG, errno.ENOLCK, errno.EOPNOTSUPP}
_CLOCK_S = 2.0
"""By how much two times of one system may differ: processes are dated to the second."""


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

    Raises: ResourceError: the disk has no room or fails. UsageError: the place may not be written.
    """
    with _explained(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{PART}{os.getpid()}-{path.name[-80:]}")
        try:
            with part.open("wb") as file:
                _claim(file.fileno())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(part, path)
            _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


def write_json(path: Path, value: Any) -> None:
    """Put a JSON value at `path`, indented, keys in the order given."""
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))


def append(path: Path, lines: list[str]) -> None:
    """Add lines to a log, on a new line where a kill or a full disk has cut the last one short."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            torn = file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            text = "\n" * bool(torn) + "".join(line + "\n" for line in lines)
            file.write(text.encode("utf-8", "surrogatepass"))


@contextlib.contextmanager
def folder(final: Path, need: int = 0) -> Iterator[Path]:
    """A temporary folder to fill, synced and renamed to `final` (a new name) if the block ends well, else removed.

    `need` are the bytes that it is known to take.

    Raises: ResourceError, UsageError: as `write`.
    """
    with _explained(final, need):
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f"{PART}{os.getpid()}-{final.name}")
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(mode=0o700)
            with _locked(part):
                yield part
                sums(part)
                os.rename(part, final)
            _sync_folder(final.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def fill(path: Path, data: bytes) -> None:
    """Put a file into a folder that is being filled; `folder` syncs it with all the others at the end."""
    with _explained(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def mirror(path: Path, source: Path) -> None:
    """Let `path`, in a folder that is being filled, be a link to a file that is only read."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(source.resolve(), path)


def scratch(pieces: Iterable[bytes]) -> BinaryIO:
    """A temporary file with this content and without a name: it is gone when it is closed, however that happens.

    Raises: ResourceError: the disk is full.
    """
    place = Path(tempfile.gettempdir())
    with _explained(place), contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(dir=place))
        for piece in pieces:
            file.write(piece)
        file.seek(0)
        stack.pop_all()
        return file


def sums(place: Path) -> dict[str, str]:
    """Sync every file below `place`, and every folder; each file's name and SHA-256, sorted by name."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_dir():
            _sync_folder(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
        found[path.relative_to(place).as_posix()] = file_digest(path)
    _sync_folder(place)
    return dict(sorted(found.items()))


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
        try:
            os.symlink(target, part)
            os.replace(part, link)
            _sync_folder(link.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


def remove(path: Path) -> None:
    """Delete a file or a folder that is no longer needed; it may be gone already.

    Raises: ResourceError, UsageError: as `write`.
    """
    with _explained(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sweep(place: Path) -> int:
    """Remove what dead processes left half-written in or below `place`; returns how many pieces."""
    swept = 0
    for part in list(place.rglob(f"{PART}*")):
        number = part.name[len(PART) :].split("-")[0]
        if number.isdigit() and _dead(part, int(number)):
            remove(part)
            swept += 1
    return swept


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold `path` for this process; it is free again when the process ends, however it ends.

    The system keeps the lock, not the file: what a dead process has written into it is only for people.

    Raises: UsageError: another process holds it; its number and its machine are shown.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    with file:
        try:
            with _explained(path):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(100).decode("ascii", "replace").strip()
            raise UsageError(
                f"{what} is in use by another process",
                saw=f"process {holder or 'unknown'}",
                allowed="one process at a time",
                do="wait for it, or use --fresh for a run of its own",
            ) from error
        with contextlib.suppress(OSError):  # of a full disk: the lock is held all the same
            file.truncate(0)
            file.write(f"{os.getpid()} on {platform.node()}\n".encode("ascii", "replace"))
            file.flush()
        yield


def held(path: Path) -> bool:
    """Whether another process holds the lock at `path` now; nothing is written to find out."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def _explained(path: Path, need: int = 0) -> Iterator[None]:
    """Turn the system's refusals into errors with a way out, a disk without room for `need` bytes before it is full."""
    try:
        if need and hardware.free_bytes(path) < need:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        yield
    except RegraftError:
        raise
    except Exception as error:
        code = _code(error)
        if code in _FULL:
            size = f"{need / 1e6:,.1f} MB are needed, " if need else ""
            raise ResourceError(
                "writing failed; what was there before is untouched",
                saw=f"{os.strerror(code)} at {path} ({size}{hardware.free_bytes(path) / 1e6:,.1f} MB free)",
                allowed="a disk with room",
                do="free space or choose another place with --out, then run the same command again",
            ) from error
        if code in _DENIED:
            raise UsageError(
                "this place may not be written",
                saw=f"{os.strerror(code)}: {path}",
                allowed="a folder you may write to",
                do="choose another place with --out",
            ) from error
        raise


def _code(error: Exception) -> int:
    """The number of a system's error; libraries in Rust have it in their text alone."""
    told = None if isinstance(error, OSError) else re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else (error.errno or 0) if isinstance(error, OSError) else 0


def _sync_folder(place: Path) -> None:
    with _handle(place) as handle:
        os.fsync(handle)


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold a folder as one that is being filled."""
    with _handle(place) as handle:
        _claim(handle)
        yield


def _claim(handle: int) -> None:
    """Lock what is being written, so that nobody takes it for litter; some file systems have no locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _handle(place: Path) -> Iterator[int]:
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


def _dead(part: Path, number: int) -> bool:
    """Whether nobody writes a piece any more: nobody holds it, and the process of its number is gone or began later.

    Both are asked: a lock comes a moment after its file, and after a restart the number may be another process's.
    """
    import psutil

    try:
        return not held(part) and psutil.Process(number).create_time() > part.lstat().st_mtime + _CLOCK_S
    except (psutil.Error, FileNotFoundError):
        return not held(part)
