"""What a target column holds: classes, several labels or numbers; and its values as these."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regraft.data.values import listed
from regraft.errors import DataError, UsageError, unknown
from regraft.kit import shelf
from regraft.waist import Reading, Row, Target, TargetKind

MOST_NUMBERED = 20
"""A target with more different numbers is a regression."""
LARGEST = 1e30
"""Networks reckon in float32."""
GAPS = ("na", "n/a", "#n/a", "<na>", "nan", "null", "none")
"""Labels that other programs write where there is none."""
ODD = 0.01
"""A column of numbers may have so many values that are none."""
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}( .*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d*)?(?:\.\d*)?(?:[eE][+-]?\d+)?", re.ASCII)
_ORDER = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a target column is read; `note` says it where it could be read otherwise. `comma` stands for a point."""

    name: str
    kind: TargetKind
    note: str = ""
    comma: bool = False


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
        return read_as(name, wanted, present)
    if _several(present):
        return Meaning(
            name, "multi", f"target {name} has several labels in a row (--task classify makes classes of it)"
        )
    as_numbers = read_as(name, "number", present)
    read = [as_number(v.replace(",", ".") if as_numbers.comma else v) for v in present if isinstance(v, str)]
    numbers = {value for value in read if value is not None}
    said = f"target {name} has {len(numbers):,} distinct numbers: "
    odd = read.count(None)
    if len(numbers) > MOST_NUMBERED and odd <= ODD * len(read):
        said += f"a regression{as_numbers.note and ', ' + as_numbers.note.partition(': ')[2]}"
        return replace(as_numbers, note=said + " (--task classify makes classes of them)")
    if odd:
        _refuse_free_text(name, present)
        return Meaning(name, "class")
    return Meaning(name, "class", said + "classes (--task regress takes them as numbers)")


def read_as(name: str, kind: TargetKind, values: Sequence[Any]) -> Meaning:
    """The column `name` with values of this kind; numbers may be written with decimal commas, which is then said.

    1,234 may stand for a thousand: where all have three digits behind the comma, none is taken for a decimal one.

    >>> read_as("price", "number", ["3,5", "12"]).comma, read_as("price", "number", ["1,234", "12"]).comma
    (True, False)
    """
    some = [v.strip() for v in values if isinstance(v, str)]
    commas = [v for v in some if _COMMA.fullmatch(v)]
    fit = bool(commas) and not any("." in v and as_number(v) is not None for v in some)
    if kind != "number" or not fit or all(re.fullmatch(r"[+-]?\d{1,3},\d{3}", v) for v in commas):
        return Meaning(name, kind)
    first = commas[0]
    return Meaning(name, kind, f"target {name}: decimal commas, {first} is {first.replace(',', '.')}", comma=True)


def _refuse_free_text(name: str, values: Sequence[str]) -> None:
    """Refuse a column where most values stand once: no classes can be learned from it."""
    distinct = len(set(values))
    dates = sum(bool(_DATE.fullmatch(v.strip())) for v in values if isinstance(v, str))
    if distinct > MOST_NUMBERED and dates > 0.95 * len(values):
        raise DataError(
            "a target column holds dates",
            saw=f"{name}: {distinct:,} different ones in {len(values):,} rows, such as {values[0]}",
            allowed="labels that stand in several rows, or numbers",
            do="name another column with --target; --time names the column by which splits are cut",
        )
    if distinct > MOST_NUMBERED and distinct * 2 > len(values):
        raise DataError(
            "a target column looks like free text",
            saw=f"{name}: {distinct:,} different values in {len(values):,} rows",
            allowed="labels that stand in several rows, or numbers",
            do="name another column with --target, or write --task classify if these are classes",
        )


def valued(rows: Sequence[Row], meant: Meaning) -> tuple[list[Row], list[tuple[str, str]]]:
    """Rows with their targets as labels, tuples of labels or numbers; and of the others their ids and why.

    Raises: DataError: there are targets, and none of them is of the kind that is wanted.
    """
    known: dict[str, Any] = {}
    kept: list[Row] = []
    gone: list[tuple[str, str]] = []
    strange: Row | None = None
    for row in rows:
        try:
            y = known[row.y]
        except (KeyError, TypeError):
            y = _read(row.y, meant)
            if isinstance(row.y, str):
                known[row.y] = y
        if y is None and not missing(row.y):
            gone.append((row.id, f"its {meant.name} is {_WANTED[meant.kind][1]}"))
            strange = strange or row
        elif y is None:
            gone.append((row.id, f"it has no {meant.name}"))
        else:
            kept.append(replace(row, y=y))
    if strange and not kept:
        raise _none_fits(strange, meant)
    if meant.kind == "multi" and not any(row.y for row in kept):
        return [], gone + [(row.id, f"it has no {meant.name}") for row in kept]  # no label: the split is not labelled
    return kept, gone


_WANTED = {
    "class": ("a class is wanted and something else stands there", "no label", "one label in a row"),
    "multi": ("a target is no list of labels", "no list of labels", 'lists, such as ["a", "b"], or a|b'),
    "number": ("a target is no number", "no number", "finite numbers, such as 3, -0.5 or 1e-3"),
}
"""For each kind of target what to say of all that is none, of one that is none, and what is allowed."""


def _none_fits(row: Row, meant: Meaning) -> DataError:
    what, _, allowed = _WANTED[meant.kind]
    do = "use --task multilabel" if isinstance(row.y, list) else "use --task classify, or another column with --target"
    return DataError(what, saw=f"{row.id}, column {meant.name}: {str(row.y)[:60]!r}", allowed=allowed, do=do)


def gaps(target: Target, splits: Mapping[str, Sequence[Row]]) -> list[str]:
    """What to say of labels that may have been meant as gaps: they are classes as they stand."""
    odd = [label for label in target.labels if label.lower() in GAPS]
    rows = (
        [row.y if isinstance(row.y, tuple) else (row.y,) for split in splits.values() for row in split] if odd else []
    )
    return [
        f"label {label!r} stands in {sum(label in ys for ys in rows):,} rows and is taken as a class" for label in odd
    ]


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
    lists = [v for v in values if v.lstrip().startswith("[")]
    if len(lists) == len(values) and sum(listed(v) is None for v in lists) <= ODD * len(values):
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


def _read(value: Any, meant: Meaning) -> Any:
    """A value as what is wanted; None where it is none."""
    if meant.kind == "multi":
        return _labels(value)
    if missing(value) or not isinstance(value, str):
        return None
    return _clean(value) if meant.kind == "class" else _value(value.replace(",", ".") if meant.comma else value)


def _labels(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    found = value if isinstance(value, list) else listed(str(value))
    if found is None and str(value).lstrip().startswith("["):
        return None
    labels = str(value).split("|") if found is None else found
    return tuple(sorted({_clean(str(label)) for label in labels if label is not None} - {""}))


def _value(text: str) -> float | None:
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
