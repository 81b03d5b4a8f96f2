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

from regraft.data.tables import Table, bad_row, read_table
from regraft.errors import DataError, UsageError, unknown
from regraft.kit import places, shelf
from regraft.waist import Bad, Look

TEXT = "text"
EMPTY, NO_TEXT = "the file is empty", "it has no text"
PROBED = 20
"""So many files or values are looked at to recognise what they are."""


def read_cells(
    path: Path, columns: Sequence[str], modality: str
) -> tuple[list[tuple[str, Any]], list[Bad], Sequence[str]]:
    """What a trained model is asked about: a table's cells as (id, cell) in its order; rows without any; notes.

    A text is empty where it is missing: every row that can be read gets an answer.
    The columns are those of training, in their order; without columns (a model trained on a folder of files) the table
    has to have a single one.

    Raises: UsageError: a column is not there. DataError: no table, or one that names a file outside its folder.
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
    cells, keys, looks = text_cells(table, names) if modality == TEXT else file_cells(table, names[0], modality)
    kept = [bool(key) or look.problem == NO_TEXT for key, look in zip(keys, looks, strict=True)]
    bad = [*table.bad, *(bad_row(table, "", i, looks[i].problem) for i, keep in enumerate(kept) if not keep)]
    good = [(name, cell) for name, cell, keep in zip(table.ids, cells, kept, strict=True) if keep]
    return good, sorted(bad, key=lambda one: one.row), table.notes


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
    return cell is not None and (not isinstance(cell, Path) or places.is_file(cell))


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


def file_cells(table: Table, column: str, modality: str) -> tuple[list[Any], list[str], list[Look]]:
    """The cells of a column of files or pictures with their keys and what was seen of them.

    A key is empty where the cell is to be left out; its look has the reason.
    """
    cells = [located(value, table) for value in table.columns[column]]
    found = seen(cells, modality)
    return cells, [key for key, _ in found], [look for _, look in found]


def seen(cells: Sequence[Any], modality: str) -> list[tuple[str, Look]]:
    """Each cell's fingerprint and what one look at it shows; the fingerprint of what cannot be used is empty."""
    item = shelf.find("modalities", modality)

    def one(cell: Any) -> tuple[str, Look]:
        try:
            if not is_there(cell):
                return "", Look("there is no such file" if cell is not None else "no file is named")
            if isinstance(cell, Path) and not places.size(cell):
                return "", Look(EMPTY)
            if not (isinstance(cell, bytes) or item.sniff(cell)):
                return "", Look(item.look(cell).problem or f"it is none of the {item.NOUN} that can be read")
            look: Look = item.look(cell)
            if look.problem or not isinstance(cell, Path):
                return "" if look.problem else _pixels(cell), look
            return places.digest(cell), look
        except OSError as error:
            return "", Look(error.strerror or str(error))

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, cells))


def _pixels(cell: Any) -> str:
    """The fingerprint of pixels in memory: an encoded file, an array or a decoded picture."""
    if isinstance(cell, bytes):
        return hashlib.sha256(cell).hexdigest()
    if type(cell).__module__ == "numpy":
        return hashlib.sha256(f"{cell.dtype} {cell.shape} ".encode() + cell.tobytes()).hexdigest()
    return hashlib.sha256(f"{cell.mode} {cell.size} ".encode() + cell.tobytes()).hexdigest()


def text_cells(table: Table, columns: Sequence[str]) -> tuple[list[Any], list[str], list[Look]]:
    """The texts of a column, or the pairs of two, with their keys; a key is empty where the look has a problem.

    Raises: DataError: most of a column is no text.
    """
    sides = [table.columns[name] for name in columns]
    for name, values in zip(columns, sides, strict=True):
        strange = [i for i, value in enumerate(values) if not isinstance(value, (str, type(None)))]
        if len(strange) * 2 > len(values):
            raise DataError(
                "a text column holds something else",
                saw=f"{table.ids[strange[0]]}, column {name}: {str(values[strange[0]])[:60]}",
                allowed="texts",
                do="name another column with --text",
            )
    looks = [Look(_trouble(cell)) for cell in zip(*sides, strict=True)]
    texts = [["" if not isinstance(value, str) else value for value in values] for values in sides]
    if len(texts) == 1:
        cells: list[Any] = texts[0]
        return cells, ["" if x.problem else _digest(cell) for cell, x in zip(cells, looks, strict=True)], looks
    cells = list(zip(*texts, strict=True))
    return cells, ["" if x.problem else _digest("\0".join(cell)) for cell, x in zip(cells, looks, strict=True)], looks


def _trouble(cell: Sequence[Any]) -> str:
    """Why a text, or a pair of texts, cannot be used."""
    if any(not isinstance(side, (str, type(None))) for side in cell):
        return "its text is something else"
    return "" if all(side and side.strip() for side in cell) else NO_TEXT


def key_of(cell: Any) -> str:
    """The fingerprint of a cell's content, as rows have it: of a text, of a pair of texts, or of a file.

    >>> key_of("a") == _digest("a"), key_of(("a", "b")) == _digest("a\\0b")
    (True, True)
    """
    if isinstance(cell, Path):
        return places.digest(cell)
    return _digest("\0".join(cell) if isinstance(cell, tuple) else cell)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
