"""Stand between this process and its files: count what it does to them, kill it there, refuse it, or lose power.

Python's own file functions are replaced while a `Disk` is in use, so the product needs no hook. What a library writes
by other means is seen when it is synced or renamed.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("open", "replace", "rename", "symlink", "unlink", "remove", "mkdir", "rmdir", "fsync")
UNDOES = ("unlink", "rmdir")
"""What a full disk still allows."""


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on a file: its number from 1, what it does, to which path, with which bytes or other path."""

    number: int
    kind: str
    path: Path
    data: bytes = b""
    other: Path | None = None


Fault = Callable[[Op], None]


def kill_at(number: int, share: float = 0.5) -> Fault:
    """SIGKILL before operation `number`; a write is cut short there, after that share of its bytes."""

    def fault(op: Op) -> None:
        if op.number == number:
            if op.kind == "write":
                handle = os.open(op.path, os.O_WRONLY | os.O_APPEND)
                os.write(handle, op.data[: int(share * len(op.data))])
            os.kill(os.getpid(), signal.SIGKILL)

    return fault


def fail_at(number: int, code: int, *, once: bool = False, only: str = "", below: str = "") -> Fault:
    """Refuse operation `number` and, unless `once`, all after it, with an error of the system.

    `only` is a kind of operation, `below` a part of the path, where not all are meant.
    """
    import errno

    full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

    def fault(op: Op) -> None:
        due = op.number == number if once else op.number >= number
        meant = (not only or op.kind == only) and below in str(op.path)
        if due and meant and not (full and op.kind in UNDOES):
            raise OSError(code, os.strerror(code), str(op.path))

    return fault


class Disk:
    """While it is in use, operations that change something below `root` are numbered, kept in `trace` and put to
    `fault`.
    """

    def __init__(self, root: Path, fault: Fault | None = None) -> None:
        self.root, self.fault, self.count, self.trace = str(root.absolute()), fault, 0, list[Op]()

    def act(self, kind: str, path: Any, data: bytes = b"", other: Any = None) -> None:
        place = os.path.abspath(os.fsdecode(path))
        if place.startswith(self.root):
            self.count += 1
            op = Op(self.count, kind, Path(place), data, None if other is None else Path(os.fsdecode(other)))
            if self.fault is not None:
                self.fault(op)
            self.trace.append(op)

    @contextlib.contextmanager
    def used(self) -> Iterator[Disk]:
        """Numbers every operation until the block ends."""
        real = {name: getattr(os, name) for name in NAMES}
        plain = io.open
        try:
            for name in ("unlink", "remove", "mkdir", "rmdir"):
                setattr(os, name, self._one("unlink" if name == "remove" else name, real[name]))
            for name in ("replace", "rename", "symlink"):
                setattr(os, name, self._two("symlink" if name == "symlink" else "rename", real[name]))
            os.fsync = self._sync(real["fsync"])  # type: ignore[assignment]
            os.open = self._handle(real["open"])  # type: ignore[assignment]
            io.open = builtins.open = self._open(plain)  # type: ignore[assignment]
            yield self
        finally:
            for name, function in real.items():
                setattr(os, name, function)
            io.open = builtins.open = plain  # type: ignore[assignment]

    def _one(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, dir_fd: int | None = None, **more: Any) -> Any:
            whole = path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), os.fsdecode(path))
            if os.path.lexists(os.fsdecode(whole)) == (kind == "mkdir"):
                return real(path, *args, dir_fd=dir_fd, **more)  # it changes nothing
            self.act(kind, whole)
            return real(path, *args, dir_fd=dir_fd, **more)

        return call

    def _two(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(old: Any, new: Any, *args: Any, **more: Any) -> Any:
            self.act(kind, new, other=old)
            return real(old, new, *args, **more)

        return call

    def _sync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(handle: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            self.act("sync", path, path.read_bytes() if path.is_file() else b"")
            real(handle)

        return call

    def _handle(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.act("open", path)
            return real(path, flags, *args, **more)

        return call

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        disk = self

        class Raw(io.FileIO):
            def write(self, data: Any, /) -> int:
                disk.act("write", self.name, bytes(data))
                return super().write(data)

            def truncate(self, size: int | None = None, /) -> int:
                disk.act("truncate", self.name)
                return super().truncate(size)

        def call(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            path = os.path.abspath(os.fsdecode(file))
            if not path.startswith(disk.root):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            disk.act("open" if "a" in mode or "+" in mode else "create", path)
            raw = Raw(path, mode.replace("b", "").replace("t", ""))
            held: Any = raw if not buffering else io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return held if "b" in mode else io.TextIOWrapper(held, encoding, errors, newline)

        return call


class Lost:
    """What a disk holds after power was lost: names are as they were changed, in order, but bytes that were not synced
    are gone, or zeros of the same number.

    So it is on a file system with a journal of names alone, such as ext4.
    """

    def __init__(self, trace: list[Op], root: Path) -> None:
        self.root = root
        self.files: dict[Path, tuple[bytes, bytes]] = {}
        """Path → what was synced, what was written."""
        self.links: dict[Path, Path] = {}
        self.folders: set[Path] = set()
        for op in trace:
            self._apply(op)

    def _apply(self, op: Op) -> None:
        synced, written = self.files.get(op.path, (b"", b""))
        if op.kind == "mkdir":
            self.folders.add(op.path)
        elif op.kind in ("create", "truncate", "open"):
            self.files[op.path] = (synced, b"" if op.kind != "open" else written)
        elif op.kind == "write":
            self.files[op.path] = (synced, written + op.data)
        elif op.kind == "sync" and op.path not in self.folders and op.path.suffix != "":
            self.files[op.path] = (op.data, op.data)
        elif op.kind == "symlink" and op.other is not None:
            self.links[op.path] = op.other
        elif op.kind == "rename" and op.other is not None:
            self._rename(op.other, op.path)
        elif op.kind in UNDOES:
            for held in (self.files, self.links):
                held.pop(op.path, None)
            self.folders.discard(op.path)

    def _rename(self, old: Path, new: Path) -> None:
        def moved(path: Path) -> Path:
            return new / path.relative_to(old) if path.is_relative_to(old) else path

        gone = {new} if old in self.files or old in self.links else set()
        self.files = {moved(path): held for path, held in self.files.items() if path not in gone}
        self.links = {moved(path): held for path, held in self.links.items() if path not in gone}
        self.folders = {moved(path) for path in self.folders}

    def write(self, place: Path, kind: str) -> None:
        """Put the image under `place`: of what was not synced, "zeros" keeps the length and "short" keeps nothing."""
        for folder in sorted(self.folders):
            (place / folder.relative_to(self.root)).mkdir(parents=True, exist_ok=True)
        for path, (synced, written) in self.files.items():
            target = place / path.relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            rest = b"\0" * (len(written) - len(synced)) if kind == "zeros" else b""
            target.write_bytes(written if written == synced else synced[: len(written)] + rest)
        for path, target in self.links.items():
            (place / path.relative_to(self.root)).symlink_to(target)
        for path in place.rglob("*"):
            os.utime(path, (1e9, 1e9), follow_symlinks=False)  # before any process that runs now
