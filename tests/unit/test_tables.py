"""Table files: nothing is taken for a number, what cannot be read costs its row alone, refusals name their place."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from pyarrow import parquet

from regraft.data.tables import FIELD, Table, make_table, read_table, table_ending, table_files, together
from regraft.errors import DataError, RegraftError
from regraft.waist import Bad


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def columns(path: Path) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in read_table(path).columns.items()}


def bad(path: Path) -> list[tuple[int, str]]:
    return [(one.row, one.why) for one in read_table(path).bad]


# ---------------------------------------------------------------- what a table is


def test_labels_are_read_as_they_stand(tmp_path: Path) -> None:
    text = "text,label\na,NA\nb,None\nc,001\nd,true\ne,\nf,1.0\n"
    found = read_table(written(tmp_path / "x.csv", text))
    assert list(found.columns["label"]) == ["NA", "None", "001", "true", "", "1.0"]
    assert found.ids == [f"x:{i}" for i in range(1, 7)] and found.folder == found.root == tmp_path
    assert (found.file, found.bad, found.notes) == ("x.csv", (), ())


def test_good_rows_keep_their_numbers(tmp_path: Path) -> None:
    found = read_table(written(tmp_path / "x.csv", "text,label\na,1\nb\nc,2,3\nd,4\n"))
    assert found.ids == ["x:1", "x:4"] and found.columns == {"text": ["a", "d"], "label": ["1", "4"]}
    assert found.bad == (
        Bad("", "x.csv", 2, "it has fewer cells than the header"),
        Bad("", "x.csv", 3, "it has more cells than the header"),
    )


def test_a_table_below_a_folder_is_called_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    found = read_table(written(tmp_path / "train" / "metadata.csv", "text\na\n"), tmp_path, "train")
    assert (found.file, found.ids, found.root) == ("train/metadata.csv", ["train:1"], tmp_path)


def test_tables_that_were_cut_from_one_share_what_cannot_be_read(tmp_path: Path) -> None:
    whole = read_table(written(tmp_path / "x.csv", b"text,label\na,\xe9\nb\nc,2\n"))
    other = read_table(written(tmp_path / "y.csv", "text,label\na,1\nb\n"))
    found, notes = together([("train", whole.only([0])), ("test", whole.only([1])), ("val", other)])
    assert [(one.split, one.file) for one in found] == [("train", "x.csv"), ("val", "y.csv")]
    assert len(notes) == 1 and notes[0].startswith("x.csv is not UTF-8: read as cp1252")


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
def test_a_cell_may_be_long_but_not_too_long(tmp_path: Path, name: str) -> None:
    texts = ["a" * FIELD, "b" * (FIELD + 1), "c d"]
    if name == "x.csv":
        written(tmp_path / name, "text\n" + "\n".join(texts))
    elif name == "x.jsonl":
        written(tmp_path / name, "".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        parquet.write_table(pyarrow.table({"text": texts}), tmp_path / name)
    before = csv.field_size_limit()
    found = read_table(tmp_path / name)
    assert found.ids == ["x:1", "x:3"] and bad(tmp_path / name) == [(2, "it has a cell of more than 4 MiB")]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "raw", "what", "saw"),
    [
        ("x.csv", "", "a table has no rows", "x.csv"),
        ("x.csv", "a,b\n", "a table has no rows", "x.csv with the columns a, b"),
        ("x.csv", "a,b\n,,\n\n,\n", "a table has no rows", "x.csv with the columns a, b"),
        ("x.jsonl", "\n", "a table has no rows", "x.jsonl"),
        ("x.csv", "a,b\n1\n2\n", "a table has no row that can be read", "fewer cells than the header, in row 1 of 2"),
        ("x.csv", b"PK\x03\x04....", "behind the ending of a table is a spreadsheet or a zip archive", "x.csv"),
        ("x.csv", b"PAR1....", "behind the ending of a table is a Parquet file", "x.csv"),
        ("x.tsv", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS", "x.tsv"),
        ("x.csv", '{"text": "a"}\n', "behind the ending of a table is JSON", "x.csv"),
        ("x.csv", '[\n {"text": "a"}\n]', "behind the ending of a table is JSON", "x.csv"),
        ("x.csv", '{\n  "text": {"0": "a"}}', "behind the ending of a table is JSON", "x.csv"),
        ("x.csv", gzip.compress(gzip.compress(b"a,b", mtime=0), mtime=0), "a file that was packed twice", "x.csv"),
        ("x.jsonl", "text,label\na,b\n", "a JSON file is no table", "row 1: text,label"),
        ("x.jsonl", '["a"]', "a JSON file is no table", 'row 1: ["a"]'),
        ("x.jsonl", "1\n2\n", "a JSON file is no table", "row 1: 1"),
        ("x.json", '[{"a": 1}, ', "a JSON file is no table", "row 1: it is no JSON"),
        ("x.parquet", "text,label\na,b\n", "a table cannot be read to its end", "x.parquet"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, raw: str | bytes, what: str, saw: str) -> None:
    path = written(tmp_path / name, raw)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert what in caught.value.what and caught.value.saw.startswith(str(path)) and saw in caught.value.saw


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a table may not be read · saw: .*x\.csv: Is a directory"):
        (tmp_path / "x.csv").mkdir()
        read_table(tmp_path / "x.csv")


def test_packed_tables(tmp_path: Path) -> None:
    raw = gzip.compress(b"text,label\na,b\n")
    for name in ("x.csv", "x.csv.gz"):
        assert columns(written(tmp_path / name, raw)) == {"text": ["a"], "label": ["b"]}
    assert read_table(tmp_path / "x.csv.gz").ids == ["x:1"]
    assert table_ending(Path("x.JSONL.gz")) == ".jsonl" and table_ending(Path("x.parquet.gz")) == ""


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
    path = written(tmp_path / "x.json", '[\n {"text": "001", "y": null},\n 3,\n {"text": "NA", "y": {"a": 1}}\n]')
    assert columns(path) == {"text": ["001", "NA"], "y": [None, {"a": "1"}]}
    assert bad(path) == [(2, "it is no JSON object")]


def test_broken_lines_of_json_cost_themselves(tmp_path: Path) -> None:
    lines = [
        b'{"a": 1}',
        b'{"a": ',
        b"[1]",
        b"null",
        b"",
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b'{"a": "\0"}',
        b'{"a": 2}',
    ]
    path = written(tmp_path / "x.jsonl", b"\n".join([*lines, *[b'{"a": "\xc3\xa9"}'] * 3]))
    assert read_table(path).ids == ["x:1", "x:8", "x:9", "x:10", "x:11"]
    assert columns(path) == {"a": ["1", "2", *"ééé"]}
    assert bad(path) == [
        (2, "it is no JSON"),
        (3, "it is no JSON object"),
        (4, "it is no JSON object"),
        (5, "it is not UTF-8"),
        (6, "it is no JSON"),
        (7, "it is no JSON"),
    ]


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", '{"text": "a\\ud800b"}\n{"text": "\\ud83d\\ude00"}')
    assert columns(path) == {"text": ["a\ufffdb", "😀"]}


# ---------------------------------------------------------------- tables


def test_some_rows_of_a_table() -> None:
    table = make_table({"a": ["x", "y", "z"]}, "t", None, None)
    kept = table.only([2, 0])
    assert kept.ids == ["t:3", "t:1"] and kept.columns == {"a": ["z", "x"]} and not kept.keys


def test_table_files_are_known_by_their_endings(tmp_path: Path) -> None:
    for name in ("b.csv", "a.JSONL", "c.txt", ".d.csv", "e.parquet", "g.csv.gz", "h.txt.gz"):
        written(tmp_path / name, "")
    (tmp_path / "f.csv").mkdir()
    assert [p.name for p in table_files(tmp_path)] == ["a.JSONL", "b.csv", "e.parquet", "g.csv.gz"]


@pytest.mark.parametrize(("name", "rows"), [("train", 10003), ("test", 3080)])
def test_rows_with_quoted_newlines_are_one_row(shared: Path, name: str, rows: int) -> None:
    found = read_table(shared / "data" / "banking77" / f"{name}.csv")
    assert len(found.ids) == rows and len(set(found.columns["label"])) == 77 and not found.bad
    assert sum("\n" in text for text in found.columns["text"]) == {"train": 10, "test": 3}[name]


# ---------------------------------------------------------------- any table, any bytes

LETTERS = some.characters(codec="cp1252", exclude_categories=["Cc"])
TEXTS = some.text(LETTERS | some.sampled_from('\n",;\t| '), min_size=1, max_size=30).filter(
    lambda text: text == text.strip()
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=some.lists(some.tuples(TEXTS, some.sampled_from(["good", "bad", "größe"])), min_size=4, max_size=20),
    delimiter=some.sampled_from(",;\t|"),
    end=some.sampled_from(["\n", "\r\n", "\r"]),
    encoding=some.sampled_from(ENCODINGS),
    everything=some.booleans(),
)
def test_whatever_is_written_is_read_back(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, end: str, encoding: str, everything: bool
) -> None:
    file = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL
    rows = [("the film was, all in all, grün und größer als früher", "größe"), *rows, *[("Käse über Öl", "good")] * 9]
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([("text", "label"), *rows])
    found = read_table(written(tmp_path / "x.csv", file.getvalue().encode(encoding)))
    assert not found.bad
    assert list(zip(found.columns["text"], found.columns["label"], strict=True)) == rows
    assert bool(found.notes) == (encoding not in ("utf-8", "utf-8-sig"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    raw=some.binary(max_size=200)
    | some.text('a1 ",;\t|\n\r\\[]{}:\0é', max_size=120).map(str.encode)
    | some.lists(some.sampled_from([b'"', b",", b"\n", b"a", b'""', b"text", b"\xff", b"\0", b'{"a":', b"}"])).map(
        b"".join
    ),
    name=some.sampled_from(["x.csv", "x.tsv", "x.jsonl", "x.json", "x.parquet", "x.arrow", "x.csv.gz"]),
)
@example(raw=b'"', name="x.csv")
@example(raw=b"sep=", name="x.csv")
@example(raw=b"sep=;\n", name="x.csv")
@example(raw=b'sep="\na"b\n', name="x.csv")
@example(raw=b"sep=\r\na", name="x.csv")
@example(raw=b"\xef\xbb\xbf", name="x.csv")
@example(raw=b"\xff\xfe", name="x.csv")
@example(raw=b'[{"a": 1}, null]', name="x.json")
@example(raw=b'{"a": 1e999999, "a": NaN}', name="x.json")
def test_any_bytes_are_a_table_or_refused(tmp_path: Path, raw: bytes, name: str) -> None:
    opens_or_refuses(written(tmp_path / name, raw))


def opens_or_refuses(path: Path) -> Table | None:
    try:
        found = read_table(path)
    except RegraftError as error:
        assert error.code == 3 and error.saw and error.do
        return None
    assert len(found.ids) == len(set(found.ids)) > 0 and {len(v) for v in found.columns.values()} == {len(found.ids)}
    assert not {int(name.rpartition(":")[2]) for name in found.ids} & {one.row for one in found.bad}
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of both kinds of Arrow tables, small and with all that such files have."""
    place = tmp_path_factory.mktemp("arrow")
    table = pyarrow.table(
        {
            "text": [f"text {i} é" for i in range(40)],
            "label": pyarrow.array(["good", "bad"] * 20).dictionary_encode(),
            "score": pyarrow.array([i / 7 for i in range(40)], pyarrow.float32()),
            "tags": [["a", "b"], []] * 20,
            "when": pyarrow.array(range(40), pyarrow.timestamp("ns")),
        }
    )
    parquet.write_table(table, place / "x.parquet", row_group_size=16)
    with pyarrow.ipc.new_file(place / "x.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=16)
    with pyarrow.ipc.new_stream(place / "stream.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=16)
    return {path.name: path.read_bytes() for path in place.iterdir()}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=some.data())
def test_changed_and_cut_arrow_files_open_or_are_refused(
    tmp_path: Path, whole: dict[str, bytes], data: some.DataObject
) -> None:
    name = data.draw(some.sampled_from(sorted(whole)))
    raw = bytearray(whole[name][: data.draw(some.integers(0, len(whole[name])) | some.just(1 << 30))])
    for at, byte in data.draw(some.lists(some.tuples(some.integers(0, 1 << 16), some.integers(0, 255)), max_size=4)):
        if raw:
            raw[at % len(raw)] = byte
    opens_or_refuses(written(tmp_path / name, bytes(raw)))


def test_row_numbers_without_a_name_are_left_out(tmp_path: Path) -> None:
    found = read_table(written(tmp_path / "r.csv", '"text","y"\n"1","a b","x"\n"2","c, d","z"\n'))
    assert found.columns == {"text": ["a b", "c, d"], "y": ["x", "z"]} and not found.bad
    torn = read_table(written(tmp_path / "torn.csv", "text,y\n1,a,b,x\n2,c,d\n3,e\n4,f\n"))
    assert torn.columns["text"] == ["3", "4"] and [one.row for one in torn.bad] == [1, 2], (
        "a comma in a text is no number"
    )


def test_rows_under_a_name_are_found(tmp_path: Path) -> None:
    found = read_table(written(tmp_path / "x.json", '{"version": 1, "data": [{"text": "a", "y": "b"}, {"text": "c"}]}'))
    assert found.columns == {"text": ["a", "c"], "y": ["b", None]} and found.ids == ["x:1", "x:2"]
    assert any("'data'" in note for note in found.notes)
