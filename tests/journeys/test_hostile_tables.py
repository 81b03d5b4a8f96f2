"""Hostile and awkward tables, each with its right answer."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.data.open import open_data
from regraft.waist import Data, Reading
from tests import calls, places

ROWS = [
    (f'a {place} "quoted", and, commas\nwith a second line: café № {i}', label)
    for i in range(60)
    for place, label in (("sea", "bleu"), ("moss", "grün"))
]
Made = Callable[[Path], Path]


def written(delimiter: str = ",", end: str = "\r\n", header: bool = True) -> str:
    file = io.StringIO()
    sheet = csv.writer(file, delimiter=delimiter, lineterminator=end)
    sheet.writerows([("text", "label"), *ROWS] if header else ROWS)
    return file.getvalue()


def put(name: str, raw: bytes) -> Made:
    def make(root: Path) -> Path:
        (root / name).write_bytes(raw)
        return root / name

    return make


def plainly(text: str) -> str:
    """The table in letters that old encodings have."""
    return text.replace("№ ", "")


def packed(root: Path) -> Path:
    with zipfile.ZipFile(root / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", written())
    return root / "t.zip"


def lines() -> bytes:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS).encode()


SAME: dict[str, Made] = {
    "a byte order mark": put("t.csv", b"\xef\xbb\xbf" + written().encode()),
    "UTF-16": put("t.csv", written().encode("utf-16")),
    "UTF-16 without a mark": put("t.csv", written().encode("utf-16-le")),
    "semicolons": put("t.csv", written(";").encode()),
    "tabs in a .csv": put("t.csv", written("\t").encode()),
    "pipes": put("t.csv", written("|").encode()),
    "sep=; of a spreadsheet": put("t.csv", b"sep=;\r\n" + written(";").encode()),
    "line feeds alone": put("t.csv", written(end="\n").encode()),
    "gzip inside .csv": put("t.csv", gzip.compress(written().encode())),
    "gzip": put("t.csv.gz", gzip.compress(written().encode())),
    "bzip2": put("t.csv.bz2", bz2.compress(written().encode())),
    "zip": packed,
    "JSON lines": put("t.jsonl", lines()),
    "JSON lines with a mark": put("t.jsonl", b"\xef\xbb\xbf" + lines()),
    "gzip inside .jsonl": put("t.jsonl", gzip.compress(lines())),
}


def told(data: Data, ids: bool = False) -> list[tuple[str, ...]]:
    rows = [(name, row) for name in ("train", "val", "test") for row in getattr(data, name)]
    return sorted((name, str(row.y), re.sub(r"\r\n?", "\n", row.cell)) for name, row in rows)


@pytest.mark.parametrize("case", SAME)
def test_it_is_read_as_the_clean_form(case: str, tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    want = open_data(str(put("t.csv", written().encode())(tmp_path / "clean")))
    data = open_data(str(SAME[case](tmp_path)))
    assert told(data) == told(want) and not data.bad and data.target.labels == ("bleu", "grün")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_an_old_encoding_is_read_and_told(encoding: str, tmp_path: Path) -> None:
    data = open_data(str(put("t.csv", plainly(written()).encode(encoding))(tmp_path)))
    assert data.target.labels == ("bleu", "grün") and "café" in data.train[0].cell
    assert any("UTF-8" in note for note in data.notes)


def test_a_missing_header_is_told(tmp_path: Path) -> None:
    data = open_data(str(put("t.csv", written(header=False).encode())(tmp_path)))
    assert sum(len(rows) for rows in (data.train, data.val, data.test)) == len(ROWS)
    assert data.target.labels == ("bleu", "grün") and any("header" in note for note in data.notes)


# ---------------------------------------------------------------- left out, counted, named

GOOD = "text,label\n" + "".join(f"a {'sea' if i % 2 else 'moss'} number {i},{'ab'[i % 2]}\n" for i in range(150))
BROKEN: dict[str, tuple[str, bytes, int, str]] = {
    "too many cells": ("t.csv", GOOD.encode() + b"one,two,three,four\n", 151, "cells"),
    "too few cells": ("t.csv", GOOD.encode() + b"one\n", 151, "cells"),
    "no target": ("t.csv", GOOD.encode() + b"a text without one,\n", 151, "label"),
    "no text": ("t.csv", GOOD.encode() + b",a\n", 151, "text"),
    "a line that is not UTF-8": ("t.csv", GOOD.encode() + b"caf\xe9\xff\xfe sea,a\n", 151, "UTF-8"),
    "a broken JSON line": (
        "t.jsonl",
        b"".join(json.dumps({"text": f"sea {i} no", "label": "ab"[i % 2]}).encode() + b"\n" for i in range(150))
        + b'{"text": "cut sho\n',
        151,
        "JSON",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_broken_row_of_many_is_left_out_and_named(case: str, tmp_path: Path) -> None:
    name, raw, row, why = BROKEN[case]
    data = open_data(str(put(name, raw)(tmp_path)))
    (bad,) = data.bad
    assert (bad.file, bad.row) == (name, row) and why in bad.why
    assert sum(len(rows) for rows in (data.train, data.val, data.test)) == 150


def test_an_open_quote_does_not_swallow_the_rest(tmp_path: Path) -> None:
    raw = GOOD.replace("a sea number 75,", '"a sea number 75,')
    data = open_data(str(put("t.csv", raw.encode())(tmp_path)))
    (bad,) = data.bad
    assert bad.row == 76 and "never closed" in bad.why
    assert sum(len(rows) for rows in (data.train, data.val, data.test)) == 149


def test_a_number_that_is_none_is_left_out(tmp_path: Path) -> None:
    raw = "text,score\n" + "".join(f"a sea number {i},{i / 7:.3f}\n" for i in range(150)) + "broken,n/a\n"
    data = open_data(str(put("t.csv", raw.encode())(tmp_path)), 0, Reading(task="regress"))
    assert [(bad.file, bad.row) for bad in data.bad] == [("t.csv", 151)]


def test_labels_that_look_like_gaps_stay_labels(tmp_path: Path) -> None:
    raw = "text,label\n" + "".join(f"a sea number {i},{('NA', 'null', 'x')[i % 3]}\n" for i in range(60))
    data = open_data(str(put("t.csv", raw.encode())(tmp_path)))
    assert data.target.labels == ("NA", "null", "x") and not data.bad


# ---------------------------------------------------------------- refused

REFUSED: dict[str, tuple[Made, tuple[str, ...], int, str]] = {
    "header only": (put("t.csv", b"text,label\n"), (), 3, "no rows"),
    "nothing": (put("t.csv", b""), (), 3, "t.csv"),
    "an unknown column": (put("t.csv", GOOD.encode()), ("--target", "lable"), 2, "did you mean label"),
    "one class": (put("t.csv", GOOD.replace(",b", ",a").encode()), (), 3, "only one class"),
    "a spreadsheet called .csv": (put("t.csv", b"PK\x03\x04" + b"\0" * 400), (), 3, "t.csv"),
    "a picture called .csv": (put("t.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9), (), 3, "t.csv"),
    "a Parquet file that was cut": (put("t.parquet", b"PAR1" + b"\1" * 99), (), 3, "t.parquet"),
    "a bomb": (put("t.csv.gz", gzip.compress(b"text,label\n" + b"a" * 300_000_000)), (), 3, "t.csv.gz"),
    "free text as target": (
        put("t.csv", ("text,label\n" + "".join(f"a sea {i},why {i} is so\n" for i in range(90))).encode()),
        (),
        3,
        "free text",
    ),
    "numbers alone": (
        put("t.csv", ("a,b,c\n" + "".join(f"{i},{i * 2},{i % 2}\n" for i in range(90))).encode()),
        (),
        3,
        "numbers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_clearly(case: str, tmp_path: Path, capsys: calls.Captured) -> None:
    make, more, code, said = REFUSED[case]
    out, model = tmp_path / "runs", places.encoder_model(tmp_path / "m")
    got, printed, err = calls.call(["adapt", make(tmp_path), "--model", model, "--out", out, *more], capsys)
    assert got == code and not printed and "Traceback" not in err and len(err) < 1500, err
    assert re.search(said, err) and not out.exists(), err


def test_texts_where_pictures_are_expected_and_the_reverse(tmp_path: Path, capsys: calls.Captured) -> None:
    table, out = put("t.csv", GOOD.encode())(tmp_path), tmp_path / "runs"
    code, printed, err = calls.call(["adapt", table, "--model", places.model(tmp_path / "m"), "--out", out], capsys)
    assert code in (3, 4) and not printed and "Traceback" not in err and "texts" in err and "pictures" in err, err
    photos = places.pictures(tmp_path / "photos")
    words = places.encoder_model(tmp_path / "words")
    code, printed, err = calls.call(["adapt", photos, "--model", words, "--out", out], capsys)
    assert code in (3, 4) and not printed and "Traceback" not in err and "texts" in err and "pictures" in err, err
    assert not out.exists()
