"""Do equal examples stand in several splits, under different labels, or twice in one?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from regraft.waist import Flag, Row, Seen

NEEDS = "data"
SHOWN = 3


def look(seen: Seen) -> list[Flag]:
    """Equal content, by fingerprint, counted across splits, under different labels and within a split."""
    data = seen.data
    by_key: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    for name in ("train", "val", "test"):
        for row in getattr(data, name):
            by_key[row.key].append((name, row))
    across, conflict, within, leaks = [], [], [], []
    for found in by_key.values():
        (name, first), others = found[0], found[1:]
        apart = [row for other, row in others if other != name]
        across += [(first, apart[0])] if apart else []
        twice = {split for split, count in Counter(split for split, _ in found).items() if count > 1}
        within += [tuple(row for split, row in found if split == min(twice))[:2]] if twice else []
        leaks += [row.id for other, row in others if other == "test" != name]
        conflict += [(first, row) for _, row in others if row.y != first.y][:1]
    flags = []
    rows = sum(len(getattr(data, name)) for name in ("train", "val", "test"))
    if across:
        flags.append(
            Flag(
                "duplicates",
                "warn",
                len(across),
                rows,
                f"{seen.noun} in more than one split: {len(across):,}",
                _named(across),
                "remove them from one side, or let regraft make the splits: equal ones then stay together",
                tuple(leaks),
            )
        )
    if conflict and data.target.kind != "number":
        flags.append(
            Flag(
                "duplicates",
                "warn",
                len(conflict),
                rows,
                f"{seen.noun} with different labels: {len(conflict):,}",
                _named(conflict),
                "decide on one label for each, or remove them",
            )
        )
    if within:
        flags.append(
            Flag(
                "duplicates",
                "note",
                len(within),
                rows,
                f"{seen.noun} more than once within a split: {len(within):,}",
                _named(within),
                "they count as often: keep one of each if they are copies",
            )
        )
    return flags


def _named(pairs: Sequence[Sequence[Row]]) -> tuple[str, ...]:
    return tuple(f"{one.id} = {other.id}" for one, other in pairs[:SHOWN])
