"""Open a path as data: what it is, its rows in three splits, and what was noticed on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from regraft.data import read, split
from regraft.errors import DataError, near
from regraft.kit import shelf
from regraft.waist import Data, DataCard, Row, Target, fingerprint

MADE_SHARE = 0.2
ORDER = ("train", "val", "test")


def open_data(source: str | Path, seed: int = 0) -> Data:
    """Open class folders; splits that are missing are made and the notes say so.

    Raises: DataError: the path is wrong, holds nothing that a modality reads, or cannot be split.
    """
    root = Path(source)
    if not root.is_dir():
        raise _no_folder(root)
    modality = _modality(root)
    item = shelf.find("modalities", modality)
    found = read.class_folders(root, item.sniff)
    notes = []
    if found.left_out:
        some = ", ".join(found.left_out[:3]) + (" …" if len(found.left_out) > 3 else "")
        notes.append(f"{len(found.left_out)} files left out, not {item.NOUN}: {some}")
    splits = {name: [Row(i, c, y, "", k) for i, c, y, k in found.splits.get(name, [])] for name in ORDER}
    notes += _make_missing(splits, seed)
    notes += _repeats(splits)
    labels = sorted({row.y for row in splits["train"]})
    count = Counter(row.y for row in splits["train"])
    target = Target("label", "class", tuple(labels), tuple(count[label] for label in labels))
    told = [(name, row.id, row.y, row.key) for name in ORDER for row in splits[name]]
    return Data(
        name=root.resolve().name,
        modality=modality,
        target=target,
        train=tuple(splits["train"]),
        val=tuple(splits["val"]),
        test=tuple(splits["test"]),
        fingerprint=fingerprint(target, told),
        notes=tuple(notes),
    )


def card(data: Data) -> DataCard:
    """The data in numbers."""
    rows = tuple((name, len(getattr(data, name))) for name in ORDER)
    return DataCard(data.name, data.modality, data.fingerprint, data.target, rows, data.notes)


def sentence(card: DataCard) -> str:
    """What the data is, in a line: the first thing that a run prints."""
    noun = shelf.find("modalities", card.modality).NOUN
    pairs = [f"{label}: {count}" for label, count in zip(card.target.labels, card.target.counts, strict=True)]
    some = ", ".join(pairs[:6]) + (" …" if len(pairs) > 6 else "")
    rows = ", ".join(f"{count} {name}" for name, count in card.rows)
    total = sum(count for _, count in card.rows)
    return f"{card.name}: {total} {noun} in {len(pairs)} classes; {rows}; training has {some}"


def _no_folder(root: Path) -> DataError:
    beside = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
    guess = near(root.name, beside)
    return DataError(
        "the data is not a folder" if root.exists() else "there is no such folder",
        saw=str(root),
        allowed="a folder of class folders",
        do=f"did you mean {root.parent / guess}?" if guess else "check the path",
    )


def _modality(root: Path) -> str:
    """The first modality on the shelf that recognises most of the first files."""
    first = [path for path, _ in zip(read.files(root), range(20), strict=False)]
    for name in shelf.names("modalities"):
        sniff = shelf.find("modalities", name).sniff
        if first and sum(bool(sniff(path)) for path in first) * 2 >= len(first):
            return name
    nouns = ", ".join(shelf.find("modalities", name).NOUN for name in shelf.names("modalities"))
    raise DataError(
        "this folder holds nothing that regraft reads" if first else "this folder is empty",
        saw=f"{root}: " + (", ".join(p.name for p in first[:3]) or "no files"),
        allowed=f"{nouns}, in a folder per class",
        do="check the path",
    )


def _make_missing(splits: dict[str, list[Row]], seed: int) -> list[str]:
    """Cut the splits that were not given out of training, in place; returns what was made."""
    notes = []
    for name in ("test", "val"):
        if not splits[name]:
            splits["train"], splits[name] = split.cut(splits["train"], MADE_SHARE, seed, name)
            notes.append(
                f"{name} split made: {len(splits[name])} training rows, {MADE_SHARE:.0%} of each class, seed {seed}"
            )
    return notes


def _repeats(splits: dict[str, list[Row]]) -> list[str]:
    """Equal content counted: across splits, and under different labels."""
    where: dict[str, set[str]] = defaultdict(set)
    labels: dict[str, set[str]] = defaultdict(set)
    ids: dict[str, list[str]] = defaultdict(list)
    for name, rows in splits.items():
        for row in rows:
            where[row.key].add(name)
            labels[row.key].add(row.y)
            ids[row.key].append(row.id)
    across = [k for k, names in where.items() if len(names) > 1]
    conflict = [k for k, found in labels.items() if len(found) > 1]
    notes = []
    for keys, what in ((across, "stand in more than one split"), (conflict, "carry different labels")):
        if keys:
            notes.append(f"{len(keys)} pictures {what}, such as {_pair(ids[keys[0]])}")
    return notes


def _pair(names: Sequence[str]) -> str:
    return " = ".join(names[:2])
