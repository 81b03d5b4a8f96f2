"""Ask for files, list and read them alike on the disk and in an archive: `photos.zip/cats/1.jpg` is a path like any."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from pathlib import Path
from typing import BinaryIO

from regraft.kit.archive import BYTES as BYTES
from regraft.kit.archive import ENDINGS as ENDINGS
from regraft.kit.archive import FREE_BYTES as FREE_BYTES
from regraft.kit.archive import RATIO as RATIO
from regraft.kit.archive import Archive, kind_of
from regraft.kit.archive import in_words as in_words

PIECE = 2**20
KEPT = 4
"""So many archives are held open."""
FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x04\x22\x4d\x18": "LZ4",
    b"\x1f\x9d": "compress",
    b"\x1f\xa0": "compress",
}


# ---------------------------------------------------------------- paths on the disk or in an archive


def is_file(path: Path) -> bool:
    """Whether a path is a regular file; a name that no file can have is none."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except NotADirectoryError:
        found = _within(path)
        return found is not None and found[1] in found[0].files
    except (OSError, ValueError):
        return False


def is_dir(path: Path) -> bool:
    """Whether a path is a folder; an archive itself is a file."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except NotADirectoryError:
        found = _within(path)
        return found is not None and found[1] in found[0].folders
    except (OSError, ValueError):
        return False


def is_archive(path: Path) -> bool:
    """Whether a path is a zip or a tar, compressed or not, by its content."""
    return is_file(path) and _within(path) is None and bool(kind_of(path))


def exists(path: Path) -> bool:
    """Whether a path is a file or a folder."""
    return is_file(path) or is_dir(path)


def listed(folder: Path) -> list[Path]:
    """What lies right in a folder, or at the top of an archive, sorted.

    Raises: OSError: it may not be read. DataError: the archive is broken, or not safe to read.
    """
    if os.path.isdir(folder):
        with os.scandir(folder) as found:
            return sorted(Path(folder, one.name) for one in found)
    archive, name = _found(folder)
    return [folder / child for child in sorted(archive.folders[name])]


def size(path: Path) -> int:
    """Bytes of a file.

    Raises: OSError: there is no such file.
    """
    try:
        return os.stat(path).st_size
    except NotADirectoryError:
        archive, name = _found(path)
        return archive.files[name].size


def opened(path: Path) -> BinaryIO:
    """A file opened to be read, which can seek.

    Raises: OSError: there is no such file, or its part of the archive is broken.
    """
    try:
        return open(path, "rb")
    except NotADirectoryError:
        archive, name = _found(path)
        return archive.opened(name)


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises: OSError: as `opened`.
    """
    with opened(path) as file:
        return file.read()


def digest(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces.

    Raises: OSError: as `opened`.
    """
    found = hashlib.sha256()
    with opened(path) as file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.hexdigest()


def head(path: Path, count: int) -> bytes:
    """A file's first bytes, of an archive's member without unpacking more.

    Raises: OSError: as `opened`.
    """
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except NotADirectoryError:
        archive, name = _found(path)
        return archive.read(name, count)


def told(archive: Path) -> tuple[str, ...]:
    """What of an archive was left out, a line for each reason.

    Raises: DataError: the archive is broken, or not safe to read.
    """
    return _found(archive)[0].told


def stem(path: Path) -> str:
    """The name of a file or folder without an archive's ending.

    >>> stem(Path("a/photos.v2.tar.gz")), stem(Path("a/photos.v2"))
    ('photos.v2', 'photos.v2')
    """
    ending = next((end for end in ENDINGS if path.name.lower().endswith(end)), "")
    return path.name[: -len(ending)] if ending and len(path.name) > len(ending) else path.name


def foreign(path: Path) -> str:
    """The kind of a file that is packed in a way that is not read, by its content: "7z", "rar"; "" for any other."""
    try:
        begun = head(path, 8)
    except OSError:
        return ""
    return next((kind for mark, kind in FOREIGN.items() if begun.startswith(mark)), "")


# ---------------------------------------------------------------- archives that are open

_lock = threading.Lock()
_archives: dict[tuple[str, int, int, int], Archive | None] = {}


def _archive(path: Path) -> Archive | None:
    """The archive in a file, read once for as long as the file is the same; None for any other file."""
    now = os.stat(path)
    key = (os.path.abspath(path), now.st_mtime_ns, now.st_size, now.st_ino)
    with _lock:
        if key not in _archives:
            kind = kind_of(path)
            made = Archive(path, kind) if kind else None
            while len(_archives) >= KEPT:
                del _archives[next(iter(_archives))]
            _archives[key] = made
        return _archives[key]


def _within(path: Path) -> tuple[Archive, str] | None:
    """The archive that a path leads into, with the name in it; None for a path of the disk."""
    for above in Path(path).parents:
        if os.path.isfile(above):
            found = _archive(above)
            return (found, Path(path).relative_to(above).as_posix()) if found else None
        if os.path.isdir(above):
            return None
    return None


def _found(path: Path) -> tuple[Archive, str]:
    """As `_within`, where there must be one; an archive itself is its top."""
    made = _archive(path) if os.path.isfile(path) else None
    found = (made, "") if made else _within(path)
    if found is None or (found[1] not in found[0].files and found[1] not in found[0].folders):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return found
