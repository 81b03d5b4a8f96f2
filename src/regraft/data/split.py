"""Cut rows into splits: stratified, seeded, equal content never on both sides."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from regraft.errors import DataError
from regraft.waist import Row


def cut(rows: Sequence[Row], share: float, seed: int, salt: str) -> tuple[list[Row], list[Row]]:
    """Cut off `share` of every class: (what stays, what was cut off), each in the order of `rows`.

    Rows of one group, and rows of equal content, go to one side. Which ones depends on the seed and their content
    alone, so reordering the rows changes nothing and added rows move few of the others. Every class keeps at least
    one unit on each side where it has two.

    Raises: DataError: a class has a single unit, so it cannot stand on both sides.

    >>> rows = [Row(str(i), None, "ab"[i % 2], "", str(i)) for i in range(20)]
    >>> stay, off = cut(rows, 0.2, 0, "val")
    >>> len(off), sorted(r.y for r in off)
    (4, ['a', 'a', 'b', 'b'])
    """
    units: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        units[row.group or row.key].append(row)
    by_class: dict[str, list[str]] = defaultdict(list)
    for unit, members in units.items():
        by_class[min(str(row.y) for row in members)].append(unit)
    lonely = sorted(label for label, members in by_class.items() if len(members) < 2)
    if lonely:
        raise DataError(
            f"a {salt} split cannot be made: a class has a single example",
            saw=", ".join(lonely[:5]),
            allowed="two different examples or more in every class",
            do=f"add examples, or give a {salt} folder of your own",
        )
    chosen: set[str] = set()
    for label in sorted(by_class):
        ranked = sorted(by_class[label], key=lambda unit: hashlib.sha256(f"{seed}/{salt}/{unit}".encode()).digest())
        total = sum(len(units[u]) for u in ranked)
        taken = 0
        for unit in ranked[:-1]:
            if taken and taken + len(units[unit]) > round(share * total):
                break
            chosen.add(unit)
            taken += len(units[unit])
    off = [row for row in rows if (row.group or row.key) in chosen]
    return [row for row in rows if (row.group or row.key) not in chosen], off
