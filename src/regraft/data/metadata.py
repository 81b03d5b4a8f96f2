"""Read metadata beside files: metadata.csv, .jsonl or .parquet with a column that names files, per folder or split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regraft.data.read import SPLITS, folders
from regraft.data.tables import Table, read_table, table_files

STEM = "metadata"


@dataclass(frozen=True, slots=True)
class Described:
    """Files that metadata describes: a table per split, and the column that names the files."""

    tables: dict[str, Table]
    column: str
    notes: tuple[str, ...] = ()


def described(root: Path) -> Described | None:
    """The metadata in a folder, or in its split folders; None where none of it names files.

    Names are relative to the folder that the metadata lies in.

    Raises: DataError: a table cannot be read.
    """
    if here := _table(root, root, STEM):
        return Described(_by_first_folder(*here), here[1])
    tables, notes, column = {}, [], ""
    for place in folders(root):
        if split := SPLITS.get(place.name.lower(), ""):
            if there := _table(place, root, place.name):
                tables[split], column = there
            else:
                notes.append(f"{place.name}/ is left out: it has no metadata with a column file_name")
    return Described(tables, column, tuple(notes)) if tables else None


def _table(place: Path, root: Path, name: str) -> tuple[Table, str] | None:
    for path in table_files(place):
        if path.stem.lower() == STEM:
            table = read_table(path, root, name)
            lower = {column.lower(): column for column in reversed(list(table.columns))}
            for column in ["file_name", *(c for c in lower if c.endswith("_file_name"))]:
                if column in lower:
                    return table, lower[column]
    return None


def _by_first_folder(table: Table, column: str) -> dict[str, Table]:
    """Splits that the named files' first folders tell: train/1.jpg, test/2.jpg."""
    firsts = [Path(str(value)).parts[:1] for value in table.columns[column]]
    splits = [SPLITS.get(first[0].lower(), "") if first else "" for first in firsts]
    if "train" not in splits or "" in splits:
        return {"train": table}
    return {split: table.only([i for i, s in enumerate(splits) if s == split]) for split in sorted(set(splits))}
