"""How long to train at most, where the user does not say."""

from __future__ import annotations

MOST_STEPS = 1500
FEWEST = 3


def epochs(asked: int, most: int, rows: int, batch: int) -> int:
    """The epochs that were asked for; for 0 as many as fit 1,500 steps through the backbone, from 3 to `most`.

    >>> epochs(0, 20, 200, 32), epochs(0, 20, 8000, 32), epochs(0, 20, 100_000, 32), epochs(7, 20, 8000, 32)
    (20, 6, 3, 7)
    """
    return asked or max(FEWEST, min(most, MOST_STEPS * batch // max(1, rows)))
