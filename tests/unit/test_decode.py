"""Bytes as text: every encoding is found and told, packed files are bounded, other kinds of files are refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from regraft.data.decode import bound, content, decoded, kind_of, note_of
from regraft.errors import DataError

SAID = {
    "cp1252": ["naïve café, straße – “schön”", "el niño pequeño; ¿dónde está?", "it’s a film I don’t like"],
    "cp1250": ["zażółć gęślą jaźń", "łódź i świat są piękne", "książka źle się czyta"],
    "cp1251": ["Привет, как дела", "очень хороший фильм", "плохо и скучно, я не смотрел"],
    "koi8_r": ["Привет, как дела", "очень хороший фильм", "плохо и скучно, я не смотрел"],
    "cp1253": ["Καλημέρα σας", "η ταινία ήταν πολύ καλή", "δεν μου άρεσε"],
    "cp932": ["この映画はとても良かった", "最悪の作品です", "東京タワーを見る"],
    "euc_jp": ["この映画はとても良かった", "最悪の作品です"],
    "cp949": ["이 영화는 정말 좋았다", "최악의 작품이다 그리고"],
    "gb18030": ["这部电影非常好看", "质量太差了,不推荐", "我很喜欢这本书的内容"],
    "big5": ["這部電影非常好看", "品質太差了,不推薦", "我很喜歡這本書的內容"],
}


def sheet(texts: list[str], rows: int = 12) -> str:
    return "text,label\n" + "".join(f'"{texts[i % len(texts)]}",{"ab"[i % 2]}\n' for i in range(rows))


@pytest.mark.parametrize("encoding", SAID)
@pytest.mark.parametrize("rows", [4, 300])
def test_old_encodings_are_known_by_their_words(encoding: str, rows: int) -> None:
    text = sheet(SAID[encoding], rows)
    assert decoded(text.encode(encoding), "x.csv") == (text, encoding)
    (note,) = note_of(encoding, "x.csv")
    assert note.startswith(f"x.csv is not UTF-8: read as {encoding} by the look")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("said", ["cp1252", "cp1251", "gb18030"])
def test_wide_encodings_with_and_without_a_mark(encoding: str, said: str) -> None:
    text = sheet(SAID[said])
    found, name = decoded(text.encode(encoding), "x.csv")
    assert found == text and name.startswith(encoding[:6]) and note_of(name, "x")[0].startswith("x is not UTF-8: read")


@given(some.text(some.characters(codec="utf-8", exclude_characters="\0\ufeff", exclude_categories=["Cc"])))
def test_utf8_is_utf8(text: str) -> None:
    for raw in (text.encode(), b"\xef\xbb\xbf" + text.encode()):
        assert decoded(raw, "x") == (text, "utf-8")
    assert note_of("utf-8", "x") == []


def test_a_broken_line_of_utf8_is_no_other_encoding() -> None:
    lines = [f"größe {i}" for i in range(5)]
    raw = b"\n".join([*(line.encode() for line in lines), b"caf\xe9", b"na\xefve"])
    found, name = decoded(raw, "x")
    assert name == "utf-8" and found.split("\n")[:5] == lines and found.endswith("na\udcefve")
    assert decoded(b"plain\n" * 200 + b"caf\xe9\n", "x")[1] == "utf-8"
    assert decoded(b"plain\n" * 200 + b"caf\xe9\n" * 3, "x")[1] == "cp1252"


def test_what_no_encoding_reads_is_latin_1() -> None:
    raw = "grün für über\x81 ".encode("latin-1") * 3
    assert decoded(raw, "x") == (raw.decode("latin-1"), "latin-1")


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (bytes(range(256)) * 4, "this file is no text"),
        (b"\0\1\2", "this file is no text"),
        (b"\xff\xfea\0b", "a file is no UTF-16, though it begins so"),
    ],
)
def test_what_is_no_text_is_refused(raw: bytes, what: str) -> None:
    with pytest.raises(DataError) as caught:
        decoded(raw, "x.csv")
    assert caught.value.what == what and caught.value.saw.startswith("x.csv: ")


@given(some.binary(max_size=300))
def test_any_bytes_are_text_or_refused(raw: bytes) -> None:
    try:
        text, name = decoded(raw, "x")
    except DataError as error:
        assert error.code == 3
    else:
        assert text.encode(name, "surrogateescape") in (raw, raw[2:], raw[3:], raw[4:]) or name.startswith("utf-")


# ---------------------------------------------------------------- packed files


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_are_known_by_their_content(tmp_path: Path, pack: object) -> None:
    (tmp_path / "x.csv").write_bytes(pack(b"text,label\n"))  # type: ignore[operator]
    assert content(tmp_path / "x.csv") == b"text,label\n"
    (tmp_path / "y.csv").write_bytes(b"text,label\n")
    assert content(tmp_path / "y.csv") == b"text,label\n"
    cut = pack(os.urandom(5000))[:-700]  # type: ignore[operator]
    (tmp_path / "x.csv").write_bytes(cut)
    with pytest.raises(DataError, match=r"a packed file cannot be read to its end · saw: .*x\.csv"):
        content(tmp_path / "x.csv")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"a" * 60_000_000))
    with pytest.raises(DataError, match=r"a packed file unpacks to more than is allowed · .* 200 times its size"):
        content(path)
    path.write_bytes(gzip.compress(b"a" * 9_000_000))
    assert len(content(path)) == 9_000_000 <= bound(0)


def test_kinds_are_known_by_their_first_bytes() -> None:
    assert kind_of(b"PK\x03\x04rest") == "a spreadsheet or a zip archive" and kind_of(b"text,label") == ""
    assert kind_of(b"<!DOCTYPE html>") == "a web page" and kind_of(gzip.compress(b"")) == "a file that was packed twice"
