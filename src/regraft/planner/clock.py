"""The seconds and the energy that a run has spent, over all its sittings, against what it may spend."""

from __future__ import annotations

import time
from math import inf

from regraft.kit.store import Folder
from regraft.planner.energy import Energy

EVERY_S = 3.0
NAME = "clock"


class Clock:
    """A run's clock: it goes on where the sitting before left it, and is written down every few seconds.

    Args:
        begun: When this sitting began, by `time.monotonic()`; imports and reading count.
        allowed_s: What may be spent, 0 for any.
        kwh: What may be drawn, 0 for any: seconds are left for as long as it lasts.
    `reserve_s` is held back for the end, `opening_s` is what another process takes to open a bundle.
    """

    def __init__(self, folder: Folder, allowed_s: float, begun: float, kwh: float = 0.0) -> None:
        self.folder, self.allowed_s, self.begun = folder, allowed_s, begun
        self.earlier = folder.read(NAME, float) or 0.0
        self.reserve_s = self.opening_s = self.packing_s = 0.0
        self.energy = Energy(folder, kwh, begun)
        self._last = self.now()

    def now(self) -> float:
        """Seconds on a clock that never goes back: all that a race knows of time, which a bench may tell otherwise."""
        return time.monotonic()

    @property
    def bounded(self) -> bool:
        """Whether seconds or energy are bounded: then what runs depends on the machine."""
        return bool(self.allowed_s or self.energy.allowed_j)

    def whole(self) -> float:
        """Seconds that the run may take from its beginning, as far as can be said now; 0 for any."""
        return min(self.allowed_s or inf, self.spent() + self.energy.left_s()) if self.bounded else 0.0

    def spent(self) -> float:
        return self.earlier + self.now() - self.begun

    def left(self) -> float:
        """Seconds that may still go into trials: what is reserved for the end is no longer among them."""
        return min(self.allowed_s - self.spent() if self.allowed_s else inf, self.energy.left_s()) - self.reserve_s

    def allows(self, seconds: float) -> bool:
        """Whether so many seconds more keep the promise: 105 % of the budget and 10 s, of which 2 s are not touched."""
        late = self.allowed_s and self.spent() + seconds > 1.05 * self.allowed_s + 8.0
        return not late and seconds <= self.energy.left_s(1.05) + 8.0

    def packing(self, seconds: float) -> None:
        """Packing took so long: twice that is held back, once for the next leader and once for the end."""
        more = max(seconds, self.packing_s) - self.packing_s
        self.packing_s += more
        self.reserve_s += 2 * more

    def tick(self, now: bool = False) -> None:
        """Write the time down, if it is some seconds ago that this was done; a killed run then remembers it."""
        if now or self.now() - self._last >= EVERY_S:
            self._last = self.now()
            self.folder.write(NAME, round(self.spent(), 3))
            self.energy.write()
