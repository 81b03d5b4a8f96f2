"""Table files: nothing is taken for a number, quotes and line ends are kept, and every refusal names its row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from regraft.data.tables import make_table, read_table, table_files
from regraft.errors import DataError


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def columns(path: Path) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in read_table(path).columns.items()}


# ---------------------------------------------------------------- CSV


def test_labels_are_read_as_they_stand(tmp_path: Path) -> None:
    text = "text,label\na,NA\nb,None\nc,001\nd,true\ne,\nf,1.0\n"
    found = read_table(written(tmp_path / "x.csv", text))
    assert list(found.columns["label"]) == ["NA", "None", "001", "true", "", "1.0"]
    assert found.ids == [f"x:{i}" for i in range(1, 7)] and found.folder == found.root == tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "\ufefftext,label\r\na,b\r\n"),
        ("x.csv", "text;label\na;b\n"),
        ("x.csv", "text\tlabel\na\tb\n"),
        ("x.tsv", "text\tlabel\na\tb"),
        ("x.CSV", '"text","label"\n"a","b"\n\n   \n'),
        ("x.csv", "\n text , label\na,b\n"),
    ],
)
def test_marks_line_ends_and_delimiters(tmp_path: Path, name: str, text: str) -> None:
    assert columns(written(tmp_path / name, text)) == {"text": ["a"], "label": ["b"]}


def test_quoted_newlines_commas_and_quotes(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", 'text,label\r\n"one\r\ntwo, ""three""",x\r\n')
    assert columns(path) == {"text": ['one\r\ntwo, "three"'], "label": ["x"]}


def test_quotes_in_a_tsv_may_be_plain_characters(tmp_path: Path) -> None:
    path = written(tmp_path / "x.tsv", 'text\tlabel\n"well\ta\n12" disc\tb\n')
    assert columns(path) == {"text": ['"well', '12" disc'], "label": ["a", "b"]}
    assert columns(written(tmp_path / "y.tsv", 'text\tlabel\n"a\tb"\tc\n')) == {"text": ["a\tb"], "label": ["c"]}


def test_columns_without_a_name_are_numbered(tmp_path: Path) -> None:
    assert columns(written(tmp_path / "x.csv", ",text\n0,a\n")) == {"column 1": ["0"], "text": ["a"]}


def test_one_column_and_long_cells(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    assert columns(written(tmp_path / "x.csv", "text\n" + "a" * 200_000)) == {"text": ["a" * 200_000]}
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("text", "what", "saw"),
    [
        ("a,b\n1,2\n3\n", "a row has more or fewer cells than the header", "row 2: 1 cells, 2 in the header"),
        ("a,b\n1,2,3\n", "a row has more or fewer cells than the header", "row 1: 3 cells, 2 in the header"),
        ("a,b,a\n1,2,3\n", "a table has two columns of one name", "x.csv: a"),
        ('a,b\n1,"2\n3,4\n', "a table cannot be read to its end", "line 3: unexpected end of data"),
        ('a,b\n"1" x,2\n', "a table cannot be read to its end", "line 2: "),
        (b"a,b\n1,2\n3,\xe9\n", "a table is not UTF-8", "line 3: the byte 0xe9"),
        (b"a,b\n1,\x002\n", "a table holds NUL bytes", "line 2"),
        ("", "a table has no rows", "x.csv"),
        ("a,b\n", "a table has no rows", "x.csv with the columns a, b"),
    ],
)
def test_broken_tables_are_refused_by_row(tmp_path: Path, text: str | bytes, what: str, saw: str) -> None:
    path = written(tmp_path / "x.csv", text)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert caught.value.what == what
    assert caught.value.saw.startswith(str(path)) and saw in caught.value.saw


def test_a_parquet_file_is_a_table(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "x.parquet")
    assert columns(tmp_path / "x.parquet") == {"text": ["a"], "n": ["1"]}


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(DataError, match=r"a table may not be read · saw: x\.csv: Permission denied"):
        read_table(Path("x.csv"))


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    text = '{"text": "a", "n": 1, "tags": ["x", "y"]}\r\n\n{"text": "b\u2028c", "n": 0.50, "new": true}\n'
    assert columns(written(tmp_path / name, text)) == {
        "text": ["a", "b\u2028c"],
        "n": ["1", "0.50"],
        "tags": [["x", "y"], None],
        "new": [None, "true"],
    }


def test_a_json_list_of_objects(tmp_path: Path) -> None:
    path = written(tmp_path / "x.json", '[\n {"text": "001", "y": null},\n {"text": "NA", "y": {"a": 1}}\n]')
    assert columns(path) == {"text": ["001", "NA"], "y": [None, {"a": "1"}]}


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", '{"text": "a\\ud800b"}\n{"text": "\\ud83d\\ude00"}')
    assert columns(path) == {"text": ["a\ufffdb", "😀"]}


@pytest.mark.parametrize(
    ("text", "saw"),
    [
        ('{"a": 1}\n{"a": \n', "row 2: Expecting value"),
        ('{"a": 1}\n[1]\n', "row 2: list"),
        ('["a"]', "row 1: str 'a'"),
        ("1\n2\n", "row 1: str '1'"),
    ],
)
def test_json_that_is_no_table(tmp_path: Path, text: str, saw: str) -> None:
    with pytest.raises(DataError) as caught:
        read_table(written(tmp_path / "x.jsonl", text))
    assert caught.value.what == "a JSON file is no table" and saw in caught.value.saw


def test_no_lines_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a table has no rows · saw: .*x\.jsonl · allowed"):
        read_table(written(tmp_path / "x.jsonl", "\n"))


# ---------------------------------------------------------------- tables


def test_some_rows_of_a_table() -> None:
    table = make_table({"a": ["x", "y", "z"]}, "t", None, None)
    kept = table.only([2, 0])
    assert kept.ids == ["t:3", "t:1"] and kept.columns == {"a": ["z", "x"]} and not kept.keys


def test_table_files_are_known_by_their_endings(tmp_path: Path) -> None:
    for name in ("b.csv", "a.JSONL", "c.txt", ".d.csv", "e.parquet"):
        written(tmp_path / name, "")
    (tmp_path / "f.csv").mkdir()
    assert [p.name for p in table_files(tmp_path)] == ["a.JSONL", "b.csv", "e.parquet"]


@pytest.mark.parametrize(("name", "rows"), [("train", 10003), ("test", 3080)])
def test_rows_with_quoted_newlines_are_one_row(shared: Path, name: str, rows: int) -> None:
    found = read_table(shared / "data" / "banking77" / f"{name}.csv")
    assert len(found.ids) == rows and len(set(found.columns["label"])) == 77
    assert sum("\n" in text for text in found.columns["text"]) == {"train": 10, "test": 3}[name]
