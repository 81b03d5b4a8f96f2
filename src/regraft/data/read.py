"""Read what a path holds: class folders, with or without split folders, as cells with labels."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from regraft.errors import DataError

SPLITS = {"train": "train", "training": "train"}
SPLITS |= dict.fromkeys(("val", "validation", "valid", "dev"), "val")
SPLITS |= dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader hands on: rows per given split (id, path, label, content key) and the files left out."""

    splits: dict[str, list[tuple[str, Path, str, str]]]
    left_out: list[str]


def class_folders(root: Path, sniff: Callable[[Path], bool]) -> Found:
    """Read `root/<class>/…` or `root/<split>/<class>/…`; a class is a folder's name in Unicode form NFC.

    Raises: DataError: nothing there, no class folders, one class, or a class that training never sees.
    """
    tops = _folders(root)
    named = {p: SPLITS[p.name.lower()] for p in tops if p.name.lower() in SPLITS}
    if "train" in named.values():
        places = sorted(named.items())
        stray = [p.name for p in tops if p not in named]
    elif named and len(named) == len(tops):
        raise DataError(
            "there is no training split",
            saw=", ".join(sorted(p.name for p in named)),
            allowed="train (or training), with val and test beside it if there are any",
            do=f"put the training examples into {root / 'train'}",
        )
    else:
        places, stray = [(root, "train")], []
    splits: dict[str, list[tuple[str, Path, str, str]]] = {}
    left_out = [f"{name}/ (beside the split folders)" for name in stray]
    for place, split in places:
        rows, skipped = _read_split(root, place, sniff)
        splits.setdefault(split, []).extend(rows)
        left_out += skipped
    _refuse(root, splits)
    return Found(splits, left_out)


def files(root: Path) -> Iterator[Path]:
    """The files below `root` in sorted order: none that is hidden or a system's litter, no links followed out."""

    def refuse(error: OSError) -> None:
        raise DataError(
            "a folder may not be read",
            saw=f"{error.filename}: {error.strerror}",
            allowed="folders you may read",
            do="change its permissions, or move it away",
        ) from error

    for folder, names, found in os.walk(root, onerror=refuse):
        names[:] = sorted(n for n in names if not n.startswith(".") and n != "__MACOSX")
        for name in sorted(found):
            path = Path(folder, name)
            if not _litter(name):
                yield path


def _litter(name: str) -> bool:
    """Whether a file's name says that a system left it: hidden, or a cache of thumbnails."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def _read_split(
    root: Path, place: Path, sniff: Callable[[Path], bool]
) -> tuple[list[tuple[str, Path, str, str]], list[str]]:
    paths = [(label, path) for label in _folders(place) for path in files(label)]
    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(lambda item: _key(item[1], sniff), paths))
    loose = [p for p in sorted(place.iterdir()) if p.is_file() and not _litter(p.name)]
    rows: list[tuple[str, Path, str, str]] = []
    left_out = [p.relative_to(root).as_posix() for p in loose]
    empty = set(_folders(place)) - {label for label, _ in paths}
    left_out += [f"{label.relative_to(root).as_posix()}/ (nothing in it)" for label in sorted(empty)]
    for (label, path), key in zip(paths, keys, strict=True):
        name = path.relative_to(root).as_posix()
        if key:
            rows.append((name, path, unicodedata.normalize("NFC", label.name), key))
        else:
            left_out.append(name)
    return rows, left_out


def _key(path: Path, sniff: Callable[[Path], bool]) -> str:
    """SHA-256 of a file that the modality recognises, otherwise an empty string."""
    try:
        if not path.is_file() or not sniff(path):
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _refuse(root: Path, splits: dict[str, list[tuple[str, Path, str, str]]]) -> None:
    classes = {split: {row[2] for row in rows} for split, rows in splits.items()}
    known = classes.get("train", set())
    if not known:
        loose = next(files(root), None)
        raise DataError(
            "no class folders with pictures were found",
            saw=f"{root} with {'files such as ' + loose.relative_to(root).as_posix() if loose else 'no files'}",
            allowed="<class>/<picture> or train/<class>/<picture>, with val/ and test/ beside train/",
            do="sort the pictures into a folder per class",
        )
    if len(known) == 1:
        raise DataError(
            "there is only one class",
            saw=repr(next(iter(known))),
            allowed="two classes or more",
            do="add a folder with examples of what it is not",
        )
    for split, found in classes.items():
        if extra := sorted(found - known):
            raise DataError(
                f"the {split} split has classes that training never sees",
                saw=", ".join(extra[:5]),
                allowed=", ".join(sorted(known)[:20]),
                do="rename or remove these folders, or add training examples of them",
            )
