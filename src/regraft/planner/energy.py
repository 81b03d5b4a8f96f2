"""What a run draws against what it may draw: by the processor's counters, or estimated where it has none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from regraft.kit.meter import joules
from regraft.kit.store import Folder

WATTS = 12.5
"""What a thread is taken to draw where the processor does not say: a server's 200 W by 16 cores."""
KWH = 3.6e6
EVERY_S = 1.0
SEEN_S = 5.0
"""After so many seconds the power that was counted says how long what is left will last."""
NAME = "energy"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Joules over all sittings, and whether counters told all of them but for imports and reading."""

    joules: float = 0.0
    metered: bool = True


class Energy:
    """A run's energy: it goes on where the sitting before left it.

    Counters are those of whole processors: what else runs on them is counted, too. `watts` is the power that is assumed
    where they say nothing.

    Args:
        kwh: What may be drawn, 0 for any.
        begun: When this sitting began, by `time.monotonic()`; until now its power is assumed.
        count: Joules since some moment, None where nothing counts them.
    """

    def __init__(self, folder: Folder, kwh: float, begun: float, count: Callable[[], float | None] = joules) -> None:
        self.folder, self.allowed_j, self.begun, self.watts, self._count = folder, kwh * KWH, begun, WATTS, count
        self.earlier = folder.read(NAME, Drawn) or Drawn()
        self._since = self._read_s = time.monotonic()
        self._last, self._drawn = count(), 0.0
        self.metered = self._last is not None and self.earlier.metered

    def spent(self) -> float:
        """Joules over all sittings."""
        now = time.monotonic()
        if self._last is None:
            return self.earlier.joules + self.watts * (now - self.begun)
        if now - self._read_s >= EVERY_S:
            found = self._count()
            gap = -1.0 if found is None else found - self._last
            self._drawn += gap if gap >= 0 else self.watts * (now - self._read_s)  # counters start over at times
            self._last, self._read_s = self._last if found is None else found, now
        assumed = self._since - self.begun + now - self._read_s
        return self.earlier.joules + self._drawn + self.watts * assumed

    def power(self) -> float:
        """Watts: the mean of what was counted in this sitting, or what is assumed."""
        counted_s = self._read_s - self._since
        return self._drawn / counted_s if counted_s >= SEEN_S and self._drawn > 0 else self.watts

    def left_s(self, share: float = 1.0) -> float:
        """Seconds that a share of what may be drawn will last."""
        return (share * self.allowed_j - self.spent()) / self.power() if self.allowed_j else inf

    def write(self) -> None:
        """Write it down; a killed run then remembers it."""
        self.folder.write(NAME, Drawn(round(self.spent(), 1), self.metered))
