"""Read folders of files: class folders, with or without split folders, as paths with labels."""

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

    Raises: DataError: a folder may not be read, or nothing lies in class folders of training.
    """
    tops = folders(root)
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
    if not splits.get("train"):
        raise _no_classes(root)
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
            if not is_litter(name):
                yield path


def is_litter(name: str) -> bool:
    """Whether a file's name says that a system left it: hidden, or a cache of thumbnails."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def folders(root: Path) -> list[Path]:
    """The folders right below `root` in sorted order, without hidden ones and a system's litter."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def _read_split(
    root: Path, place: Path, sniff: Callable[[Path], bool]
) -> tuple[list[tuple[str, Path, str, str]], list[str]]:
    paths = [(label, path) for label in folders(place) for path in files(label)]
    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(lambda item: _key(item[1], sniff), paths))
    loose = [p for p in sorted(place.iterdir()) if p.is_file() and not is_litter(p.name)]
    rows: list[tuple[str, Path, str, str]] = []
    left_out = [p.relative_to(root).as_posix() for p in loose]
    empty = set(folders(place)) - {label for label, _ in paths}
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


def _no_classes(root: Path) -> DataError:
    loose = next(files(root), None)
    return DataError(
        "no class folders with files that can be read were found",
        saw=f"{root} with {'files such as ' + loose.relative_to(root).as_posix() if loose else 'no files'}",
        allowed="<class>/<file> or train/<class>/<file>, with val/ and test/ beside train/; or tables",
        do="sort the files into a folder per class",
    )
