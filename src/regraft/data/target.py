"""What a target column holds: classes, several labels or numbers; and its values as these."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.data.values import listed
from regraft.errors import DataError, UsageError, unknown
from regraft.kit import shelf
from regraft.waist import Reading, Row, Target, TargetKind

MOST_NUMBERED = 20
"""A target with more different numbers is a regression."""
LARGEST = 1e30
"""Networks reckon in float32."""
_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d*)?(?:\.\d*)?(?:[eE][+-]?\d+)?", re.ASCII)
_ORDER = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a target column is read; `note` says it where it could be read otherwise."""

    name: str
    kind: TargetKind
    note: str = ""


def as_number(text: str) -> float | None:
    """The number that a text writes; None for words, 001 and what is not finite.

    >>> as_number("-3.50"), as_number("001"), as_number("nan"), as_number("1_000")
    (-3.5, None, None, None)
    """
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def meaning(name: str, values: Sequence[Any], task: str) -> Meaning:
    """How the training values of the column `name` are read: as `task` says, otherwise by what they look like.

    Raises: UsageError: there is no such task. DataError: there are no values, or they are objects or free text.
    """
    wanted: TargetKind | None = shelf.find("tasks", task).KIND if task else None
    present = [v for v in values if not missing(v)]
    if not present:
        raise DataError(
            "the target is missing everywhere",
            saw=f"column {name}",
            allowed="a label or a number in some rows of training",
            do="name another column with --target",
        )
    if strange := next((v for v in present if not isinstance(v, (str, list))), None):
        raise DataError(
            "a target column holds neither labels nor numbers",
            saw=f"{name}: {str(strange)[:60]}",
            allowed="labels, lists of labels, or numbers",
            do="name another column with --target",
        )
    if wanted:
        return Meaning(name, wanted)
    if _several(present):
        return Meaning(
            name, "multi", f"target {name} has several labels in a row (--task classify makes classes of it)"
        )
    numbers = {as_number(v) for v in present if isinstance(v, str)}
    if None in numbers:
        _refuse_free_text(name, present)
        return Meaning(name, "class")
    many = len(numbers) > MOST_NUMBERED
    said = f"target {name} has {len(numbers):,} distinct numbers: "
    if many:
        return Meaning(name, "number", said + "a regression (--task classify makes classes of them)")
    return Meaning(name, "class", said + "classes (--task regress takes them as numbers)")


def _refuse_free_text(name: str, values: Sequence[str]) -> None:
    """Refuse a column where most values stand once: no classes can be learned from it."""
    distinct = len(set(values))
    if distinct > MOST_NUMBERED and distinct * 2 > len(values):
        raise DataError(
            "a target column looks like free text",
            saw=f"{name}: {distinct:,} different values in {len(values):,} rows",
            allowed="labels that stand in several rows, or numbers",
            do="name another column with --target, or write --task classify if these are classes",
        )


def valued(rows: Sequence[Row], meant: Meaning) -> tuple[list[Row], list[str]]:
    """Rows with their targets as labels, tuples of labels or numbers; and the ids of those that have none.

    Raises: DataError: a number was asked for and something else stands there.
    """
    read = {"class": _label, "multi": _labels, "number": _value}[meant.kind]
    known: dict[str, Any] = {}
    kept, gone = [], []
    for row in rows:
        try:
            y = known[row.y]
        except (KeyError, TypeError):
            y = read(row, meant.name)
            if isinstance(row.y, str):
                known[row.y] = y
        if y is None:
            gone.append(row.id)
        else:
            kept.append(Row(row.id, row.cell, y, row.group, row.key, row.facets))
    if meant.kind == "multi" and not any(row.y for row in kept):
        return [], gone + [row.id for row in kept]  # no label in the whole split: it is not labelled
    return kept, gone


def target_of(splits: Mapping[str, Sequence[Row]], meant: Meaning, reading: Reading) -> Target:
    """The target as training shows it.

    Raises: DataError: one class, a constant number, or a label in another split that training lacks.
    UsageError: `reading.positive` fits no two classes.
    """
    train = splits["train"]
    if meant.kind == "number":
        return _number_target(meant.name, [row.y for row in train], reading)
    count = Counter(label for row in train for label in (row.y if meant.kind == "multi" else (row.y,)))
    labels = sorted(count, key=_order(count, numbers=reading.task == "ordinal"))
    if len(labels) < (2 if meant.kind == "class" else 1):
        raise DataError(
            "there is only one class" if labels else "no row carries a label",
            saw=repr(labels[0]) if labels else f"column {meant.name}",
            allowed="two classes or more",
            do="add examples of what it is not",
        )
    for split in _ORDER[1:]:
        found = {label for row in splits[split] for label in (row.y if meant.kind == "multi" else (row.y,))}
        if extra := sorted(found - set(labels)):
            raise DataError(
                f"the {split} split has classes that training never sees",
                saw=_some(extra, 5),
                allowed=_some(labels, 20),
                do="rename or remove them, or add training examples of them",
            )
    ordered = all(as_number(label) is not None for label in labels)
    if reading.positive:
        labels = _with_positive_last(labels, meant.kind, _clean(reading.positive))
    if reading.order:
        labels, ordered = _in_order(labels, [_clean(label) for label in reading.order]), True
    counts = tuple(count[label] for label in labels)
    return Target(meant.name, meant.kind, tuple(labels), counts, ordered=ordered)


def _in_order(labels: Sequence[str], order: list[str]) -> list[str]:
    if sorted(order) != sorted(labels):
        apart = sorted(set(order) ^ set(labels))
        raise UsageError(
            "--order does not name every label of training once",
            saw=_some(apart or order, 5),
            allowed=_some(labels, 20),
            do="write all of them from low to high, with commas between",
        )
    return order


def _with_positive_last(labels: list[str], kind: TargetKind, positive: str) -> list[str]:
    if kind != "class" or len(labels) != 2:
        raise UsageError(
            "--positive needs a target of exactly two classes",
            saw=f"{positive!r} and {len(labels)} {'labels' if kind == 'multi' else 'classes'}",
            allowed="two classes",
            do="leave --positive away",
        )
    if positive not in labels:
        raise unknown("class", positive, labels)
    return sorted(labels, key=lambda label: label == positive)


def _number_target(name: str, ys: Sequence[float], reading: Reading) -> Target:
    if reading.positive or reading.order:
        raise UsageError(
            f"{'--positive' if reading.positive else '--order'} needs a target of classes",
            saw=f"{reading.positive or ', '.join(reading.order)!r} and a regression of {name}",
            allowed="classes",
            do="leave it away",
        )
    centre = math.fsum(ys) / len(ys)
    largest = max(abs(y) for y in ys)
    spread = math.sqrt(math.fsum((y - centre) ** 2 for y in ys) / len(ys)) if largest <= LARGEST else 0.0
    if spread <= 1e-12 * largest:
        raise DataError(
            "the target's numbers are too large" if largest > LARGEST else "the target is the same number everywhere",
            saw=f"{name} = {max(ys, key=abs):g} in {len(ys):,} training rows",
            allowed=f"numbers that differ, up to {LARGEST:g}",
            do="name another column with --target, or write it in other units",
        )
    return Target(name, "number", (), (), centre, spread)


def _order(labels: Mapping[str, int], *, numbers: bool) -> Callable[[str], tuple[float, str]]:
    """A sort key: by value where all labels are whole numbers (or, with `numbers`, any numbers), otherwise as text."""
    values = {label: float(label) if re.fullmatch(r"[+-]?\d+", label, re.ASCII) else None for label in labels}
    if numbers and None in values.values():
        values = {label: as_number(label) for label in labels}
    if None in values.values():
        return lambda label: (0.0, label)
    return lambda label: (values[label] or 0.0, label)


def missing(value: Any) -> bool:
    """Whether a cell holds nothing: a gap or an empty text."""
    return value is None or (isinstance(value, str) and not value.strip())


def _several(values: Sequence[Any]) -> bool:
    """Whether values hold several labels: lists, lists as text, or a|b where that explains them by fewer labels."""
    if any(isinstance(v, list) for v in values):
        return True
    distinct = set(values)
    if all(v.lstrip().startswith("[") and listed(v) is not None for v in distinct):
        return True
    parts = [[part.strip() for part in v.split("|")] for v in distinct]
    joined = any(len(found) > 1 and all(found) for found in parts)
    return joined and len({part for found in parts for part in found if part}) < len(distinct)


def _some(labels: Sequence[str], n: int) -> str:
    """The first labels for a message, long ones cut short."""
    short = [label if len(label) <= 40 else label[:39] + "…" for label in labels[:n]]
    return ", ".join(short) + (" …" if len(labels) > n else "")


def _clean(label: str) -> str:
    return unicodedata.normalize("NFC", label).strip()


def _label(row: Row, name: str) -> str | None:
    if missing(row.y):
        return None
    if not isinstance(row.y, str):
        raise DataError(
            "a class is wanted and something else stands there",
            saw=f"{row.id}, column {name}: {str(row.y)[:60]}",
            allowed="one label in a row",
            do="use --task multilabel" if isinstance(row.y, list) else "mend that row",
        )
    return _clean(row.y)


def _labels(row: Row, name: str) -> tuple[str, ...] | None:
    if row.y is None:
        return None
    found = row.y if isinstance(row.y, list) else listed(str(row.y))
    if found is None:
        found = str(row.y).split("|")
    return tuple(sorted({_clean(str(label)) for label in found if label is not None} - {""}))


def _value(row: Row, name: str) -> float | None:
    if missing(row.y):
        return None
    try:
        value = float(row.y) if isinstance(row.y, str) and "_" not in row.y else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            "a target is no number",
            saw=f"{row.id}, column {name}: {str(row.y)[:60]!r}",
            allowed="finite numbers, such as 3, -0.5 or 1e-3",
            do="mend that row, or use --task classify",
        )
    return value
