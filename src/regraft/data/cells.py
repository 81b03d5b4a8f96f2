"""Make cells of columns: texts, pairs of texts, files that columns name; with a fingerprint of each one's content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from regraft.data.tables import Table, read_table
from regraft.errors import DataError, UsageError, unknown
from regraft.kit import shelf

TEXT = "text"
PROBED = 20
"""So many files or values are looked at to recognise what they are."""


def read_cells(path: Path, columns: Sequence[str], modality: str) -> list[tuple[str, Any]]:
    """The cells of a table's columns, in the table's order, as (id, cell): what a trained model is asked about.

    A text is empty where it is missing. The columns are those of training, in their order; without columns (a model
    trained on a folder of files) the table has to have a single one.

    Raises: UsageError: a column is not there. DataError: no table, or a file that a cell names is not there.
    """
    table = read_table(path)
    wanted = tuple(columns) or (tuple(table.columns) if len(table.columns) == 1 else ())
    if not wanted:
        raise UsageError(
            "it is not known which column to read",
            saw=f"{path}: {', '.join(table.columns)}",
            allowed="a table with one column: this model was trained on files, not on a table",
            do="leave one column in the table",
        )
    names = [column_called(name, table) for name in wanted]
    if modality == TEXT:
        texts = [[_string(v, i, n) for v, i in zip(table.columns[n], table.ids, strict=True)] for n in names]
        return list(zip(table.ids, texts[0] if len(texts) == 1 else zip(*texts, strict=True), strict=True))
    cells = [located(value, table) for value in table.columns[names[0]]]
    gone = next((i for i, cell in zip(table.ids, cells, strict=True) if not is_there(cell)), None)
    if gone is not None:
        raise DataError(
            "a file that the table names is not there",
            saw=f"{gone}: {table.columns[names[0]][table.ids.index(gone)]}",
            allowed=f"files below {table.folder}",
            do="mend the path, or remove the row",
        )
    return list(zip(table.ids, cells, strict=True))


def column_called(name: str, table: Table) -> str:
    """The table's own spelling of a column's name, whose case does not matter where that is clear.

    Raises: UsageError: there is no such column; the nearest is shown.
    """
    if name in table.columns:
        return name
    alike = [column for column in table.columns if column.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    raise unknown("column", name, table.columns)


def located(value: Any, table: Table) -> Any:
    """A file's name as a path below the table's folder; pixels and bytes as they are, None where nothing is named.

    Raises: DataError: the name leads out of the folder of the data.
    """
    if not isinstance(value, (str, Path)):
        return value
    if not str(value).strip():
        return None
    if not _inside(value, table):
        raise DataError(
            "a table names a file outside the folder of the data",
            saw=str(value),
            allowed=f"paths below {table.root}",
            do="move the files into that folder, or write their whole paths",
        )
    return Path(os.path.normpath((table.folder or Path()) / value))


def _inside(value: Any, table: Table) -> bool:
    """Whether what may be a file's name stays in the folder of the data; whole paths are the user's own."""
    if table.root is None or not isinstance(value, (str, Path)) or Path(value).is_absolute():
        return True
    place = os.path.abspath((table.folder or Path()) / value)
    return Path(place).is_relative_to(os.path.abspath(table.root))


def is_there(cell: Any) -> bool:
    """Whether a cell is something: a file that exists, or anything in memory."""
    try:
        return cell is not None and (not isinstance(cell, Path) or cell.is_file())
    except OSError:  # a name that is too long for a file's
        return False


def modality_of(column: Sequence[Any], table: Table) -> str:
    """The modality of the files or pictures that a column holds; "" where it holds none."""
    likely = (v for v in column if _filelike(v) and _inside(v, table))
    some = list(islice(map(partial(located, table=table), likely), PROBED))
    if not some:
        return ""
    if all(isinstance(cell, bytes) for cell in some):
        return "image"  # stored as bytes are pictures alone
    for name in shelf.names("modalities"):
        sniff = shelf.find("modalities", name).sniff
        if name != TEXT and sum(bool(sniff(cell)) for cell in some) * 2 >= len(some):
            return name
    return ""


def _filelike(value: Any) -> bool:
    """Whether a value may be a file's name or pixels: a long text is not asked of the disk."""
    return 0 < len(value) < 1024 if isinstance(value, str) else not isinstance(value, (list, dict, type(None)))


def file_cells(table: Table, column: str, modality: str) -> tuple[list[Any], list[str]]:
    """The cells of a column of files or pictures with their keys; a key is empty where the cell is to be left out."""
    sniff = shelf.find("modalities", modality).sniff
    cells = [located(value, table) for value in table.columns[column]]

    def key(cell: Any) -> str:
        try:
            if not is_there(cell) or not (isinstance(cell, bytes) or sniff(cell)):
                return ""
            if not isinstance(cell, Path):
                return _pixels(cell)
            with cell.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    with ThreadPoolExecutor(4) as pool:
        return cells, list(pool.map(key, cells))


def _pixels(cell: Any) -> str:
    """The fingerprint of pixels in memory: an encoded file, an array or a decoded picture."""
    if isinstance(cell, bytes):
        return hashlib.sha256(cell).hexdigest()
    if type(cell).__module__ == "numpy":
        return hashlib.sha256(f"{cell.dtype} {cell.shape} ".encode() + cell.tobytes()).hexdigest()
    return hashlib.sha256(f"{cell.mode} {cell.size} ".encode() + cell.tobytes()).hexdigest()


def text_cells(table: Table, columns: Sequence[str]) -> tuple[list[Any], list[str]]:
    """The texts of a column, or the pairs of two, with their keys; a key is empty where a text is.

    Raises: DataError: a cell is no text.
    """
    sides = [[_string(v, i, name) for v, i in zip(table.columns[name], table.ids, strict=True)] for name in columns]
    if len(sides) == 1:
        return sides[0], [_digest(text) if text.strip() else "" for text in sides[0]]
    pairs = list(zip(*sides, strict=True))
    return pairs, [_digest("\0".join(pair)) if all(map(str.strip, pair)) else "" for pair in pairs]


def _string(value: Any, where: str, column: str) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise DataError(
        "a text column holds something else",
        saw=f"{where}, column {column}: {str(value)[:60]}",
        allowed="texts",
        do="name another column with --text",
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
