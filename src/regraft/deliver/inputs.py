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
from regraft.waist import Bad

if TYPE_CHECKING:
    from regraft.deliver.family import Together
    from regraft.deliver.model import Model


def expand(
    cells: Any,
    modality: ModuleType,
    columns: Sequence[str] = (),
    left_out: list[Bad] | None = None,
    notes: list[str] | None = None,
) -> list[tuple[str, Any]]:
    """(name, cell) pairs: folders and archives become the files in them that the modality reads, tables their rows.

    A folder without such files and with a single table becomes that table's rows. What cannot be read of folders and
    tables is added to `left_out`, and to `notes` what is worth knowing of how they were read.

    Raises: DataError: something cannot be read and there is nothing to add it to. UsageError: nothing is left, a path
    does not exist, or a text stands where a pair is wanted.
    """
    from regraft.data import inspect, tables
    from regraft.data.cells import read_cells, seen
    from regraft.data.read import Tree
    from regraft.kit import places

    notes = [] if notes is None else notes
    many = list(cells) if isinstance(cells, (list, Sequence)) and not isinstance(cells, (str, tuple)) else [cells]
    kind = modality.__name__.rpartition(".")[2]
    found: list[tuple[str, Any]] = []
    bad: list[Bad] = []
    for i, cell in enumerate(many):
        if (isinstance(cell, str) and modality.LITERAL) or not isinstance(cell, (str, Path)):
            _fits(cell, modality, columns)
            found.append((str(i), cell))
            continue
        path, sheets = Path(cell), [Path(cell)]
        packed = not tables.table_ending(path) and places.is_archive(path)
        if packed or places.is_dir(path):
            tree = Tree(path)
            inside = list(tree.files(path))
            known = [p for p in inside if modality.sniff(p)]
            for one in known[:1]:
                _fits(one, modality, columns)
            for p, (key, look) in zip(known, seen(known, kind), strict=True):
                if key:
                    found.append((places.in_words(p), p))
                else:
                    bad.append(Bad("", places.in_words(p), 0, look.problem))
            notes += [*(places.told(path) if packed else ()), *tree.notes]
            sheets = [] if known else [p for p in inside if tables.table_ending(p)]
        elif not places.is_file(path):
            raise UsageError("there is no such file or folder", saw=places.in_words(path), do="check the path")
        elif not tables.table_ending(path):
            _fits(path, modality, columns)
            found.append((places.in_words(path), path))
            sheets = []
        if len(sheets) == 1:
            good, broken, told = read_cells(sheets[0], columns, kind)
            found, bad = found + good, bad + broken
            notes += told
    if bad and (left_out is None or not found):
        raise DataError(
            f"{len(bad):,} of {len(found) + len(bad):,} files and rows cannot be read",
            saw="; ".join(inspect.counted(bad)[: inspect.SHOWN]),
            allowed=modality.NOUN,
            do="mend or remove them",
        )
    if left_out is not None:
        left_out += bad
    if not found:
        raise UsageError(
            f"there are no {modality.NOUN} to read", saw=", ".join(map(places.in_words, many)) or "nothing"
        )
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


def lines(file: Iterable[str], model: Model | Together) -> list[Any]:
    """Cells from lines: texts, pairs with a tab between them, or paths; empty lines are left out.

    Raises: UsageError: a line of a pair has no tab.
    """
    found = [line.rstrip("\r\n") for line in file]
    if not model.literal:
        return [Path(line) for line in found if line.strip()]
    return texts([side for line in found if line.strip() for side in _sides(line, len(model.columns))], model)


def texts(found: Sequence[str], model: Model | Together) -> list[Any]:
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
