"""Find out what a source is: a table, tables by split, metadata beside files, class folders, or data in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from regraft.data import memory, read
from regraft.data.cells import PROBED, TEXT, modality_of, seen
from regraft.data.metadata import described
from regraft.data.read import SPLITS
from regraft.data.tables import ENDINGS, Table, read_table, table_ending, table_files, table_stem
from regraft.errors import DataError, near
from regraft.kit import places, shelf
from regraft.waist import Bad, Reading

FILE, LABEL = "file", "label"
"""The columns that class folders are read as."""
SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
ARCHIVES = (*places.ENDINGS, ".7z", ".rar", ".zst")


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
    bad: list[Bad] = field(default_factory=list)


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
    if places.is_dir(path):
        return _folder(path)
    if not places.exists(path):
        raise _nothing_there(path)
    if places.is_archive(path) and path.suffix.lower() not in SHEETS and not table_ending(path):
        return _archive(path)
    if not (ending := table_ending(path)):
        raise _no_table(path)
    stem = table_stem(path)
    name = path.resolve().parent.name if stem.lower() in SPLITS else stem
    found = Found(name or stem, {"train": read_table(path)})
    beside = _tables_by_split([p for p in table_files(path.parent) if table_ending(p) == ending])
    beside = {s: p for s, p in beside.items() if s in ("val", "test") and s not in asked and not p.samefile(path)}
    if beside and SPLITS.get(stem.lower()) == "train":
        found.tables |= {split: read_table(p) for split, p in beside.items()}
        listed = ", ".join(f"{p.name} ({split})" for split, p in sorted(beside.items()))
        found.notes.append(f"splits beside {path.name} are taken: {listed}")
    elif beside:
        listed = " and ".join(f"--{split} {p}" for split, p in sorted(beside.items()))
        found.notes.append(f"not read, though beside {path.name}: to use them as splits write {listed}")
    return found


def _archive(path: Path) -> Found:
    """What an archive holds, as if it were the folder of its name; what was left out of it is told first."""
    root = read.unwrapped(path, ENDINGS)
    found = _folder(root, places.stem(path))
    found.notes[:0] = places.told(path)
    return found


def _folder(root: Path, name: str = "") -> Found:
    """A folder: metadata beside files comes before tables by split, these before a single table, then class folders."""
    name = name or root.resolve().name
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
    return _class_folders(root, name)


def _class_folders(root: Path, name: str) -> Found:
    modality = _modality(root)
    item = shelf.find("modalities", modality)
    listed = read.class_folders(root, partial(seen, modality=modality), item.ENDINGS)
    found = Found(name, {}, modality, notes=listed.notes, bad=listed.bad)
    for split, rows in listed.splits.items():
        cells: list[Any] = [item.read(row[1]) if modality == TEXT else row[1] for row in rows]
        columns = {FILE: cells, LABEL: [row[2] for row in rows]}
        keys = [] if modality == TEXT else [row[3] for row in rows]
        found.tables[split] = Table([row[0] for row in rows], columns, keys=keys, looks=[row[4] for row in rows])
    found.notes += _left_out(listed.left_out, item.NOUN)
    return found


def _left_out(names: Sequence[tuple[str, str]], noun: str) -> list[str]:
    """What was left out, files that are no examples first, then folders; reasons are told once."""
    notes = []
    for kind, some in (
        ("files", [n for n in names if n[0][-1] != "/"]),
        ("folders", [n for n in names if n[0][-1] == "/"]),
    ):
        shown = ", ".join(f"{name} ({why})" if why else name for name, why in some[:3])
        what = f"left out, not {noun}" if kind == "files" else "left out"
        notes += [f"{len(some)} {kind} {what}: {shown}{' …' if len(some) > 3 else ''}"] if some else []
    return notes


def _modality(root: Path) -> str:
    """The first modality on the shelf that recognises most of the first files."""
    tree = read.Tree(root)
    first = [path for path, _ in zip(tree.files(root), range(PROBED), strict=False)]
    for name in shelf.names("modalities"):
        sniff = shelf.find("modalities", name).sniff
        if first and sum(bool(sniff(path)) for path in first) * 2 >= len(first):
            return name
    for name in shelf.names("modalities"):
        endings = shelf.find("modalities", name).ENDINGS
        if first and sum(path.suffix.lower() in endings for path in first) * 2 >= len(first):
            return name  # named as such, though broken: each file is told with its reason
    some = ", ".join(places.in_words(path.relative_to(root).as_posix()) for path in first[:3])
    if first and all(path.suffix.lower() in ENDINGS for path in first):
        raise DataError(
            "this folder holds folders of tables",
            saw=f"{places.in_words(root)}: {some}",
            allowed="one folder with tables",
            do=f"give one of them, such as {first[0].parent}",
        )
    packed = first and all(path.name.lower().endswith(ARCHIVES) for path in first)
    nouns = ", ".join(shelf.find("modalities", name).NOUN for name in shelf.names("modalities"))
    raise DataError(
        "this folder holds nothing that regraft reads" if first else "this folder is empty",
        saw="; ".join([f"{places.in_words(root)}: {some or 'no files'}", *tree.notes]),
        allowed=f"{nouns}, in a folder per class; or tables ({', '.join(ENDINGS)})",
        do="unpack what is in it, or give one of them" if packed else "check the path",
    )


# ---------------------------------------------------------------- tables in folders


def _tables_by_split(tables: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in tables:
        split = SPLITS.get(table_stem(path).lower(), "")
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
    rest = replace(table, columns=columns)
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
    found.bad += [replace(one, split=split) for one in other.bad]
    return replace(table, ids=ids)


# ---------------------------------------------------------------- refusals


def _nothing_there(path: Path) -> DataError:
    """The nearest name beside the first part of the path that is not there."""
    while not places.exists(path.parent) and path.parent != path:
        path = path.parent
    kind = "file" if path.suffix else "folder"
    beside = [p.name for p in _beside(path.parent) if places.is_dir(p) or kind == "file"]
    guess = near(path.name, beside)
    return DataError(
        f"there is no such {kind}",
        saw=places.in_words(path),
        allowed=f"a folder of class folders, a zip or tar of one, or a table ({', '.join(ENDINGS)})",
        do=f"did you mean {path.parent / guess}?" if guess else "check the path",
    )


def _beside(folder: Path) -> list[Path]:
    try:
        return places.listed(folder)
    except OSError:
        return []


def _no_table(path: Path) -> DataError:
    ending = path.suffix.lower()
    what, do = "this file is no table that regraft reads", "give a table, or a folder with a folder per class"
    if ending in SHEETS:
        what, do = "spreadsheets are not read", "save the sheet as CSV"
    elif packed := places.foreign(path):
        what, do = f"archives of the kind {packed} are not read", "unpack it and give the folder, or make a zip of it"
    elif path.name.lower().endswith(ARCHIVES):
        what, do = "this is no archive, whatever its name says, or it is cut short", "fetch or make it again"
    return DataError(what, saw=places.in_words(path), allowed=f"{', '.join(ENDINGS)}; zip and tar", do=do)


def _no_training(saw: str, do: str) -> DataError:
    return DataError(
        "there is no training split",
        saw=saw or "no splits",
        allowed="train (or training), with val and test beside it if there are any",
        do=do,
    )
