"""Are classes missing from a split, rare, far apart in size, or no real classes?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

from regraft.waist import Flag, Row, Seen

NEEDS = "data"
SHOWN = 5
HARDLY = 0.05
"""A class with less than this share of the median class's rows has hardly any."""
REST = (
    *("background", "bg", "clutter", "distractor", "empty", "ignore", "ignored", "misc", "miscellaneous", "n_a", "na"),
    *("nan", "no_class", "no_label", "none", "nothing", "null", "other", "others", "rest", "undefined", "unknown"),
    *("unlabeled", "unlabelled", "unsorted", "unused", "void"),
)
"""What a class is called that is none: the background, the rest, what was not sorted."""


def look(seen: Seen) -> list[Flag]:
    """Classes that a split lacks, that have hardly any rows, that outnumber others, or that are called like a rest."""
    target = seen.data.target
    if not target.labels:
        return []
    found = [
        *_missing(seen, "val", seen.data.val),
        *_missing(seen, "test", seen.data.test),
        *_rare(target.labels, target.counts),
    ]
    most, least = max(target.counts), min(target.counts)
    if target.unequal:
        named = dict(zip(target.counts[::-1], target.labels[::-1], strict=True))
        text = f"the largest class has {most / least:,.0f} times the training rows of the smallest"
        some = (f"{named[most]}: {most:,}", f"{named[least]}: {least:,}")
        advice = "collect more of the rare ones, and judge by --metric macro_f1 or balanced_accuracy"
        found.append(Flag("classes", "note", len(target.labels), len(target.labels), text, some, advice))
    rest = [label for label in target.labels if re.sub(r"\W+", "_", label.casefold()).strip("_") in REST]
    if rest and target.kind == "class":
        text = f"{len(rest):,} of {len(target.labels):,} classes with the name of a background or a rest"
        advice = "keep it only if such inputs will be met in use; remove its rows if it is unused"
        found.append(Flag("classes", "note", len(rest), len(target.labels), text, tuple(rest[:SHOWN]), advice))
    return found


def _missing(seen: Seen, name: str, rows: Sequence[Row]) -> list[Flag]:
    """Labels of training that no row of a split has."""
    labels = seen.data.target.labels
    there = {label for row in rows for label in (row.y if isinstance(row.y, tuple) else (row.y,))}
    gone = tuple(label for label in labels if label not in there)
    if not rows or not gone:
        return []
    text = f"{len(gone):,} of {len(labels):,} classes missing from the {name} split"
    advice = f"its scores say nothing of them: add {name} rows of each"
    return [Flag("classes", "note", len(gone), len(labels), text, gone[:SHOWN], advice)]


def _rare(labels: Sequence[str], counts: Sequence[int]) -> list[Flag]:
    """Classes with one training row, or hardly any against the others."""
    usual = median(counts)
    few = [(count, label) for label, count in zip(labels, counts, strict=True) if count < max(2, HARDLY * usual)]
    if not few:
        return []
    alone = sum(count == 1 for count, _ in few)
    text = f"{len(few):,} of {len(labels):,} classes with hardly any training rows"
    text += f", {alone:,} of them a single one" if alone else ""
    some = tuple(f"{label}: {count:,}" for count, label in sorted(few)[:SHOWN])
    return [
        Flag("classes", "note", len(few), len(labels), text, some, "add examples of them, merge them, or remove them")
    ]
