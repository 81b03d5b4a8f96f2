"""Cut rows into splits: stratified or by time, seeded, equal content never on both sides."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from regraft.errors import DataError, UsageError
from regraft.waist import Row

BINS = 10
OVERSIZE = 2
"""Units above so many times what a class gives away are asked last: one group must not be half of a test split."""


def cut(rows: Sequence[Row], share: float, seed: int, salt: str) -> tuple[list[Row], list[Row]]:
    """Cut off `share` of every class: (what stays, what was cut off), each in the order of `rows`.

    Rows of one group go to one side, and so do rows of equal content that have no group. Which ones depends on the
    seed and their content alone, so reordering the rows changes nothing and added rows move few of the others. A class
    stays on both sides where it has two units, as far as groups of several classes allow it; one with a single unit
    stays. Numbers are cut by tenths of their ranks, rows of several labels by the rarest of them.

    Raises: DataError: no class has two units, so that nothing can be cut off.

    >>> rows = [Row(str(i), None, "ab"[i % 2], "", str(i)) for i in range(20)]
    >>> stay, off = cut(rows, 0.2, 0, "val")
    >>> len(off), sorted(r.y for r in off)
    (4, ['a', 'a', 'b', 'b'])
    """
    units, carried = _units(rows)
    staying = Counter(label for labels in carried.values() for label in labels)
    shared = {label for label, count in staying.items() if count > 1}
    homes: dict[str, list[str]] = defaultdict(list)
    for unit, labels in carried.items():
        homes[min(labels, key=lambda label: (staying[label], label))].append(unit)
    rank = {unit: _draw(seed, salt, unit) for unit in units}
    chosen: set[str] = set()

    def take(unit: str) -> bool:
        """Cut a unit off, unless a class would be gone from what stays."""
        if unit in chosen or any(staying[label] < 2 for label in carried[unit]):
            return False
        chosen.add(unit)
        staying.subtract(carried[unit])
        return True

    for label in sorted(homes):
        goal = round(share * sum(units[unit] for unit in homes[label]))
        taken = 0
        for unit in sorted(homes[label], key=lambda u: (units[u] > OVERSIZE * max(goal, 1), rank[u])):
            if taken and taken + units[unit] > goal:
                break
            taken += units[unit] if take(unit) else 0
    lacking = shared - {label for unit in chosen for label in carried[unit]}
    for label in sorted(lacking):
        if not any(label in carried[unit] for unit in chosen):
            any(take(unit) for unit in sorted(units, key=rank.__getitem__) if label in carried[unit])
    if not chosen:
        raise DataError(
            f"a {salt} split cannot be made: no class has two different examples",
            saw=f"{len(rows)} rows, {len(units)} that differ or belong to different groups",
            allowed="two different examples or more in a class",
            do=f"add examples, or give a {salt} split of your own",
        )
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        sides[(row.group or row.key) in chosen].append(row)
    return sides


def lonely(rows: Sequence[Row]) -> list[str]:
    """The classes with a single unit, sorted: `cut` leaves them where they are."""
    _, carried = _units(rows)
    counts = Counter(label for labels in carried.values() for label in labels)
    return sorted(label for label, count in counts.items() if count == 1)


def by_time(rows: Sequence[Row], times: Mapping[str, float], share: float, salt: str) -> tuple[list[Row], list[Row]]:
    """Cut off the latest `share` by `times` (row id → time): (what stays, what was cut off); equal times stay together.

    Raises: DataError: all times are equal.

    >>> rows = [Row(str(i), None, "a", "", str(i)) for i in range(10)]
    >>> [row.id for row in by_time(rows, {str(i): i for i in range(10)}, 0.2, "test")[1]]
    ['8', '9']
    """
    ordered = sorted(times[row.id] for row in rows)
    first = ordered[min(len(ordered) - round(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
    if ordered and first == ordered[0]:
        first = next((time for time in ordered if time > first), first)
    if not ordered or first == ordered[0]:
        raise DataError(
            f"a {salt} split cannot be made by time: there is only one time",
            saw=f"{len(rows)} rows at {ordered[0] if ordered else 'no time'}",
            allowed="two times or more",
            do="leave --time away, or name another column",
        )
    return [row for row in rows if times[row.id] < first], [row for row in rows if times[row.id] >= first]


def thin(rows: Sequence[Row], limit: int, seed: int, *, cover: bool) -> list[Row]:
    """At most `limit` rows in their order, drawn so that every class keeps its share; with `cover` each keeps one.

    Raises: UsageError: `limit` rows cannot cover every class.

    >>> rows = [Row(str(i), None, "aaab"[i % 4], "", str(i)) for i in range(40)]
    >>> sorted(row.y for row in thin(rows, 4, 0, cover=True))
    ['a', 'a', 'a', 'b']
    """
    if len(rows) <= limit:
        return list(rows)
    marks = _marks(rows)
    counts = Counter(label for labels in marks for label in labels)
    strata: dict[str, list[int]] = defaultdict(list)
    for i in sorted(range(len(rows)), key=lambda i: (_draw(seed, "rows", rows[i].key), rows[i].id)):
        strata[min(marks[i], key=lambda label: (counts[label], label))].append(i)
    depth = {i: ((at + 0.5) / len(members), label) for label, members in strata.items() for at, i in enumerate(members)}
    ordered = sorted(depth, key=depth.__getitem__)
    chosen: set[int] = set()
    if cover:
        missing = set(counts)
        for label in sorted(counts, key=lambda label: (counts[label], label)):
            if label in missing:
                first = next(i for i in ordered if label in marks[i])
                chosen.add(first)
                missing -= set(marks[first])
        if len(chosen) > limit:
            raise UsageError(
                "--max-rows is too small to keep every class in training",
                saw=f"{limit} rows for {len(counts)} classes",
                allowed=f"{len(chosen)} or more",
                do=f"write --max-rows {len(chosen) * 10}, or leave it away",
            )
    for i in ordered:
        if len(chosen) >= limit:
            break
        chosen.add(i)
    return [rows[i] for i in sorted(chosen)]


def _units(rows: Sequence[Row]) -> tuple[dict[str, int], dict[str, set[str]]]:
    """What goes to one side: groups, otherwise equal content; with their sizes, and the classes they carry."""
    sizes: dict[str, int] = defaultdict(int)
    carried: dict[str, set[str]] = defaultdict(set)
    for row, labels in zip(rows, _marks(rows), strict=True):
        unit = row.group or row.key
        sizes[unit] += 1
        carried[unit].update(labels)
    return sizes, carried


def _marks(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The classes of each row: its label, its labels, or the tenth that its number is in."""
    numbers = sorted(row.y for row in rows if isinstance(row.y, float))
    edges = [numbers[len(numbers) * i // BINS] for i in range(1, BINS)] if numbers else []

    def marks(y: object) -> tuple[str, ...]:
        if isinstance(y, float):
            return (str(bisect_right(edges, y)),)
        return (y or ("",)) if isinstance(y, tuple) else (str(y),)

    return [marks(row.y) for row in rows]


def _draw(seed: int, salt: str, unit: str) -> bytes:
    return hashlib.sha256(f"{seed}/{salt}/{unit}".encode("utf-8", "surrogatepass")).digest()
