"""Read folders of files: class folders, with or without split folders, as paths with labels."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regraft.data.cells import EMPTY
from regraft.errors import DataError
from regraft.kit import places
from regraft.waist import Bad, Look

See = Callable[[Sequence[Path]], Sequence[tuple[str, Look]]]
SPLITS = {"train": "train", "training": "train"}
SPLITS |= dict.fromkeys(("val", "validation", "valid", "dev"), "val")
SPLITS |= dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")
LITTER = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"),
)
MASK = re.compile(r"(.+?)[ ._-](?:mask|seg|segmentation|matte|gt|ground_?truth)", re.IGNORECASE)
MASKS = ("mask", "masks", "segmentation", "segmentations", "segmentation_masks", "gt", "ground_truth", "trimaps")
IMAGES = (
    *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "original", "originals"),
    *("jpegimages", "rgb", "input", "inputs"),
)


@dataclass(slots=True)
class Found:
    """What a reader hands on: rows per given split (id, path, label, content key, look), files that are no examples
    with the reason where there is one to tell, files that should be examples and cannot be used, what else to say."""

    splits: dict[str, list[tuple[str, Path, str, str, Look]]]
    left_out: list[tuple[str, str]]
    bad: list[Bad]
    notes: list[str] = field(default_factory=list)


class Tree:
    """A folder, or an archive, without a system's litter; links are followed once, never in circles, never out of it.

    `notes` tells of the links that were not followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._followed: set[str] = set()
        self._known: dict[Path, tuple[list[Path], list[Path]]] = {}
        self._out: list[str] = []
        self._again: list[str] = []

    def folders(self, place: Path) -> list[Path]:
        """The folders right in a folder, sorted."""
        return self._entries(place)[0]

    def loose(self, place: Path) -> list[Path]:
        """The files right in a folder, sorted."""
        return self._entries(place)[1]

    def files(self, place: Path) -> Iterator[Path]:
        """The files in a folder, then those in its folders, sorted."""
        waiting = [place]
        while waiting:
            inner, here = self._entries(waiting.pop())
            yield from here
            waiting += reversed(inner)

    @property
    def notes(self) -> list[str]:
        """What was seen and not followed, so far."""
        told = [
            (self._out, "links lead out of the folder and are left out", "give their target, or a copy (cp -rL)"),
            (self._again, "links to folders are left out, they were read before or lead in a circle", ""),
        ]
        return [
            f"{len(names):,} {what}, such as {', '.join(names[:3])}{': ' + do if do else ''}"
            for names, what, do in told
            if names
        ]

    def _entries(self, place: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the files right in a folder; each link is judged when it is first met."""
        if place not in self._known:
            inner: list[Path] = []
            here: list[Path] = []
            try:
                found = places.listed(place)
                for path in found:
                    if not is_litter(path.name) and self._may(path):
                        (inner if places.is_dir(path) else here).append(path)
            except OSError as error:
                raise DataError(
                    "a folder may not be read",
                    saw=places.in_words(f"{error.filename}: {error.strerror}"),
                    allowed="folders you may read",
                    do="change its permissions, or move it away",
                ) from error
            self._known[place] = (inner, here)
        return self._known[place]

    def _may(self, path: Path) -> bool:
        """Whether a path is to be read: it is no link, or one that leads to something new inside."""
        if not path.is_symlink():
            return True
        real, name = os.path.realpath(path), places.in_words(path.relative_to(self.root))
        if not Path(real).is_relative_to(self._real):
            self._out.append(name)
            return False
        if not os.path.isdir(real):
            return True
        if real in self._followed or Path(os.path.realpath(path.parent)).is_relative_to(real):
            self._again.append(name)
            return False
        self._followed.add(real)
        return True


def class_folders(root: Path, see: See, endings: Sequence[str]) -> Found:
    """Read `root/<class>/…` or `root/<split>/<class>/…`; a class is a folder's name in Unicode form NFC.

    `see` gives files' fingerprints and looks. A file that it cannot use is bad if it is empty or has one of `endings`,
    otherwise it is no example.

    Raises: DataError: a folder may not be read, or nothing lies in class folders of training.
    """
    tree = Tree(root)
    tops = tree.folders(root)
    named = {p: SPLITS[p.name.lower()] for p in tops if p.name.lower() in SPLITS}
    if "train" in named.values():
        parts = sorted(named.items())
        stray = [p.name for p in tops if p not in named]
    elif named and len(named) == len(tops):
        raise DataError(
            "there is no training split",
            saw=", ".join(sorted(p.name for p in named)),
            allowed="train (or training), with val and test beside it if there are any",
            do=f"put the training examples into {root / 'train'}",
        )
    else:
        parts, stray = [(root, "train")], []
    found = Found({}, [(f"{places.in_words(name)}/", "beside the split folders") for name in stray], [])
    taken: set[str] = set()
    for place, split in parts:
        _read_split(tree, place, split, (see, endings), found, taken)
    found.notes += tree.notes
    if not found.splits.get("train"):
        raise _no_classes(tree, found)
    return found


def files(root: Path) -> Iterator[Path]:
    """The files below a folder or in an archive, in sorted order, as `Tree` sees them."""
    return Tree(root).files(root)


def folders(root: Path) -> list[Path]:
    """The folders right below `root` in sorted order, as `Tree` sees them."""
    return Tree(root).folders(root)


def is_litter(name: str) -> bool:
    """Whether a name says that a system left the file or folder: hidden, a cache of thumbnails, a bin."""
    return name.startswith(".") or name.lower() in LITTER


def unwrapped(archive: Path, wanted: Sequence[str]) -> Path:
    """The folder of an archive that holds everything: its top, or the one folder there that wraps what is in it.

    A folder wraps if it holds folders, or a file with one of the endings `wanted`; a training split does not.

    Raises: DataError: the archive is broken, or not safe to read.
    """
    place, tree = archive, Tree(archive)
    while True:
        inner = tree.folders(place)
        if len(inner) != 1 or tree.loose(place) or SPLITS.get(inner[0].name.lower()) == "train":
            return place
        held = tree.loose(inner[0])
        if not (tree.folders(inner[0]) or any(path.suffix.lower() in wanted for path in held)):
            return place
        place = inner[0]


def _read_split(
    tree: Tree, place: Path, split: str, seeing: tuple[See, Sequence[str]], found: Found, taken: set[str]
) -> None:
    """Add the rows of one split; `taken` are the ids given so far."""
    see, endings = seeing
    labels = tree.folders(place)
    every = [(label, path) for label in labels for path in tree.files(label)]
    masks = _masks([path for _, path in every])
    paths = [(label, path) for label, path in every if path not in masks]
    if masks:
        first = places.in_words(min(masks).relative_to(tree.root).as_posix())
        found.notes.append(
            f"{split}: {len(masks):,} files are taken for masks of other files and left out, such as {first}: move "
            "them into class folders of their own to use them"
        )
    found.left_out += [(places.in_words(p.relative_to(tree.root).as_posix()), "") for p in tree.loose(place)]
    empty = set(labels) - {label for label, _ in every}
    found.left_out += [
        (f"{places.in_words(label.relative_to(tree.root).as_posix())}/", "nothing in it") for label in sorted(empty)
    ]
    rows = found.splits.setdefault(split, [])
    for (label, path), (key, look) in zip(paths, see([path for _, path in paths]), strict=True):
        name = _id(path.relative_to(tree.root).as_posix(), taken)
        if key:
            rows.append((name, path, unicodedata.normalize("NFC", places.in_words(label.name)), key, look))
        elif path.suffix.lower() in endings or look.problem == EMPTY:
            found.bad.append(Bad(split, name, 0, look.problem))
        else:
            found.left_out.append((name, look.problem))


def _id(name: str, taken: set[str]) -> str:
    """A file's name as text that can be written anywhere and that no other has."""
    made = text = places.in_words(name)
    more = 1
    while made in taken:
        more += 1
        made = f"{text} ({more})"
    taken.add(made)
    return made


def _masks(paths: Collection[Path]) -> set[Path]:
    """The files that a name beside them says are masks: cat/1_mask.png beside cat/1.jpg, masks/1.png to images/1.jpg.

    >>> sorted(p.as_posix() for p in _masks([Path("cat/1.jpg"), Path("cat/1_mask.png"), Path("cat/2_mask.png")]))
    ['cat/1_mask.png']
    """
    stems = {(path.parent, path.stem) for path in paths}
    sisters: dict[tuple[str, ...], set[str]] = {}
    for folder in {folder for folder, _ in stems}:
        for i, part in enumerate(folder.parts):
            if part.lower() in IMAGES:
                sisters.setdefault(folder.parts[:i], set()).add(part)
    found = set()
    for path in paths:
        beside = MASK.fullmatch(path.stem)
        plain = {path.stem, beside[1] if beside else path.stem}
        if beside and (path.parent, beside[1]) in stems:
            found.add(path)
        for i, part in enumerate(path.parts[:-1]):
            if part.lower() in MASKS:
                above, below = path.parts[:i], path.parts[i + 1 : -1]
                images = [Path(*above, sister, *below) for sister in sisters.get(above, ())]
                found |= {path} if any((image, one) in stems for image in images for one in plain) else set()
    return found


def _no_classes(tree: Tree, found: Found) -> DataError:
    loose = next(tree.files(tree.root), None)
    files = f"files such as {places.in_words(loose.relative_to(tree.root).as_posix())}" if loose else "no files"
    reasons = [why for _, why in found.left_out if why] + [one.why for one in found.bad]
    return DataError(
        "no class folders with files that can be read were found",
        saw="; ".join([f"{places.in_words(tree.root)} with {files}", *reasons[:1], *found.notes]),
        allowed="<class>/<file> or train/<class>/<file>, with val/ and test/ beside train/; or tables",
        do="sort the files into a folder per class",
    )
