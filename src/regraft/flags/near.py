"""Are some inputs almost equal: in several splits, under different labels, or in bursts of one object?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from regraft.kit import shelf
from regraft.waist import Flag, Look, Row, Seen

NEEDS = "data"
SHOWN = 3
RADIUS, WINDOW, MOST = 16, 64, 20_000
"""Bits by which sketches may differ, neighbours that are compared in each of four orders, pairs looked at closely."""
BURST = 3
"""So many almost equal inputs of one class are a burst."""
ORDER = ("train", "val", "test")


APART = "remove one of each pair, or name in a column what both were made from and split by it with --group"
GROUP = "if a burst shows one object, name it in a column (of metadata.csv beside files) and split by it with --group"


@dataclass(frozen=True, slots=True)
class Same:
    """Rows of equal content, each with its split."""

    rows: list[tuple[str, Row]]

    @property
    def first(self) -> Row:
        return self.rows[0][1]

    @property
    def splits(self) -> set[str]:
        return {split for split, _ in self.rows}

    @property
    def labels(self) -> set[Any]:
        return {row.y for _, row in self.rows}

    def leaks(self, other: Same) -> list[str]:
        """The test rows of this content, if training or validation has the other."""
        return [row.id for split, row in self.rows if split == "test" and other.splits & {"train", "val"}]

    def named(self, placed: bool, labelled: bool) -> str:
        """The first row's id, with its split or its label where that is the point."""
        more = self.rows[0][0] if placed else self.first.y if labelled else ""
        return f"{self.first.id} ({more})" if more else self.first.id


def look(seen: Seen) -> list[Flag]:
    """Almost equal inputs, by sketches that are close and by a closer look at these pairs; equal ones count elsewhere.

    Only the `MOST` closest pairs are looked at, so that where everything is alike, as in chest X-rays, some are missed.
    """
    data, by_key = seen.data, defaultdict[str, list[tuple[str, Row]]](list)
    for name in ORDER:
        for row in getattr(data, name):
            by_key[row.key].append((name, row))
    contents = [Same(found) for found in by_key.values()]
    item: Any = shelf.find("modalities", data.modality)
    close = candidates([_sketch(one.first, item) for one in contents])
    wanted = sorted({i for pair in close for i in pair})
    at = {i: place for place, i in enumerate(wanted)}
    same = item.alike([contents[i].first.cell for i in wanted], [(at[i], at[j]) for i, j in close])
    pairs = [(contents[i], contents[j]) for (i, j), yes in zip(close, same, strict=True) if yes]
    rows = sum(len(one.rows) for one in contents)
    return [*_pairs(seen, pairs, rows), *_bursts(seen, pairs, rows)]


def _sketch(row: Row, item: Any) -> int | None:
    """A row's sketch: the one that was made when it was read, or a new one."""
    look: Look = item.look(row.cell) if row.look == Look() else row.look
    return look.sketch


def candidates(sketches: Sequence[int | None]) -> list[tuple[int, int]]:
    """Pairs of places whose sketches differ in `RADIUS` bits at most and agree in one of four bands of 16 bits.

    The sketches are sorted four times, each time with another band in front, and neighbours compared: the time grows
    with their number alone. What has no sketch, or an empty one as blank pictures do, is like nothing.

    >>> candidates([0b1011 << 40, None, 0b1111 << 40, 1 << 63 | 1 << 30 | 1 << 20 | 0b1 << 1])
    [(0, 2)]
    """
    places = np.array([i for i, sketch in enumerate(sketches) if sketch], np.int64)
    bits = np.array([sketches[i] for i in places], np.uint64)
    size = max(len(sketches), 1)
    found = np.zeros(0, np.int64)  # a pair is (bits that differ · size + the lower place) · size + the higher one
    for shift in (0, 16, 32, 48):
        turned = bits << np.uint64(shift) | (bits >> np.uint64(64 - shift) if shift else np.uint64(0))
        order = np.argsort(turned, kind="stable")
        turned = turned[order]
        for step in range(1, min(WINDOW, len(order) - 1) + 1):
            apart = turned[step:] ^ turned[:-step]
            near = np.flatnonzero(apart >> np.uint64(48) == 0)
            if not len(near):
                break
            counts = _ones(apart[near])
            one, other = places[order[near]], places[order[near + step]]
            pairs = (counts * size + np.minimum(one, other)) * size + np.maximum(one, other)
            most = (RADIUS + 1) * size * size if len(found) < MOST else found[MOST - 1]
            found = np.concatenate([found, pairs[pairs <= most]])
            found = np.unique(found)[:MOST] if len(found) > 2 * MOST else found
    return [(pair // size % size, pair % size) for pair in np.unique(found)[:MOST].tolist()]


def _ones(values: np.ndarray) -> np.ndarray:
    """How many bits of each number are set, [n]."""
    return np.asarray(_table()[values.view(np.uint16).reshape(-1, 4)].sum(1, dtype=np.int64))


@cache
def _table() -> np.ndarray:
    """How many bits are set in each number of 16 bits."""
    return np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


# ---------------------------------------------------------------- what is found


def _pairs(seen: Seen, pairs: Sequence[tuple[Same, Same]], rows: int) -> list[Flag]:
    """Flags for pairs in different splits, under different labels, and in one split."""
    number = seen.data.target.kind == "number"
    across = [(one, other) for one, other in pairs if len(one.splits | other.splits) > 1]
    conflict = [(one, other) for one, other in pairs if not number and len(one.labels | other.labels) > 1]
    within = [(one, other) for one, other in pairs if len(one.splits | other.splits) == 1]
    leaks = tuple(dict.fromkeys(name for one, other in across for name in (*one.leaks(other), *other.leaks(one))))
    told: list[tuple[Literal["warn", "note"], str, str, list[tuple[Same, Same]], tuple[str, ...]]] = [
        ("warn" if leaks else "note", "in different splits", APART, across, leaks),
        ("warn", "under different labels", "decide on one label for both, or remove them", conflict, ()),
        ("note", "within one split", "they count twice: keep one of each if they are copies", within, ()),
    ]
    flags = []
    for status, what, advice, found, leaking in told:
        if found:
            text = f"{len(found):,} {'pair' if len(found) == 1 else 'pairs'} of almost equal {seen.noun} {what}"
            some = tuple(
                " ~ ".join(one.named(found is across, found is conflict) for one in pair) for pair in found[:SHOWN]
            )
            shown = tuple(one.first.id for one in found[0])
            flags.append(Flag("near", status, len(found), rows, text, some, advice, leaking, shown))
    return flags


def _bursts(seen: Seen, pairs: Sequence[tuple[Same, Same]], rows: int) -> list[Flag]:
    """A hint at --group, where three contents or more of one class hang together."""
    alike = [(one, other) for one, other in pairs if one.first.y == other.first.y]
    if not alike or seen.group or seen.data.target.kind == "number":
        return []
    contents = {one.first.key: one for pair in alike for one in pair}
    place = {key: i for i, key in enumerate(contents)}
    ends = np.array([[place[one.first.key] for one in pair] for pair in alike]).T
    size = len(place), len(place)
    _, which = connected_components(coo_matrix((np.ones(len(alike)), ends), shape=size), directed=False)
    groups = defaultdict[int, list[Same]](list)
    for group, one in zip(which.tolist(), contents.values(), strict=True):
        groups[group].append(one)
    bursts = sorted((group for group in groups.values() if len(group) >= BURST), key=len, reverse=True)
    if not bursts:
        return []
    count = sum(len(one.rows) for group in bursts for one in group)
    what = "burst" if len(bursts) == 1 else "bursts"
    text = f"{len(bursts):,} {what} of {BURST} or more almost equal {seen.noun} of one class, {count:,} in all"
    some = tuple(f"{len(group)} like {group[0].first.id}" for group in bursts[:SHOWN])
    shown = tuple(one.first.id for one in bursts[0][:BURST])
    return [Flag("near", "note", count, rows, text, some, GROUP, (), shown)]
