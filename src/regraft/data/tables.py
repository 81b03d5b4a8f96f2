"""Read table files as columns of text: CSV, TSV, JSON, JSON lines, Parquet, Arrow; nothing is taken for a number."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.data.arrow import arrow_file
from regraft.data.values import DECODER, check_names, from_json
from regraft.errors import DataError

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length, and an id for every row; cells are text wherever text, numbers or truth values stood.

    A missing cell is None, in CSV an empty text. Paths in it are relative to `folder` and stay inside `root`; None
    stands for wherever the program runs. `keys` are fingerprints of the rows' content where they are known already.
    """

    ids: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    folder: Path | None = None
    root: Path | None = None
    keys: Sequence[str] = ()

    def only(self, keep: Sequence[int]) -> Table:
        """The table with these rows alone."""
        columns = {name: [values[i] for i in keep] for name, values in self.columns.items()}
        keys = [self.keys[i] for i in keep if self.keys]
        return Table([self.ids[i] for i in keep], columns, self.folder, self.root, keys)


def read_table(path: Path, root: Path | None = None, name: str = "") -> Table:
    """Read one table file; ids are `<name>:<row from 1>`, by default with the file's stem.

    Raises: DataError: not a table, not UTF-8, ragged, a name twice, or no rows; the file and the row are named.
    """
    ending = path.suffix.lower()
    try:
        if ending in (".csv", ".tsv"):
            columns = _delimited(path, _decoded(path), tab=ending == ".tsv")
        elif ending in (".parquet", ".arrow"):
            columns = arrow_file(path)
        else:
            columns = _json(path, _decoded(path))
    except OSError as error:
        raise DataError(
            "a table may not be read",
            saw=f"{path}: {error.strerror or error}",
            allowed="a file that you may read",
            do="change its permissions, or copy it",
        ) from error
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(
            "a table has no rows",
            saw=f"{path}" + (f" with the columns {', '.join(list(columns)[:8])}" if columns else ""),
            allowed="a header and rows",
            do="check how it was written",
        )
    return make_table(columns, name or path.stem, path.parent, root or path.parent)


def make_table(columns: Mapping[str, Sequence[Any]], name: str, folder: Path | None, root: Path | None) -> Table:
    """A table of columns in memory, with ids `<name>:<row from 1>`."""
    rows = len(next(iter(columns.values()), ()))
    return Table([f"{name}:{i}" for i in range(1, rows + 1)], columns, folder, root)


# ---------------------------------------------------------------- text files


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            "a table is not UTF-8",
            saw=f"{path}, line {raw[: error.start].count(10) + 1}: the byte 0x{raw[error.start]:02x}",
            allowed="UTF-8, with or without a byte order mark",
            do="save it as UTF-8",
        ) from error
    if "\0" in text:
        raise DataError(
            "a table holds NUL bytes",
            saw=f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}",
            allowed="text",
            do="save it again as UTF-8 text: it may be UTF-16, or no text at all",
        )
    return text


def _delimited(path: Path, text: str, *, tab: bool) -> dict[str, list[Any]]:
    """A delimited file; quotes are taken as they stand in a TSV that does not fit together otherwise."""
    header = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = "\t" if tab else "," if "," in header else max(";\t", key=header.count)
    if delimiter not in header:
        delimiter = "\t" if tab else ","
    try:
        rows = _rows(path, text, delimiter, csv.QUOTE_MINIMAL)
    except DataError:
        if delimiter != "\t":
            raise
        rows = _rows(path, text, delimiter, csv.QUOTE_NONE)
    if not rows:
        return {}
    names = [name.strip() or f"column {i}" for i, name in enumerate(rows[0], 1)]
    check_names(names, str(path))
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}


def _rows(path: Path, text: str, delimiter: str, quoting: int) -> list[list[str]]:
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a long text is no mistake
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    try:
        rows = [row for row in reader if row and (len(row) > 1 or row[0].strip())]
    except csv.Error as error:
        raise DataError(
            "a table cannot be read to its end",
            saw=f"{path}, line {reader.line_num}: {error}",
            allowed="quotes that are closed, and doubled inside a quoted cell",
            do="mend that line",
        ) from error
    finally:
        csv.field_size_limit(limit)
    width = len(rows[0]) if rows else 0
    bad = next((i for i, row in enumerate(rows) if len(row) != width), None)
    if bad is not None:
        raise DataError(
            "a row has more or fewer cells than the header",
            saw=f"{path}, row {bad}: {len(rows[bad])} cells, {width} in the header",
            allowed="the same number in every row",
            do="quote cells that hold the delimiter, or mend that row",
        )
    return rows


def _json(path: Path, text: str) -> dict[str, list[Any]]:
    """Objects as a list or as lines; a column is every name that stands in any of them."""
    parts = [text] if text.lstrip().startswith("[") else text.split("\n")
    objects: list[Any] = []
    for line, part in enumerate(parts, 1):
        try:
            objects += [DECODER.decode(part.strip())] if part.strip() else []
        except (ValueError, RecursionError) as error:
            raise _no_objects(path, line, str(error)) from error
    if len(parts) == 1 and objects and isinstance(objects[0], list):
        objects = objects[0]
    for at, found in enumerate(objects, 1):
        if not isinstance(found, dict):
            raise _no_objects(path, at, f"{type(found).__name__} {str(found)[:40]!r}")
    names = list(dict.fromkeys(name for found in objects for name in found))
    columns = {name: [from_json(found.get(name)) for found in objects] for name in names}
    if "\\ud" in text.lower():  # half of a pair is no character: nothing later could encode it
        columns = {name: [_whole(value) for value in values] for name, values in columns.items()}
    return columns


def _no_objects(path: Path, at: int, saw: str) -> DataError:
    return DataError(
        "a JSON file is no table",
        saw=f"{path}, row {at}: {saw}",
        allowed='an object per line, such as {"text": "…", "label": "…"}, or a list of them',
        do="write it as JSON lines",
    )


def _whole(value: Any) -> Any:
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def table_files(folder: Path) -> list[Path]:
    """The table files right in a folder, by their endings, in sorted order."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file() and p.name[0] != ".")
