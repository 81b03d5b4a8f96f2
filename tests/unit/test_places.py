"""Files on the disk and in archives: asked and read alike; what is hostile is left out and told, or refused at once."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regraft.errors import DataError, ResourceError
from regraft.kit import archive, durable, places

NAMES = {"cat/1.jpg": b"one" * 999, "cat/deep/2.jpg": b"", "dog/ä 🐜\n.jpg": b"three", "notes.txt": b"four"}
FORMS = ("zip", "stored.zip", "tar", "tar.gz", "tar.bz2", "tar.xz")


def packed(there: Path, form: str, files: dict[str, bytes] = NAMES) -> Path:
    """An archive `there/photos.<form>` of these files."""
    path = there / f"photos.{form}"
    if form.endswith("zip"):
        how = zipfile.ZIP_STORED if "stored" in form else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", how) as zipped:
            for name, data in files.items():
                zipped.writestr(name, data)
    else:
        with tarfile.open(path, f"w:{form.partition('.')[2]}") as tarred:  # type: ignore[call-overload]
            for name, data in files.items():
                add(tarred, name, data)
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data) if kind == tarfile.REGTYPE else 0, kind, link
    archive.addfile(info, io.BytesIO(data))


# ---------------------------------------------------------------- read


@pytest.mark.parametrize("form", FORMS)
def test_members_are_files_like_any(tmp_path: Path, form: str) -> None:
    there = packed(tmp_path, form)
    assert places.is_archive(there) and places.is_file(there) and not places.is_dir(there)
    for name, data in NAMES.items():
        path = there / name
        assert places.is_file(path) and not places.is_dir(path) and places.exists(path) and not places.is_archive(path)
        assert places.size(path) == len(data) and places.read_bytes(path) == data
        assert places.head(path, 4) == data[:4] and places.digest(path) == durable.digest(data)
    assert places.listed(there) == [there / "cat", there / "dog", there / "notes.txt"]
    assert places.listed(there / "cat") == [there / "cat" / "1.jpg", there / "cat" / "deep"]
    assert places.is_dir(there / "cat") and places.is_dir(there / "cat" / "deep") and places.told(there) == ()
    with places.opened(there / "cat" / "1.jpg") as file:
        file.seek(-3, 2)
        assert file.read() == b"one" and file.seek(1) == 1 and file.read(2) == b"ne"


@pytest.mark.parametrize("form", FORMS)
def test_large_members_are_read_as_a_stream(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "HELD_BYTES", 10)
    with places.opened(packed(tmp_path, form) / "cat" / "1.jpg") as file:
        assert not isinstance(file, io.BytesIO) and file.read(4) == b"oneo"
        assert file.seek(-3, 2) == 2994 and file.read() == b"one" and file.seek(0) == 0 and len(file.read()) == 2997


@pytest.mark.parametrize("form", FORMS)
def test_threads_read_at_once(tmp_path: Path, form: str) -> None:
    files = {f"{i}.bin": os.urandom(20_000) for i in range(40)}
    there = packed(tmp_path, form, files)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda name: places.read_bytes(there / name), [*files] * 3)) == [*files.values()] * 3


def test_what_is_not_there_is_not_there(tmp_path: Path) -> None:
    there = packed(tmp_path, "zip")
    (tmp_path / "text.csv").write_text("no archive")
    gone = (there / "cat" / "2.jpg", there / "notes.txt" / "x", tmp_path / "text.csv" / "x", tmp_path / "none")
    for path in (*gone, tmp_path / ("x" * 300), Path("a\0b"), there / "cat/../../text.csv"):
        assert not places.exists(path) and not places.is_archive(path)
    for path in gone:
        with pytest.raises(OSError):
            places.read_bytes(path)
    assert not places.is_archive(tmp_path / "text.csv") and not places.is_archive(tmp_path)


def test_archives_are_known_by_content(tmp_path: Path) -> None:
    there = packed(tmp_path, "tar.gz").rename(tmp_path / "photos.jpg")
    assert places.read_bytes(there / "notes.txt") == b"four"
    (tmp_path / "table.tar.gz").write_bytes(b"\x1f\x8b no gzip")
    assert not places.is_archive(tmp_path / "table.tar.gz")


def test_an_archive_that_changes_is_read_anew(tmp_path: Path) -> None:
    there = packed(tmp_path, "zip")
    assert places.is_file(there / "notes.txt")
    packed(tmp_path, "zip", {"other.txt": b"x"})
    os.utime(there, (1, 1))
    assert not places.is_file(there / "notes.txt") and places.is_file(there / "other.txt")


def test_names_of_windows_and_of_the_mac(tmp_path: Path) -> None:
    there = tmp_path / "x.zip"
    with zipfile.ZipFile(there, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename, info.create_system = "cat\\1.jpg", 0
        archive.writestr(info, "x")
        archive.writestr("dog/cafe_.jpg", "y")
    there.write_bytes(there.read_bytes().replace(b"cafe_", "café".encode()))  # UTF-8 without its flag
    assert places.is_file(there / "cat" / "1.jpg") and places.read_bytes(there / "dog" / "café.jpg") == b"y"


def test_bytes_that_are_no_utf8_are_written_out() -> None:
    assert places.in_words(Path(os.fsdecode(b"a/\xff\xe9.jpg"))) == "a/\\xff\\xe9.jpg"
    assert places.in_words("half \ud800") == "half \\xed\\xa0\\x80" and places.in_words("ä 🐜") == "ä 🐜"


# ---------------------------------------------------------------- left out and told


def hostile_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("ok/1", "../up", "/abs", "ok/../../up", "ok/2", "ok/2"):
            add(archive, name, name.encode())
        add(archive, "ok/soft", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add(archive, "ok/hard", kind=tarfile.LNKTYPE, link="ok/1")
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            add(archive, "ok/device", kind=kind)
        add(archive, "ok/inner.zip")


def hostile_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for name in ("ok/1", "../up", "/abs", "C:/abs", "ok/2", "ok/2", "ok/inner.zip"):
            archive.writestr(name, name)
        for name, mode in (("ok/soft", 0o120777), ("ok/device", 0o020666), ("ok/fifo", 0o010666)):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "/etc/passwd")
        archive.writestr("ok/bz2", b"x" * 99, zipfile.ZIP_BZIP2)


@pytest.mark.parametrize("make", [hostile_tar, hostile_zip])
def test_no_plain_files_are_left_out_counted_and_named(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x")
    assert places.listed(tmp_path / "x") == [tmp_path / "x" / "ok"]
    assert [p.name for p in places.listed(tmp_path / "x" / "ok")] == ["1", "2", "inner.zip"]
    told = " / ".join(places.told(tmp_path / "x"))
    assert "x: 3 left out: a name that leads out of the archive, such as ../up" in told
    assert "a link, such as ok/soft" in told and "no regular file, such as ok/device" in told
    assert "1 left out: an earlier member of the same name, such as ok/2" in told
    assert "an archive in the archive, which is not opened, such as ok/inner.zip" in told
    assert sorted(tmp_path.iterdir()) == [tmp_path / "x"], "nothing was extracted"


def test_a_file_that_is_a_folder_too_is_left_out(tmp_path: Path) -> None:
    there = packed(tmp_path, "zip", {"a": b"x", "a/b": b"y"})
    assert places.is_dir(there / "a") and not places.is_file(there / "a") and places.read_bytes(there / "a/b") == b"y"
    assert places.told(there) == ("photos.zip: 1 left out: a file where a folder is, too, such as a",)


def test_a_broken_member_is_an_error_of_its_own(tmp_path: Path) -> None:
    there = packed(tmp_path, "stored.zip")
    there.write_bytes(there.read_bytes().replace(b"three", b"thr3e"))
    assert places.read_bytes(there / "notes.txt") == b"four"
    with pytest.raises(OSError, match="its part of the archive is broken"):
        places.read_bytes(there / "dog" / "ä 🐜\n.jpg")


def test_a_tar_without_its_end_mark_is_told(tmp_path: Path) -> None:
    there = packed(tmp_path, "tar", {"a/1": b"x" * 512})
    there.write_bytes(there.read_bytes()[:1024])
    assert "no end mark and may be cut short" in places.told(there)[0]


# ---------------------------------------------------------------- refused


def encrypted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1", b"x" * 50)
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + at] |= 1
    path.write_bytes(data)


def cut(form: str, end: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        data = packed(path.parent, form).read_bytes()
        path.write_bytes(data[:end])

    return make


def tar_of(*blocks: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(b"".join(blocks) + bytes(1024)) and None


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def negative() -> bytes:
    """A header whose size is below zero: some readers go back and read it for ever."""
    raw = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = b"\xff" * 10 + b"\xfc\x00"
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 256 + sum(raw[156:]))
    return bytes(raw)


def many(path: Path) -> None:
    """100,001 members, in records of the smallest size."""
    record = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", *([20, 3, 20, 0] + [0] * 7 + [1] + [0] * 6)) + b"x"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "")
    local = path.read_bytes()[:31]
    size = len(record) * 100_001
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 7, 7, size, len(local), 0)  # it lies: seven
    path.write_bytes(local + record * 100_001 + end)


def bomb(form: str) -> Callable[[Path], None]:
    return lambda path: packed(path.parent, form, {"a/1": bytes(40_000_000)}).rename(path) and None


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "encrypted": (encrypted, r"encrypted · saw: .*x: a/1 .*unpack it with its password"),
    "cut zip": (cut("zip", -40), r"broken or cut short · saw: .*x: its list of members is missing"),
    "cut tar": (cut("tar", 1500), "broken or cut short"),
    "cut tar.gz": (cut("tar.gz", -20), "broken or cut short"),
    "cut tar.xz": (cut("tar.xz", -40), "broken or cut short"),
    "garbage in a tar": (tar_of(header(tarfile.REGTYPE, 0), b"garbage!" * 64), "what stands at byte 512 is no header"),
    "a size below zero": (tar_of(negative()), "broken or cut short"),
    "a chain of headers": (tar_of(header(tarfile.XHDTYPE, 0) * 5000), "broken or cut short"),
    "an endless header": (tar_of(header(tarfile.XHDTYPE, 8**11 - 1)), "a header is no header"),
    "a header of digits": (tar_of(header(tarfile.XHDTYPE, 60_000), b"1" * 60_416), "a header is no header"),
    "a longer member than the file": (tar_of(header(tarfile.REGTYPE, 9999)), "broken or cut short"),
    "too many members": (many, "too large to be read as it is · saw: .*more than 100,000 members"),
    "a dense zip": (bomb("zip"), r"too large .*38 MiB or more from 0\.04 MiB .* 200 times its size"),
    "a dense tar": (bomb("tar.xz"), "too large .* MiB or more from"),
    "nothing in it": (lambda path: packed(path.parent, "zip", {"a/": b""}).rename(path) and None, "holds no files"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", REFUSED)
def test_hostile_archives_are_refused(case: str, tmp_path: Path) -> None:
    make, said = REFUSED[case]
    make(tmp_path / "x")
    assert places.is_archive(tmp_path / "x")
    with pytest.raises(DataError, match=said) as caught:
        places.told(tmp_path / "x")
    assert caught.value.do


def test_what_unpacks_to_little_may_be_dense(tmp_path: Path) -> None:
    there = packed(tmp_path, "tar.xz", {"a/1": bytes(8_000_000)})
    assert places.size(there) * 200 < 8_000_000 and places.size(there / "a" / "1") == 8_000_000


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed tar is unpacked into a file without a name; nothing of it is left."""
    place = tmp_path / "temp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    there = packed(tmp_path, "tar.gz")
    assert places.read_bytes(there / "notes.txt") == b"four" and not list(place.iterdir())

    def full(pieces: object) -> None:
        raise ResourceError("writing failed")

    monkeypatch.setattr(durable, "scratch", full)
    with pytest.raises(ResourceError):
        places.told(packed(tmp_path, "tar.xz"))


def test_few_archives_are_held_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for i in range(20):
        (tmp_path / str(i)).mkdir()
        assert places.is_file(packed(tmp_path / str(i), FORMS[i % 6]) / "notes.txt")
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * places.KEPT and threading.active_count() < 20
