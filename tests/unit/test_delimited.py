"""Delimited text: dialects and missing headers are found, a broken line costs itself, no quote swallows the rest."""

from __future__ import annotations

import pytest

from regraft.data.delimited import FEWER, MORE, NUL, OPEN, STRAY, Parsed, delimited
from regraft.errors import DataError


def read(text: str, tab: bool = False) -> Parsed:
    return delimited(text, "x.csv", tab=tab)


def cells(text: str, tab: bool = False) -> dict[str, list[str]]:
    found = read(text, tab)
    assert not found.bad
    return found.columns


# ---------------------------------------------------------------- dialects


@pytest.mark.parametrize(
    ("text", "tab"),
    [
        ("text,label\r\na,b\r\n", False),
        ("text,label\ra,b\r", False),
        ("text;label\na;b\n", False),
        ("text\tlabel\na\tb\n", False),
        ("text|label\na|b\n", False),
        ("sep=;\ntext;label\na;b", False),
        ('"sep=|"\r\ntext|label\r\na|b', False),
        ("text\tlabel\na\tb", True),
        ("text,label\na,b", True),
        ('"text","label"\n"a","b"\n\n   \n', False),
        ("\n text , label\na,b\n", False),
        ("text,label,\na,b,\n", False),
        ("text,label\na,b,,\n", False),
        ("text,label,,\na,b\n,,,\n,,,\n", False),
    ],
)
def test_delimiters_line_ends_and_what_spreadsheets_leave(text: str, tab: bool) -> None:
    assert cells(text, tab) == {"text": ["a"], "label": ["b"]}


def test_the_delimiter_is_the_one_by_which_rows_fit() -> None:
    assert cells("text;label (a, b)\nx, y and z;1,5\nw;2") == {
        "text": ["x, y and z", "w"],
        "label (a, b)": ["1,5", "2"],
    }
    assert cells('"a;b",label\n1;2,x\n3,y\n') == {"a;b": ["1;2", "3"], "label": ["x", "y"]}


def test_quoted_newlines_commas_and_quotes() -> None:
    found = cells('text,label\r\n"one\r\ntwo, ""three""",x\r\n"\n\n",y\n')
    assert found == {"text": ['one\r\ntwo, "three"', "\n\n"], "label": ["x", "y"]}


def test_quotes_may_be_escaped_by_backslashes() -> None:
    assert cells('text,label\n"he said \\"no\\", twice",a\nb,c\n')["text"] == ['he said "no", twice', "b"]
    assert cells('text,label\n"a ""path"" C:\\",a\n')["text"] == ['a "path" C:\\']


def test_quotes_in_tabbed_text_may_be_plain_characters() -> None:
    assert cells('text\tlabel\n"well\ta\n12" disc\tb\n', True) == {"text": ['"well', '12" disc'], "label": ["a", "b"]}
    assert cells('text\tlabel\n"a\tb"\tc\n', True) == {"text": ["a\tb"], "label": ["c"]}


def test_comments_are_data() -> None:
    assert cells("text,label\n# one,a\nb,c\n")["text"] == ["# one", "b"]


# ---------------------------------------------------------------- broken lines


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("one", FEWER),
        ("one,two,three", MORE),
        ('"one" two,x', STRAY),
        ("one\0,x", NUL),
        ("on\udce9,x", "it is not UTF-8"),
        ('"one,x', OPEN),
        ('one,"x', OPEN),
    ],
)
@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_broken_line_costs_itself(line: str, why: str, at: int) -> None:
    lines = [f"text {i},{'xy'[i % 2]}" for i in range(8)]
    lines.insert(at, line)
    found = read("\n".join(["text,label", *lines]))
    assert found.bad == [(at + 1, why)]
    assert found.columns["text"] == [f"text {i}" for i in range(8)]
    assert found.rows == [i for i in range(1, 10) if i != at + 1]


def test_an_open_quote_ends_where_its_row_ends() -> None:
    """Whatever the next quote is: one that opens, one that closes, one in the middle, or a row that then fits."""
    for later in ('"a, b",x', 'he said "no",y', '12",x', 'a ""b"" c,x', '"two\nlines",y'):
        good = [f"text {i},{'xy'[i % 2]}" for i in range(30)]
        found = read("\n".join(["text,label", *good[:10], '"never closed,x', *good[10:], later, "the last,y"]))
        assert (11, OPEN) in found.bad and len(found.bad) <= 2, later
        assert [text for text in found.columns["text"] if text.startswith("text ")] == [f"text {i}" for i in range(30)]
        assert found.columns["text"][-1] == "the last"


def test_the_rest_of_a_torn_cell_is_no_row() -> None:
    found = read('text,label\n"one\nhe said "no" to\nme",x\ntwo,y\n"three\nfour",x\n')
    assert found.columns == {"text": ["two", "three\nfour"], "label": ["y", "x"]}
    assert [why for _, why in found.bad] == [OPEN, FEWER, STRAY]


def test_cells_with_line_ends_and_commas_stay_whole() -> None:
    poem = "roses are red,\nviolets are blue,\nx, y, z,"
    rows = [(poem, "verse"), ("plain", "prose")] * 30
    text = "text,label\n" + "".join(f'"{said}",{label}\n' for said, label in rows)
    assert cells(text)["text"] == [said for said, _ in rows]
    letters = "label,text\n" + "".join(f'{"xy"[i % 2]},"Dear customer\n{i}, thank you\n"\n' for i in range(40))
    assert len(cells(letters)["text"]) == 40


def test_quotes_that_never_fit_end_in_time() -> None:
    lines = ['x","'] * 3000
    with pytest.raises(DataError, match=r"the quotes of a table do not fit together · saw: x\.csv, line \d+ and many"):
        read("text,label\n" + "\n".join(lines))


def test_a_header_with_an_open_quote_is_refused() -> None:
    with pytest.raises(DataError, match=r"the header of a table cannot be read · saw: x\.csv, line 1: a quote that"):
        read('"text,label\na,b\nc,d\n')


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "rows",
    [
        ["a film to love,good", "a film to hate,bad", "it is so dull,bad", "as good as it gets,good"],
        ["pics/1.png,cat", "pics/2.png,dog", "pics/3.png,cat", "pics/4.png,dog"],
        ["what a day,5.5", "what a night,3", "not bad at all,4"],
        ["a1,1", "b2,2"],
    ],
)
def test_a_missing_header_is_said(rows: list[str]) -> None:
    found = read("\n".join(rows))
    assert found.columns == {f"column {i + 1}": [row.split(",")[i] for row in rows] for i in range(2)}
    assert found.rows == list(range(1, len(rows) + 1))
    assert found.notes == ["x.csv has no header: its first row is data, its columns are called column 1, column 2 …"]


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("a,b", ["1,2", "3,4"]),
        ("0,1", ["a film to love,1", "a film to hate,0"]),
        ("0,1,2", ["4,5,6", "7,8,9"]),
        (
            "Frage,Antwort",
            ["was ist das hier,ja", "wo ist das hier,nein", "wer ist das denn,ja", "wann war das so,nein"],
        ),
        ("text,label", ["label,label", "text,label", "text,text", "label,text"]),
        ("a,b", ["x,y"]),
        ("photo,what", ["1.png,cat", "2.png,cat"]),
    ],
)
def test_a_header_is_a_header(header: str, rows: list[str]) -> None:
    found = read("\n".join([header, *rows]))
    assert list(found.columns) == header.split(",") and len(found.rows) == len(rows) and not found.notes


def test_the_index_of_a_frame_is_left_out_and_said() -> None:
    for name in ("", "Unnamed: 0"):
        found = read(f"{name},text\n0,a\n1,b\n2,c\n")
        assert (
            found.columns == {"text": ["a", "b", "c"]} and len(found.notes) == 1 and "counts the rows" in found.notes[0]
        )
    assert cells(",text\n5,a\n3,b\n") == {"column 1": ["5", "3"], "text": ["a", "b"]}
    assert cells("text,,label\na,1,b\n") == {"text": ["a"], "column 2": ["1"], "label": ["b"]}


def test_columns_of_one_name() -> None:
    found = read("text,label,label\na,b,b\nc,d,d\n")
    assert found.columns == {"text": ["a", "c"], "label": ["b", "d"]} and "label" in found.notes[0]
    with pytest.raises(DataError, match=r"a table has two columns of one name · saw: x\.csv: label"):
        read("text,label,label\na,b,c\n")
