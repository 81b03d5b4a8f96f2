"""Turn what a user hands over into cells that a model reads, and answers into files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from regraft.errors import DataError, UsageError

if TYPE_CHECKING:
    from regraft.deliver.model import Model


def expand(cells: Any, modality: ModuleType, columns: Sequence[str] = ()) -> list[tuple[str, Any]]:
    """(name, cell) pairs: folders become the files in them that the modality reads, tables their rows.

    Raises: UsageError: nothing is left, a path does not exist, or a text stands where a pair is wanted.
    """
    from regraft.data import tables
    from regraft.data.cells import read_cells
    from regraft.data.read import files

    many = list(cells) if isinstance(cells, (list, Sequence)) and not isinstance(cells, (str, tuple)) else [cells]
    found: list[tuple[str, Any]] = []
    for i, cell in enumerate(many):
        if (isinstance(cell, str) and modality.LITERAL) or not isinstance(cell, (str, Path)):
            _fits(cell, modality, columns)
            found.append((str(i), cell))
        elif is_there(Path.is_dir, cell):
            known = [p for p in files(Path(cell)) if modality.sniff(p)]
            for one in known[:1]:
                _fits(one, modality, columns)
            found += [(str(p), p) for p in known]
        elif is_there(Path.is_file, cell) and Path(cell).suffix.lower() in tables.ENDINGS:
            found += read_cells(Path(cell), columns, modality.__name__.rpartition(".")[2])
        elif is_there(Path.is_file, cell):
            _fits(Path(cell), modality, columns)
            found.append((str(cell), Path(cell)))
        else:
            raise UsageError("there is no such file or folder", saw=str(cell), do="check the path")
    if not found:
        raise UsageError(f"there are no {modality.NOUN} to predict", saw=", ".join(map(str, many)) or "nothing")
    return found


def _fits(cell: Any, modality: ModuleType, columns: Sequence[str]) -> None:
    """Refuse a cell that the model does not read: another kind, one text for a pair, two for one."""
    pair = isinstance(cell, tuple)
    if len(columns) == 2 and not pair:
        raise UsageError(
            "this model wants pairs of texts", saw=repr(cell)[:80], allowed=" + ".join(columns), do="give two"
        )
    if (pair and len(columns) != 2) or not modality.sniff(cell):
        raise DataError(
            f"a cell is none of the {modality.NOUN} that this model reads",
            saw=str(cell) if isinstance(cell, Path) else repr(cell)[:80],
            allowed=modality.NOUN if len(columns) != 2 else "tuples of two texts",
            do="leave it out, or use a model that reads it",
        )


def lines(file: Iterable[str], model: Model) -> list[Any]:
    """Cells from lines: texts, pairs with a tab between them, or paths; empty lines are left out.

    Raises: UsageError: a line of a pair has no tab.
    """
    found = [line.rstrip("\r\n") for line in file]
    if not model.literal:
        return [Path(line) for line in found if line.strip()]
    return texts([side for line in found if line.strip() for side in _sides(line, len(model.columns))], model)


def texts(found: Sequence[str], model: Model) -> list[Any]:
    """Texts as cells: one by one, or by twos for a model of pairs.

    Raises: UsageError: the model reads no texts, or one text of a pair lacks.
    """
    if found and not model.literal:
        raise UsageError("this model reads no texts", saw="--text", allowed="files", do="leave --text out")
    if len(model.columns) != 2:
        return list(found)
    if len(found) % 2:
        raise UsageError("a pair lacks its second text", saw=repr(found[-1])[:80], allowed=" + ".join(model.columns))
    return list(zip(found[::2], found[1::2], strict=True))


def _sides(line: str, columns: int) -> list[str]:
    sides = line.split("\t", 1)
    if columns == 2 and len(sides) < 2:
        raise UsageError("a line holds no pair", saw=repr(line)[:80], allowed="two texts with a tab between them")
    return sides if columns == 2 else [line]


def is_there(kind: Callable[[Path], bool], cell: str | Path) -> bool:
    """Whether a path is of a kind; a name that no file can have is of none."""
    try:
        return kind(Path(cell))
    except (OSError, ValueError):
        return False


def as_csv(answers: Sequence[dict[str, Any]]) -> str:
    """Predictions as CSV, a column for each part of an answer; lists and dictionaries as JSON.

    A text that a spreadsheet would run as a formula gets a quote before it.
    """
    file = io.StringIO()
    sheet = csv.writer(file)
    sheet.writerow(list(answers[0]))
    for answer in answers:
        sheet.writerow(
            [
                safe(v)
                if isinstance(v, str)
                else f"{v:.6g}"
                if isinstance(v, float)
                else json.dumps(v, ensure_ascii=False)
                for v in answer.values()
            ]
        )
    return file.getvalue()


def safe(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
