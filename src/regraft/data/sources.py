"""Find out what a source is: a table, tables by split, metadata beside files, class folders, or data in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.data import memory, read
from regraft.data.cells import PROBED, TEXT, modality_of
from regraft.data.metadata import described
from regraft.data.read import SPLITS
from regraft.data.tables import ENDINGS, Table, read_table, table_files
from regraft.errors import DataError, near
from regraft.kit import shelf
from regraft.waist import Reading

FILE, LABEL = "file", "label"
"""The columns that class folders are read as."""
SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")


@dataclass(slots=True)
class Found:
    """A table per given split. `modality` is set for class folders, whose columns are FILE and LABEL.

    `files` is a column known to name files, `asked` holds the splits that the user named by a path.
    """

    name: str
    tables: dict[str, Table]
    modality: str = ""
    files: str = ""
    asked: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def find(source: Any, reading: Reading) -> Found:
    """What `source` holds, with the splits that `reading` names by a path.

    Raises: DataError: nothing there, or nothing that can be read. UsageError: an object of another kind.
    """
    asked = {split: path for split, path in (("val", reading.val), ("test", reading.test)) if path}
    if isinstance(source, (str, Path)):
        found = _path(Path(source), tuple(asked))
    elif memory.is_splits(source):
        found = _splits(source)
    else:
        name = memory.kind(source)
        found = Found(name, {"train": memory.as_table(source, name)})
    if "train" not in found.tables:
        raise _no_training(", ".join(found.tables), "give a training split")
    for split, place in asked.items():
        found.tables[split] = _asked(split, Path(place), found)
    found.asked = tuple(asked)
    if set(found.tables) == {"train"}:
        _by_column(found)
    return found


def _splits(source: Mapping[Any, Any]) -> Found:
    keys = memory.split_names(source)
    tables = {split: memory.as_table(source[key], str(key)) for split, key in keys.items()}
    name = memory.kind(source[keys["train"]]) if "train" in keys else ""
    found = Found(name, tables)
    if stray := [str(key) for key in source if key not in keys.values()]:
        found.notes.append(f"left out, called like no split: {', '.join(stray[:5])}")
    return found


def _path(path: Path, asked: Sequence[str]) -> Found:
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise _nothing_there(path)
    if path.suffix.lower() not in ENDINGS or not path.is_file():
        raise _no_table(path)
    name = path.resolve().parent.name if path.stem.lower() in SPLITS else path.stem
    found = Found(name or path.stem, {"train": read_table(path)})
    beside = _tables_by_split([p for p in table_files(path.parent) if p.suffix.lower() == path.suffix.lower()])
    beside = {s: p for s, p in beside.items() if s in ("val", "test") and s not in asked and not p.samefile(path)}
    if beside and SPLITS.get(path.stem.lower()) == "train":
        found.tables |= {split: read_table(p) for split, p in beside.items()}
        listed = ", ".join(f"{p.name} ({split})" for split, p in sorted(beside.items()))
        found.notes.append(f"splits beside {path.name} are taken: {listed}")
    elif beside:
        listed = " and ".join(f"--{split} {p}" for split, p in sorted(beside.items()))
        found.notes.append(f"not read, though beside {path.name}: to use them as splits write {listed}")
    return found


def _folder(root: Path) -> Found:
    """A folder: metadata beside files comes before tables by split, these before a single table, then class folders."""
    name = root.resolve().name
    if labelled := described(root):
        found = Found(name, labelled.tables, files=labelled.column, notes=[*labelled.notes])
        if "train" not in found.tables:
            raise _no_training(f"metadata for {', '.join(found.tables)} alone", "add metadata to the training folder")
        return found
    tables = table_files(root)
    by_split = _tables_by_split(tables)
    folders = read.folders(root)
    if by_split and ("train" in by_split or not folders):
        if "train" not in by_split:
            raise _no_training(
                ", ".join(p.name for p in by_split.values()), f"call the training table train{tables[0].suffix}"
            )
        found = Found(name, {split: read_table(path, root) for split, path in by_split.items()})
        if stray := [p.name for p in tables if p not in by_split.values()]:
            found.notes.append(f"tables left out, called like no split: {', '.join(stray[:5])}")
        return found
    if len(tables) > 1 and not folders:
        raise DataError(
            "it is not clear which of these tables to read",
            saw=f"{root}: {', '.join(p.name for p in tables[:6])}",
            allowed="one table, or train, validation and test",
            do=f"name one, such as {tables[0]}, with --val and --test if there are such",
        )
    if len(tables) == 1:
        table = read_table(tables[0], root)
        if not folders or any(modality_of(values, table) for values in table.columns.values()):
            return Found(name, {"train": table})
    return _class_folders(root)


def _class_folders(root: Path) -> Found:
    modality = _modality(root)
    item = shelf.find("modalities", modality)
    read_folders = read.class_folders(root, item.sniff)
    left_out = list(read_folders.left_out)
    found = Found(root.resolve().name, {}, modality)
    for split, rows in read_folders.splits.items():
        cells: list[Any] = [row[1] for row in rows]
        if modality == TEXT:
            cells = [_content(item.read, path) for path in cells]
            left_out += [row[0] for row, text in zip(rows, cells, strict=True) if text is None]
        keep = [i for i, cell in enumerate(cells) if cell is not None]
        columns = {FILE: [cells[i] for i in keep], LABEL: [rows[i][2] for i in keep]}
        keys = [] if modality == TEXT else [row[3] for row in rows]
        found.tables[split] = Table([rows[i][0] for i in keep], columns, keys=keys)
    if left_out:
        some = ", ".join(left_out[:3]) + (" …" if len(left_out) > 3 else "")
        found.notes.append(f"{len(left_out)} files left out, not {item.NOUN}: {some}")
    return found


def _content(reader: Callable[[Path], str], path: Path) -> str | None:
    try:
        return reader(path)
    except DataError:
        return None


def _modality(root: Path) -> str:
    """The first modality on the shelf that recognises most of the first files."""
    first = [path for path, _ in zip(read.files(root), range(PROBED), strict=False)]
    for name in shelf.names("modalities"):
        sniff = shelf.find("modalities", name).sniff
        if first and sum(bool(sniff(path)) for path in first) * 2 >= len(first):
            return name
    if first and all(path.suffix.lower() in ENDINGS for path in first):
        raise DataError(
            "this folder holds folders of tables",
            saw=f"{root}: " + ", ".join(path.relative_to(root).as_posix() for path in first[:3]),
            allowed="one folder with tables",
            do=f"give one of them, such as {first[0].parent}",
        )
    nouns = ", ".join(shelf.find("modalities", name).NOUN for name in shelf.names("modalities"))
    raise DataError(
        "this folder holds nothing that regraft reads" if first else "this folder is empty",
        saw=f"{root}: " + (", ".join(p.name for p in first[:3]) or "no files"),
        allowed=f"{nouns}, in a folder per class; or tables ({', '.join(ENDINGS)})",
        do="check the path",
    )


# ---------------------------------------------------------------- tables in folders


def _tables_by_split(tables: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in tables:
        split = SPLITS.get(path.stem.lower(), "")
        if split in found:
            raise DataError(
                f"there are two tables for the {split} split",
                saw=f"{found[split].name}, {path.name} in {path.parent}",
                allowed="one",
                do="move one of them away",
            )
        if split:
            found[split] = path
    return found


def _by_column(found: Found) -> None:
    """Take the splits that a column called split tells, where all its values are names of splits."""
    table = found.tables["train"]
    column = next((name for name in table.columns if name.lower() == "split"), "")
    if not column:
        return
    splits = [SPLITS.get(str(value).strip().lower(), "") for value in table.columns[column]]
    if "train" not in splits or "" in splits or len(set(splits)) < 2:
        return
    columns = {name: values for name, values in table.columns.items() if name != column}
    rest = Table(table.ids, columns, table.folder, table.root, table.keys)
    found.tables = {s: rest.only([i for i, split in enumerate(splits) if split == s]) for s in sorted(set(splits))}
    counts = ", ".join(f"{len(t.ids):,} {split}" for split, t in found.tables.items())
    found.notes.append(f"splits by the column {column}: {counts}")


# ---------------------------------------------------------------- --val and --test


def _asked(split: str, path: Path, found: Found) -> Table:
    """The table of a split that the user named by a path, its ids unlike all others."""
    try:
        other = _path(path, ("val", "test"))
    except DataError as error:
        raise DataError(error.what, f"--{split} {path}: {error.saw}", error.allowed, error.do) from error
    if other.modality != found.modality:
        kinds = {"": "a table"}
        raise DataError(
            f"--{split} is of another kind than the training data",
            saw=f"{path}: {kinds.get(other.modality, 'class folders')}",
            allowed=kinds.get(found.modality, f"class folders of {found.modality}"),
            do="give both in one form",
        )
    table = other.tables.get(split) or (other.tables["train"] if set(other.tables) == {"train"} else None)
    if table is None:
        raise DataError(
            f"--{split} holds several splits, none of them {split}",
            saw=f"{path}: {', '.join(other.tables)}",
            allowed=f"one table or folder, or one with a {split} split",
            do="name the file or folder itself",
        )
    found.notes += [f"--{split}: {note}" for note in other.notes]
    known = {name for there in found.tables.values() for name in there.ids}
    ids = [f"{split}/{name}" for name in table.ids] if known & set(table.ids) else table.ids
    return Table(ids, table.columns, table.folder, table.root, table.keys)


# ---------------------------------------------------------------- refusals


def _nothing_there(path: Path) -> DataError:
    kind = "file" if path.suffix else "folder"
    beside = [p.name for p in path.parent.iterdir() if p.is_dir() or kind == "file"] if path.parent.is_dir() else []
    guess = near(path.name, beside)
    return DataError(
        f"there is no such {kind}",
        saw=str(path),
        allowed=f"a folder of class folders, or a table ({', '.join(ENDINGS)})",
        do=f"did you mean {path.parent / guess}?" if guess else "check the path",
    )


def _no_table(path: Path) -> DataError:
    ending = path.suffix.lower()
    what, do = "this file is no table that regraft reads", "give a table, or a folder with a folder per class"
    if ending in SHEETS:
        what, do = "spreadsheets are not read", "save the sheet as CSV"
    elif ending in ARCHIVES:
        what, do = "archives are not read", "unpack it and give the folder"
    return DataError(what, saw=str(path), allowed=", ".join(ENDINGS), do=do)


def _no_training(saw: str, do: str) -> DataError:
    return DataError(
        "there is no training split",
        saw=saw or "no splits",
        allowed="train (or training), with val and test beside it if there are any",
        do=do,
    )
