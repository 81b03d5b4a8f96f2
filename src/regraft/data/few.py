"""Draw a few rows of each class to train on, and none beyond them to validate with."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import replace

from regraft.data import split
from regraft.errors import DataError, UsageError
from regraft.waist import Data, Row, fingerprint

HELD = 0.2


def drawn(data: Data, shots: int, seed: int) -> Data:
    """The data with `shots` training rows of each class, drawn by the seed; the test split stays whole.

    No two drawn rows have equal content. A fifth of them, one of each class at least, are the validation split, and no
    others are: a plan that is fitted to "all" rows trains on every shot. With one row a class that row stands in both.

    Raises: UsageError: the target has no classes. DataError: a class has fewer rows.

    >>> from regraft.waist import Target
    >>> rows = tuple(Row(str(i), None, "ab"[i % 2], "", str(i)) for i in range(20))
    >>> few = drawn(Data("d", "text", Target("y", "class", ("a", "b"), (10, 10)), rows, rows, rows, "f"), 5, 0)
    >>> few.target.counts, len(few.train), len(few.val), len(few.test)
    ((4, 4), 8, 2, 20)
    """
    target = data.target
    if target.kind != "class":
        raise UsageError(
            "so many rows of each class cannot be drawn: the target has no classes",
            saw=f"--shots {shots} for {target.name}, a target of kind {target.kind!r}",
            allowed="one class for each row",
            do="--max-rows keeps some of all rows",
        )
    whole: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in sorted(data.train, key=lambda row: _place(seed, row)):
        whole[row.y].setdefault(row.key, row)
    if short := sorted(label for label in target.labels if len(whole[label]) < shots):
        raise DataError(
            "a class has fewer different training rows than are asked for",
            saw=", ".join(f"{label}: {len(whole[label])}" for label in short[:3]) + (" …" if len(short) > 3 else ""),
            allowed=f"--shots 1 to {min(len(rows) for rows in whole.values())}",
            do="lower --shots, or add rows",
        )
    chosen = {row.id for label in target.labels for row in list(whole[label].values())[:shots]}
    rows = [row for row in data.train if row.id in chosen]
    train, val = split.cut(rows, HELD, seed, "shots") if shots > 1 else (rows, rows)
    counts = Counter(row.y for row in train)
    told = replace(target, counts=tuple(counts[label] for label in target.labels))
    where = f"{len(val)} of them validate" if shots > 1 else "the same rows validate, which says nothing of others"
    note = f"--shots: {shots} rows of each class drawn of {len(data.train):,} training rows, seed {seed}; {where}"
    content = [(row.id, row.y, row.key) for part in (train, val, data.test) for row in part]
    return replace(
        data,
        target=told,
        train=tuple(train),
        val=tuple(val),
        fingerprint=fingerprint(told, content, len(train), len(val)),
        notes=(*data.notes, note),
    )


def _place(seed: int, row: Row) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}/shots/{row.key}".encode()).digest(), row.id
