"""Which frontiers to keep in the cache and which to compute again, by measured rates and under a bound in bytes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft.errors import ResourceError, UsageError
from regraft.kit import durable

PROBE_BYTES = 16_000_000
MOST = 10
"""Frontiers among which every choice is looked at; of more, only those that are read most."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """A place where states may be kept: `bytes` of a row, seconds from the input to there for a row, passes wanted."""

    k: int
    bytes: float
    seconds: float
    passes: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second that states are written and read with."""

    write: float
    read: float


def keep(frontiers: Sequence[Frontier], rates: Rates, room: float) -> tuple[int, ...]:
    """The frontiers to keep, of which a row takes at most `room` bytes: the choice with the least seconds in all.

    Equal choices: the one with fewer bytes. Reference: Nakandala & Kumar, Nautilus, SIGMOD 2022 (what to materialise
    under a storage budget); with at most ten places to choose from, all choices are compared.

    >>> deep, cheap = Frontier(2, 1e5, 0.03, 20), Frontier(1, 4e5, 0.001, 1)
    >>> keep([cheap, deep], Rates(write=4e8, read=2e9), room=1e6)
    (2,)
    """
    wanted = sorted(sorted(frontiers, key=lambda one: -one.passes)[:MOST], key=lambda one: one.k)
    choices = (some for n in range(len(wanted) + 1) for some in itertools.combinations(wanted, n))
    fitting = [some for some in choices if sum(one.bytes for one in some) <= room]
    best = min(fitting, key=lambda some: (seconds(wanted, some, rates), sum(one.bytes for one in some)))
    return tuple(one.k for one in best)


def seconds(frontiers: Sequence[Frontier], kept: Collection[Frontier], rates: Rates) -> float:
    """What a row takes in all passes over all frontiers, if those in `kept` are stored in the first pass over each.

    A frontier that is not kept is computed again in every pass, from the nearest kept one below it or from the input.
    """
    places = sorted(kept, key=lambda one: one.k)
    total, reached, source = 0.0, 0.0, 0.0
    for one in places:  # filled in ascending order, each from the one before
        total += source + one.seconds - reached + one.bytes / rates.write
        reached, source = one.seconds, one.bytes / rates.read
    for one in frontiers:
        if one in kept:
            total += one.passes * one.bytes / rates.read
            continue
        below = max((other for other in places if other.k < one.k), key=lambda other: other.k, default=None)
        source = below.bytes / rates.read if below else 0.0
        total += one.passes * (source + one.seconds - (below.seconds if below else 0.0))
    return total


def measured(folder: Path) -> Rates | None:
    """Rates of the disk that holds `folder`: 16 MB written durably and read again from the page cache; None if refused.

    Takes a tenth of a second on most disks.
    """
    place = folder / ".rates"
    data = os.urandom(PROBE_BYTES)
    try:
        begun = time.perf_counter()
        durable.write(place, data)
        middle = time.perf_counter()
        read = len(place.read_bytes())
        ended = time.perf_counter()
        durable.remove(place)
    except (ResourceError, UsageError, OSError):
        return None
    return Rates(PROBE_BYTES / (middle - begun), read / (ended - middle))
