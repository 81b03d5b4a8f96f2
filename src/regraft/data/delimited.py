"""Read delimited text: its dialect found, a missing header noticed; a broken line costs itself and no other."""

from __future__ import annotations

import csv
import io
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from regraft.data.target import as_number
from regraft.data.values import check_names, is_utf8
from regraft.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
MORE, FEWER = "it has more cells than the header", "it has fewer cells than the header"
OPEN, STRAY = "a quote that opens in it is never closed", "a quote in it stands where none may stand"
NOT_UTF8, NUL = "it is not UTF-8", "it holds NUL bytes"
KNOWN = {
    *("text", "sentence", "content", "review", "title", "question", "document", "label", "labels", "target", "class"),
    *("y", "category", "sentiment", "intent", "score", "rating", "stars", "id", "index", "split", "image", "path"),
    *("file_name", "filename", "image_path", "name", "date", "time", "value", "comment", "message"),
}
"""Names that columns have: a first row with any of them is a header."""
PROBED = 200
"""So many lines are looked at to find the delimiter, and so many rows to tell whether there is a header."""
FEW = 20
"""A column with so few different values, or with as few as a tenth of its rows, holds categories."""
AGAIN = 20
"""How many times over the lines may be read again because of quotes that are not closed."""


@dataclass(slots=True)
class Parsed:
    """Columns of a table's good rows, their numbers (from 1), (number, why) of the others, what is worth knowing."""

    columns: dict[str, list[Any]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Record(NamedTuple):
    """What a record's lines hold: the first line (from 0), how many there are, its cells, or why it has none."""

    line: int
    lines: int
    cells: list[str]
    why: str = ""


@dataclass(slots=True)
class _Lines:
    """Lines for a reader, which can be set back."""

    lines: Sequence[str]
    at: int = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.at >= len(self.lines):
            raise StopIteration
        self.at += 1
        return self.lines[self.at - 1]


def delimited(text: str, where: str, *, tab: bool) -> Parsed:
    """Read delimited text; `tab` says that its delimiter is a tab if there is one at all.

    Raises: DataError: two columns have one name, or quotes are not closed everywhere.
    """
    lines = list(io.StringIO(text, newline=""))
    given = re.fullmatch(r'"?sep=(.)"?', lines[0].rstrip("\r\n")) if lines else None
    if given:
        lines = lines[1:]
    delimiter = given[1] if given else _delimiter(lines[:PROBED], tab)
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a long text is no mistake
    try:
        records = _best(lines, delimiter, where)
    finally:
        csv.field_size_limit(limit)
    while records and not records[-1].why and not any(map(str.strip, records[-1].cells)):
        records.pop()  # rows of delimiters alone, as spreadsheets leave them at the end
    if not records:
        return Parsed()
    if _numbered(records):  # R gives its row numbers no name
        records[0] = records[0]._replace(cells=["", *records[0].cells])
    names, notes = _names(records, where)
    if names:
        records = records[1:]
    else:
        names = [f"column {i}" for i in range(1, len(records[0].cells) + 1)]
    return _table(names, records, where, notes, "\0" in text or not is_utf8(text))


def _numbered(records: Sequence[Record]) -> bool:
    """Whether every row begins with its number, one cell more than the header has."""
    width, rows = len(records[0].cells) + 1, [row.cells for row in records[1:] if not row.why]
    return bool(rows) and all(len(row) == width and row[0] == str(n) for n, row in enumerate(rows, 1))


def _delimiter(lines: Sequence[str], tab: bool) -> str:
    """The delimiter by which most rows have as many cells as the first."""
    order = ("\t", *DELIMITERS) if tab else DELIMITERS
    shares = {}
    for delimiter in order:
        try:
            rows = _records(lines, delimiter, {}, set(), "")
        except DataError:
            continue
        width = len(rows[0].cells) if rows else 0
        if width > 1:
            shares[delimiter] = sum(len(row.cells) == width for row in rows) / len(rows)
            if tab and delimiter == "\t":
                break
    return max(shares, key=lambda delimiter: shares[delimiter]) if shares else order[0]


def _best(lines: Sequence[str], delimiter: str, where: str) -> list[Record]:
    """The records by the dialect under which the fewest are broken: quotes doubled, escaped, or plain characters."""
    dialects: list[Mapping[str, Any]] = [{}]
    if any('\\"' in line for line in lines):
        dialects.append({"escapechar": "\\", "doublequote": False})
    if delimiter == "\t":
        dialects.append({"quoting": csv.QUOTE_NONE})
    best, fewest = [], -1
    for dialect in dialects:
        records, mended = _whole(lines, delimiter, dialect, where)
        width = len(records[0].cells) if records else 0
        broken = mended + sum(bool(row.why) or len(row.cells) != width for row in records)
        if fewest < 0 or broken < fewest:
            best, fewest = records, broken
        if not broken:
            break
    return best


def _whole(lines: Sequence[str], delimiter: str, dialect: Mapping[str, Any], where: str) -> tuple[list[Record], int]:
    """The records, and how many quotes were found to close by chance, far below the row in which they open."""
    torn: set[int] = set()
    for _ in range(AGAIN):
        records = _records(lines, delimiter, dialect, torn, where)
        found = {row.line for row in _swallowing(records, lines, delimiter)}
        if not found:
            break
        torn |= found
    return records, len(torn)


def _records(
    lines: Sequence[str], delimiter: str, dialect: Mapping[str, Any], torn: set[int], where: str
) -> list[Record]:
    """Every record that is not blank; after a quote that is never closed the next line is a new one.

    `torn` are the lines where such a quote is known to open.

    Raises: DataError: so many quotes are open that lines would be read again and again.
    """
    source = _Lines(lines)
    reader = csv.reader(source, delimiter=delimiter, strict=True, **dialect)
    found: list[Record] = []
    spent, after = 0, False
    while source.at < len(lines):
        start = source.at
        if start in torn:
            source.at, after = start + 1, True
            found.append(Record(start, 1, [], OPEN))
            continue
        try:
            cells = next(reader)
        except csv.Error as error:
            count = source.at - start
            spent += count
            if spent > AGAIN * (len(lines) + PROBED):
                raise _quotes(where, start) from error
            open_ = count > 1 or "unexpected end" in str(error)
            source.at, after = start + 1, after or open_
            found.append(Record(start, 1, [], OPEN if open_ else STRAY))
            continue
        count = source.at - start
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        if after and count == 1 and lines[start].count('"') % 2:
            found.append(Record(start, 1, [], STRAY))  # the end of the cell that was never closed
            continue
        found.append(Record(start, count, cells))
        after = after and len(cells) != len(found[0].cells)
    return found


def _swallowing(records: Sequence[Record], lines: Sequence[str], delimiter: str) -> list[Record]:
    """Records over several lines whose first line alone is a row: its quote was to be closed there.

    It is one where, without its quotes, it has as many cells as the header, and behind the cell with the quote stands
    a category that its column has in other lines.
    """
    several = [row for row in records[1:] if row.lines > 1 and not row.why]
    if not several:
        return []
    width = len(records[0].cells)
    plain = [cells for line in lines if len(cells := line.replace('"', "").split(delimiter)) == width]
    counts = [Counter(cells[i].strip() for cells in plain) for i in range(width)]
    few = [i for i, values in enumerate(counts) if len(values) <= max(FEW, len(plain) // 10)]
    found = []
    for row in several:
        cells = [cell.strip() for cell in lines[row.line].split(delimiter)]
        last = max((i for i, cell in enumerate(cells) if '"' in cell), default=width)
        if len(cells) == width and any(cells[i] and counts[i][cells[i]] > 1 for i in few if i > last):
            found.append(row)
    return found


def _quotes(where: str, line: int) -> DataError:
    return DataError(
        "the quotes of a table do not fit together",
        saw=f"{where}, line {line + 1} and many others",
        allowed="quotes that are closed, and doubled inside a quoted cell",
        do="write the table again with a library, or without quotes as tab-separated .tsv",
    )


# ---------------------------------------------------------------- header and rows


def _names(records: Sequence[Record], where: str) -> tuple[list[str], list[str]]:
    """The names in the first row, none where that is a row of data as all others; and what to say of it."""
    first = records[0]
    if first.why:
        raise DataError(
            "the header of a table cannot be read",
            saw=f"{where}, line {first.line + 1}: {first.why}",
            allowed="names of columns, with quotes that are closed",
            do="mend that line",
        )
    if _is_data(first.cells, [row.cells for row in records[1 : PROBED + 1] if len(row.cells) == len(first.cells)]):
        return [], [f"{where} has no header: its first row is data, its columns are called column 1, column 2 …"]
    clean = [re.sub("[\ud800-\udfff]", "\ufffd", name).replace("\0", "").strip() for name in first.cells]
    used = max((i for i, name in enumerate(clean, 1) if name), default=0)
    if any(cell.strip() for row in records[1:] for cell in row.cells[used : len(clean)]):
        used = len(clean)
    return [name or f"column {i}" for i, name in enumerate(clean[:used], 1)], []


def _is_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row looks like the others: a cell of it does, and none looks like a name."""
    cells = [cell.strip() for cell in first]
    if {cell.lower() for cell in cells} & KNOWN or cells == [str(i) for i in range(len(cells))]:
        return False
    verdicts = [_alike(cell, [row[i].strip() for row in rows if row[i].strip()]) for i, cell in enumerate(cells)]
    return True in verdicts and False not in verdicts


def _alike(cell: str, values: Sequence[str]) -> bool | None:
    """Whether a cell looks like a column's values; None where nothing tells."""
    if not values or not cell:
        return None
    for looks in (_is_number, _is_file):
        if sum(map(looks, values)) >= 0.95 * len(values):
            return looks(cell)
    words = sum(len(v.split()) for v in values) / len(values)
    if words >= 4:
        return len(cell.split()) >= 3
    if len(values) >= 4 and len(set(values)) * 2 <= len(values):
        return cell in values
    return None


def _is_number(text: str) -> bool:
    return as_number(text.replace(",", ".", 1)) is not None


def _is_file(text: str) -> bool:
    return re.fullmatch(r"\S+\.[A-Za-z]\w{1,4}", text) is not None


def _table(names: list[str], records: Sequence[Record], where: str, notes: list[str], doubtful: bool) -> Parsed:
    """The rows under these names; those that do not fit are bad."""
    made = Parsed(notes=notes)
    width, kept = len(names), []
    for number, row in enumerate(records, 1):
        cells, why = row.cells, row.why
        if len(cells) > width and not any(map(str.strip, cells[width:])):
            cells = cells[:width]  # delimiters at the end of a line
        if not why and len(cells) != width:
            why = MORE if len(cells) > width else FEWER
        if not why and doubtful:
            whole = "".join(cells)
            why = NUL if "\0" in whole else "" if is_utf8(whole) else NOT_UTF8
        if why:
            made.bad.append((number, why))
        else:
            made.rows.append(number)
            kept.append(cells)
    columns = [[row[i] for row in kept] for i in range(width)]
    alike = [i for i, name in enumerate(names) if name in names[:i] and columns[i] == columns[names.index(name)]]
    if alike:
        made.notes.append(f"{where}: columns that stand twice are read once: {', '.join(names[i] for i in alike)}")
    counts = _counts_rows(names, columns)
    if counts >= 0:
        made.notes.append(f"{where}: its column {names[counts]!r} counts the rows and is left out")
    left = [i for i in range(width) if i not in alike and i != counts]
    check_names([names[i] for i in left], where)
    made.columns = {names[i]: columns[i] for i in left}
    return made


def _counts_rows(names: Sequence[str], columns: Sequence[Sequence[str]]) -> int:
    """The column that a DataFrame's index was written as; -1 if there is none."""
    for i, name in enumerate(names):
        if len(names) > 1 and (re.fullmatch(r"Unnamed: \d+", name) or (i == 0 and name == "column 1")):
            numbers = [int(v) if v.isascii() and v.isdigit() else -1 for v in columns[i]]
            rising = all(a < b for a, b in itertools.pairwise(numbers))
            if numbers and numbers[0] in (0, 1) and rising and numbers[-1] <= 2 * len(numbers):
                return i
    return -1
