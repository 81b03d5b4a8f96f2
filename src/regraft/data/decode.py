"""Turn a file's bytes into text: unpacked within bounds, other kinds of files refused, the encoding found and told."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from regraft.errors import DataError
from regraft.kit import places

PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
KINDS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a spreadsheet or a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet or document of an old Office",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"SQLite format 3\0": "a database of SQLite",
    b"\x89HDF": "an HDF5 file",
    b"\x80\x04\x95": "a pickle",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    **dict.fromkeys(PACKED, "a file that was packed twice"),
}
"""What else may stand behind a table's ending, by its first bytes."""
WAYS_OUT = {
    "a Parquet file": "rename it to .parquet",
    "an Arrow file": "rename it to .arrow",
    "a spreadsheet or a zip archive": "save the sheet as CSV, or name the archive .zip",
    "a spreadsheet or document of an old Office": "save the sheet as CSV",
    "a pointer of Git LFS in place of the file": "fetch the file itself: git lfs pull",
    "a web page": "download the file itself",
}
LETTERS = ("cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "latin-1")
"""Encodings of a byte a character, the likelier first: western, central European, Cyrillic twice, Greek, any."""
LEADS = {
    "cp932": (range(0x81, 0x98), 0x40),
    "euc_jp": (range(0xA1, 0xD0), 0xA1),
    "cp949": (range(0xA1, 0xC9), 0xA1),
    "gb18030": (range(0xA1, 0xD8), 0xA1),
    "big5": (range(0xA1, 0xC7), 0x40),
}
"""Encodings of East Asia: the first bytes of their usual characters, and from where on the second byte is."""
USUAL_SIGNS = "’‘“”„‚–—…•€£§°©®™«»¿¡·×´²³½¼¾№\xa0"
SAMPLE = 1 << 16
SURE = 0.7


def content(path: Path) -> bytes:
    """A file's bytes, unpacked where gzip, bzip2 or xz packed them, whatever the file is called.

    Raises: DataError: it would unpack to too much, or is cut short. OSError: it may not be read.
    """
    with places.opened(path) as file:
        head = file.read(6)
        unpack = next((opener for magic, opener in PACKED.items() if head.startswith(magic)), None)
        if unpack is None:
            return head + file.read()
        limit, found = bound(file.seek(0, 2)), 0
        try:
            file.seek(0)
            with unpack(file) as stream:  # counted before any of it is kept
                while found <= limit and (chunk := stream.read(1 << 20)):
                    found += len(chunk)
            if found > limit:
                raise DataError(
                    "a packed file unpacks to more than is allowed",
                    saw=f"{path}: more than {limit:,} bytes",
                    allowed=f"{places.RATIO} times its size, {places.BYTES >> 30} GiB at most",
                    do="unpack it yourself if you trust it",
                )
            file.seek(0)
            with unpack(file) as stream:
                return bytes(stream.read())
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(
                "a packed file cannot be read to its end",
                saw=f"{path}: {error}",
                allowed="a whole file of gzip, bzip2 or xz",
                do="fetch or write it again",
            ) from error


def bound(size: int) -> int:
    """The most bytes that a packed file of `size` bytes may become.

    >>> bound(10), bound(10**6), bound(10**9)
    (16777216, 200000000, 4294967296)
    """
    return min(places.BYTES, max(places.RATIO * size, places.FREE_BYTES))


def kind_of(raw: bytes) -> str:
    """What a file is by its first bytes, where it is no text; otherwise "".

    >>> kind_of(b"PAR1..."), kind_of(b"text,label")
    ('a Parquet file', '')
    """
    head = raw[:32]
    return next((kind for magic, kind in KINDS.items() if head.lower().startswith(magic.lower())), "")


def decoded(raw: bytes, where: str) -> tuple[str, str]:
    """A file's text and the name of its encoding; what is not UTF-8 in lines of UTF-8 becomes lone surrogates.

    A byte order mark decides; then UTF-8; then UTF-16 and UTF-32 by where their zeros stand; then the encoding in
    which the words look most like words.

    Raises: DataError: it is no text.

    >>> decoded("straße".encode("cp1252"), "x.csv")
    ('straße', 'cp1252')
    """
    named = next((name for mark, name in MARKS.items() if raw.startswith(mark)), "") or _wide(raw[:SAMPLE])
    if named and named != "utf-8-sig":
        try:
            return raw.decode(named).removeprefix("\ufeff"), named
        except UnicodeDecodeError as error:
            raise DataError(
                f"a file is no {named.upper()}, though it begins so",
                saw=f"{where}: byte {error.start:,} of {len(raw):,}",
                allowed="text of one encoding",
                do="save it again as UTF-8",
            ) from error
    _refuse_no_text(raw[:SAMPLE], where)
    try:
        return raw.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        pass
    lines = raw.split(b"\n")
    high = [line for line in lines if not line.isascii()]
    broken = [line for line in high if not _is_utf8(line)]
    if len(broken) < len(high) - len(broken) or (len(broken) < 3 and 100 * len(broken) <= len(lines)):
        return raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff"), "utf-8"
    for name in _by_likelihood(broken):
        try:
            return raw.decode(name), name
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1"), "latin-1"


def note_of(encoding: str, where: str) -> list[str]:
    """What to say of an encoding: nothing of UTF-8."""
    if encoding == "utf-8":
        return []
    guess = "" if encoding.startswith("utf") else " by the look of its words; save it as UTF-8 if letters are wrong"
    return [f"{where} is not UTF-8: read as {encoding}{guess}"]


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _wide(sample: bytes) -> str:
    """UTF-16 or UTF-32 without a mark: zeros stand at the same place in nearly every character of a table."""
    sample = sample[: len(sample) // 4 * 4]
    zeros = [sample[i::4].count(0) for i in range(4)]
    quarter = len(sample) // 4
    if not quarter or not any(zeros):
        return ""
    if zeros[3] == quarter and zeros[2] > 0.9 * quarter:
        return "utf-32-le"
    if zeros[0] == quarter and zeros[1] > 0.9 * quarter:
        return "utf-32-be"
    even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
    name = "utf-16-le" if odd > even else "utf-16-be"
    if max(even, odd) < 0.04 * quarter or min(even, odd) > 0.02 * max(even, odd):
        return ""
    text = sample.decode(name, "replace")
    return name if ("\n" in text or "\r" in text) and "\0" not in text else ""


def _refuse_no_text(sample: bytes, where: str) -> None:
    strange = sum(sample.count(code) for code in range(32) if code not in (9, 10, 11, 12, 13, 26, 27))
    if strange * 20 > len(sample):
        raise DataError(
            "this file is no text",
            saw=f"{where}: {strange:,} of its first {len(sample):,} bytes are control characters",
            allowed="a table as text, best in UTF-8",
            do="check what the file is",
        )


# ---------------------------------------------------------------- old encodings


def _by_likelihood(lines: list[bytes]) -> list[str]:
    """The encodings in which these lines can be read, the likeliest first."""
    sample = b"\n".join(lines[:2000])[: 4 * SAMPLE]
    scores: dict[str, float] = {}
    for name in (*LETTERS, *LEADS):
        try:
            text = sample.decode(name)
        except UnicodeDecodeError as error:
            if error.start < len(sample) - 4:
                continue
            text = sample[: error.start].decode(name)  # a character that the end of the sample cuts in two
        scores[name] = _usual(text, name) if name in LEADS else _worded(text)
    return sorted(scores, key=lambda name: -scores[name])


def _usual(text: str, encoding: str) -> float:
    """The share of characters beyond ASCII that are usual ones of an East Asian encoding; 0 where it is small."""
    strange = [c for c in text if c > "\x7f"]
    leads, trail = LEADS[encoding]
    pairs = [c.encode(encoding) for c in strange]
    usual = sum(len(pair) == 2 and pair[0] in leads and pair[1] >= trail for pair in pairs)
    kana = sum("\u3041" <= c <= "\u30ff" for c in strange)
    if encoding in ("cp932", "euc_jp") and kana * 10 < len(strange):
        return 0.0
    if encoding == "gb18030" and kana * 10 > len(strange):
        return 0.0
    share = usual / max(len(strange), 1)
    return share if share >= SURE else 0.0


def _worded(text: str) -> float:
    """How many words with letters beyond ASCII look like words: of one script, their case not mixed; and usual signs.

    Latin words have at most half of such letters: more of them are another script that was read wrongly.
    """
    good = count = 0.0
    for word in re.findall(r"[^\W\d_]+", text):
        high = sum(c > "\x7f" for c in word)
        if not high:
            continue
        count += 1
        latin = sum(c < "\u0250" for c in word)
        if latin not in (0, len(word)) or (latin and 2 * high > len(word) + 1):
            continue
        if word.islower() or (word[0].isupper() and (word[1:].islower() or not word[1:])):
            good += 1
        elif word.isupper():
            good += 0.6
    for found in re.finditer(r"[^\w\s\x00-\x7f]|[\u00b2\u00b3\u00b9]", text):
        count += 1
        around = text[max(found.start() - 1, 0) : found.start()] + text[found.end() : found.end() + 1]
        inside = len(around) == 2 and around.isalpha() and found[0] not in "’–—·"
        good += found[0] in USUAL_SIGNS and not inside
    return good / max(count, 1)
