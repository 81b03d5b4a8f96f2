"""Do the input texts hold their own labels?"""

from __future__ import annotations

import re
from collections import Counter

from regraft.waist import Flag, Seen

NEEDS = "data"
HELD, ELSEWHERE, COVERED = 0.9, 0.05, 0.5
"""Shares of a class's rows that hold its name, of others that do, and of all rows whose classes are given away."""
MOST_CLASSES, MOST_ROWS = 200, 5000


def look(seen: Seen) -> list[Flag]:
    """Class names as whole words in nearly all texts of their class and hardly any other, for most of the rows.

    One class of many whose name its texts hold, as in "set a timer", is natural and no finding.
    """
    target, rows = seen.data.target, seen.data.train
    if target.kind != "class" or len(target.labels) > MOST_CLASSES or not isinstance(rows[0].cell, (str, tuple)):
        return []
    some = rows[:: -(-len(rows) // MOST_ROWS)]
    names = {label: f" {_words(label)} " for label in target.labels if _words(label)}
    own, other, size = Counter[str](), Counter[str](), Counter(row.y for row in some)
    for row in some:
        text = f" {_words(row.cell if isinstance(row.cell, str) else ' '.join(row.cell))} "
        for label, name in names.items():
            if name in text:
                (own if label == row.y else other)[label] += 1
    given = [
        label
        for label in names
        if size[label] and own[label] >= HELD * size[label] and other[label] <= ELSEWHERE * (len(some) - size[label])
    ]
    covered = sum(size[label] for label in given)
    if not given or covered < COVERED * len(some):
        return []
    count = sum(own[label] for label in given)
    text = f"the texts of {len(given):,} of {len(target.labels):,} classes hold the name of their class"
    advice = "remove it from the texts: new ones will not have it, and the scores say nothing"
    first = next(row for row in some if row.y in given)
    examples = (f"{first.id}: {_excerpt(first.cell)} ({first.y})",)
    return [Flag("giveaway", "warn", count, len(some), text, examples, advice)]


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def _excerpt(cell: str | tuple[str, ...]) -> str:
    return (cell if isinstance(cell, str) else cell[0])[:60]
