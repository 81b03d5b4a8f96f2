"""Read the members of a zip or a tar as streams, none of them extracted; refuse what is too much, told in words.

Members of a zip are read by name, of a tar by offset; a compressed tar is unpacked once, into a file without a name.
What is no regular file of a plain name is left out and told; what is too many, too large or too dense is refused before
a byte of it is unpacked.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from regraft.errors import DataError
from regraft.kit import durable

MEMBERS = 100_000
BYTES = 4 * 2**30
RATIO = 200
FREE_BYTES = 16 * 2**20
"""An archive that unpacks to less than this may be as dense as it likes."""
HEADER_BYTES = 2**16
"""The most that a tar's header of one member may take: longer ones are no names."""
HELD_BYTES = 64 * 2**20
"""Members up to this size are read at once, larger ones as a stream."""
PIECE = 2**20
ENDINGS = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".zip", ".tar")
NESTED = (*ENDINGS, ".7z", ".rar", ".zst", ".gz", ".bz2", ".xz")
OPENERS: dict[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, RuntimeError, OSError),
)
"""What the libraries raise over archives that are cut short, changed or made to harm."""


class Member:
    """A regular file in an archive: its size, and where a tar has it or what a zip calls it."""

    __slots__ = ("at", "info", "size")

    def __init__(self, size: int, at: int = 0, info: zipfile.ZipInfo | None = None) -> None:
        self.size, self.at, self.info = size, at, info


class Archive:
    """An archive's regular files by their names and its folders with what is in them; threads may read at once."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.files: dict[str, Member] = {}
        self.folders: dict[str, set[str]] = {"": set()}
        self._left: dict[str, list[str]] = {}
        self._zip: zipfile.ZipFile | None = None
        self._handle = -1
        try:
            if kind == "zip":
                self._read_zip()
            else:
                self._read_tar(kind)
        except DataError:
            raise
        except BROKEN as error:
            raise _broken(path, str(error) or type(error).__name__) from error
        for name in self.files:
            self._folder(name.rpartition("/")[0]).add(name.rpartition("/")[2])
        for name in [name for name in self.files if name in self.folders]:
            self._leave("a file where a folder is, too", name)
            del self.files[name]
        nested = [name for name in self.files if name.lower().endswith(NESTED)]
        if nested:
            self._left["an archive in the archive, which is not opened"] = nested
        self.told = tuple(
            f"{in_words(path.name)}: {len(names):,} left out: {why}, such as {in_words(names[0])}"
            for why, names in self._left.items()
        )
        if not self.files:
            raise DataError(
                "this archive holds no files that can be read",
                saw="; ".join(self.told) or in_words(path),
                allowed="regular files",
                do="unpack it and look at what is in it",
            )

    def opened(self, name: str) -> BinaryIO:
        """A member opened to be read. Raises: OSError: it is broken."""
        member = self.files[name]
        if member.size <= HELD_BYTES:
            return io.BytesIO(self.read(name, member.size))
        if member.info is not None and self._zip is not None:
            return self._zip.open(member.info)  # type: ignore[return-value]
        return io.BufferedReader(_Slice(self, member))

    def read(self, name: str, count: int) -> bytes:
        """A member's first bytes. Raises: OSError: they are broken."""
        member = self.files[name]
        wanted = min(count, member.size)
        try:
            if member.info is not None and self._zip is not None:
                with self._zip.open(member.info) as file:
                    data = file.read(wanted)
                    if count >= member.size and file.read(1):  # at its end the sum is compared
                        raise EOFError
            else:
                data = self.part(member.at, wanted)
            if len(data) < wanted:
                raise EOFError
            return data
        except BROKEN as error:
            raise OSError(errno.EIO, "its part of the archive is broken") from error

    def part(self, at: int, count: int) -> bytes:
        """Bytes of a tar from an offset on."""
        return os.pread(self._handle, count, at)

    def _read_zip(self) -> None:
        _count_zip(self.path)
        self._zip = found = zipfile.ZipFile(self.path)
        packed = max(1, self.path.stat().st_size)
        total = 0
        for info in found.infolist():
            total += info.file_size
            _allow(self.path, total, packed)
            name = _zip_name(info)
            mode = info.external_attr >> 16
            if info.is_dir() or stat.S_ISDIR(mode):
                if parts := self._parts(name):
                    self._folder("/".join(parts))
                continue
            if info.flag_bits & 0x1:
                raise DataError(
                    "this archive is encrypted",
                    saw=f"{in_words(self.path)}: {in_words(name)}",
                    allowed="archives without a password",
                    do="unpack it with its password and give the folder",
                )
            why = "a link" if stat.S_ISLNK(mode) else "no regular file"
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                self._leave(why, name)
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                self._leave("packed in a way other than deflate", name)
            else:
                self._add(name, Member(info.file_size, info=info))

    def _read_tar(self, kind: str) -> None:
        packed = max(1, self.path.stat().st_size)
        file: BinaryIO
        if kind == "tar":
            file = open(self.path, "rb")  # noqa: SIM115
        else:
            with OPENERS[_mark(self.path)](self.path) as stream:
                file = durable.scratch(_pieces(self.path, stream, packed))
        weakref.finalize(self, file.close)
        self._handle = file.fileno()
        total, count, end = 0, 0, os.fstat(self._handle).st_size
        tar = tarfile.TarFile(fileobj=file, tarinfo=_Header, errorlevel=1)
        for info in tar:
            count, total = count + 1, total + max(0, info.size)
            tar.members = []  # type: ignore[attr-defined]  # it would hold them all
            if count > MEMBERS:
                raise _too_much(self.path, f"more than {MEMBERS:,} members")
            _allow(self.path, total, packed if kind != "tar" else total)
            if info.isdir():
                if parts := self._parts(info.name):
                    self._folder("/".join(parts))
            elif info.issym() or info.islnk():
                self._leave("a link", info.name)
            elif not info.isreg() or info.issparse():
                self._leave("no regular file", info.name)
            elif info.offset_data + info.size > end:
                raise EOFError("it is cut short")
            else:
                self._add(info.name, Member(info.size, at=info.offset_data))
        rest = os.pread(self._handle, 512, tar.offset)
        if rest.strip(b"\0"):
            raise EOFError(f"what stands at byte {tar.offset:,} is no header")
        if len(rest) < 512:
            self._left["the archive has no end mark and may be cut short"] = [str(self.path.name)]

    def _add(self, name: str, member: Member) -> None:
        parts = self._parts(name)
        if not parts:
            return
        if (whole := "/".join(parts)) in self.files:
            self._leave("an earlier member of the same name", whole)
        self.files[whole] = member

    def _parts(self, name: str) -> tuple[str, ...]:
        """A member's name as parts; none where it is absolute or climbs out."""
        if name.startswith("/") or re.match(r"[A-Za-z]:[/\\]", name) or ".." in name.split("/") or "\0" in name:
            self._leave("a name that leads out of the archive", name)
            return ()
        return PurePosixPath(name).parts

    def _folder(self, name: str) -> set[str]:
        """What is known to lie in a folder; the folder is made known to those above it."""
        missing = []
        while name not in self.folders:
            missing.append(name)
            name = name.rpartition("/")[0]
        for one in reversed(missing):
            self.folders[name].add(one.rpartition("/")[2])
            self.folders[one] = set()
            name = one
        return self.folders[name]

    def _leave(self, why: str, name: str) -> None:
        self._left.setdefault(why, []).append(name)


class _Header(tarfile.TarInfo):
    """A member's header that cannot send the reader back, nor make it read without bound."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        named = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if self.size < 0 or (self.type in named and self.size > HEADER_BYTES):
            raise tarfile.ReadError("a header is no header")
        if self.type in named:
            file: BinaryIO = tar.fileobj  # type: ignore[assignment]
            at = file.tell()
            if re.search(rb"\d{300}", file.read(self.size)):  # libraries search such in the square of their length
                raise tarfile.ReadError("a header is no header")
            file.seek(at)
        made: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        if made.size < 0:
            raise tarfile.ReadError("a member's size is below zero")
        return made


class _Slice(io.RawIOBase):
    """A member of a tar, with a place of its own: threads read through one handle."""

    def __init__(self, archive: Archive, member: Member) -> None:
        self._archive, self._at, self._size, self._place = archive, member.at, member.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = self._archive.part(self._at + self._place, min(len(buffer), max(0, self._size - self._place)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def kind_of(path: Path) -> str:
    """What an archive is: "zip", "tar", or "packed" for a compressed tar; "" for any other file."""
    try:
        begun = _head(path, 512)
        if begun.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return "zip"
        if _is_tar(begun):
            return "tar"
        if mark := _mark(path):
            with OPENERS[mark](path) as stream:
                return "packed" if _is_tar(stream.read(512)) else ""
    except BROKEN:
        return ""
    return ""


def _head(path: Path, count: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(count)


def _mark(path: Path) -> bytes:
    begun = _head(path, 8)
    return next((mark for mark in OPENERS if begun.startswith(mark)), b"")


def _is_tar(begun: bytes) -> bool:
    """Whether a header's own sum is right."""
    try:
        tarfile.TarInfo.frombuf(begun, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name: UTF-8 where its bytes are, whatever its flag says; back slashes of Windows are turned."""
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = info.filename
    return name.replace("\\", "/") if info.create_system in (0, 10, 11) else name


def _count_zip(path: Path) -> None:
    """Refuse a zip of too many members before a record is made of each.

    Raises: DataError: there are more than MEMBERS.
    """
    with open(path, "rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if not end:
            raise _broken(path, "its list of members is missing")
        size = end[5]
        if size <= MEMBERS * 46:  # a record takes so many bytes at least
            return
        last = end[9] - (76 if end[0] == b"PK\x06\x06" else 0)
        at, count = last - size, 0
        file.seek(max(0, at))
        while at < last and count <= MEMBERS:
            record = file.read(46)
            if len(record) < 46 or not record.startswith(b"PK\x01\x02"):
                raise _broken(path, "its list of members is broken")
            more = sum(struct.unpack_from("<HHH", record, 28))
            at, count = at + 46 + more, count + 1
            file.seek(more, 1)
    if count > MEMBERS:
        raise _too_much(path, f"more than {MEMBERS:,} members")


def _pieces(path: Path, stream: gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile, packed: int) -> Iterator[bytes]:
    """A compressed tar, unpacked piece by piece within the bounds."""
    total = 0
    while data := stream.read(PIECE):
        total += len(data)
        _allow(path, total, packed)
        yield data


def _allow(path: Path, total: int, packed: int) -> None:
    """Raises: DataError: an archive unpacks to more than it should."""
    if total > BYTES:
        raise _too_much(path, f"more than {BYTES // 2**30} GiB unpacked")
    if total > FREE_BYTES and total > RATIO * packed:
        raise _too_much(path, f"{total / 2**20:,.0f} MiB or more from {packed / 2**20:,.2f} MiB")


def _too_much(path: Path, saw: str) -> DataError:
    return DataError(
        "this archive is too large to be read as it is",
        saw=f"{in_words(path)}: {saw}",
        allowed=f"{MEMBERS:,} members, {BYTES // 2**30} GiB unpacked, {RATIO} times its size",
        do="if you trust it, unpack it and give the folder",
    )


def _broken(path: Path, saw: str) -> DataError:
    return DataError(
        "this archive is broken or cut short",
        saw=f"{in_words(path)}: {in_words(saw)}",
        allowed="a whole zip or tar",
        do="fetch or make it again",
    )


def in_words(path: str | Path) -> str:
    r"""A path as text that every file and terminal can hold: bytes that are no UTF-8 are written out.

    >>> in_words(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    'caf\\xe9.jpg'
    """
    text = str(path)
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape" if _escaped(text) else "surrogatepass").decode(
            "utf-8", "backslashreplace"
        )


def _escaped(text: str) -> bool:
    return all("\udc80" <= c <= "\udcff" for c in text if "\ud800" <= c <= "\udfff")
