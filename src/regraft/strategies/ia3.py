"""IA3: vectors are trained that rescale keys, values and feed-forward parts of the last blocks; all else stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.strategies._inserted import Inserted, inserted
from regraft.waist import Facts, Insert, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-3, 3e-4)
PATTERN = "*ia3.scale"
"""The names of all vectors, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Inserted):
    """targets: linear (keys, values, feed-forward parts), conv, all, or auto: whichever hold more weights there."""

    targets: Literal["auto", "linear", "conv", "all"] = "auto"
    ratio: Rate = 10.0
    decay: float = 0.0


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: vectors of ones in the last blocks at `ratio` times the head's rate, without weight decay.

    Decay would draw them to zero, which is no rest for what begins at one.

    Raises: UsageError: there are not that many blocks.
    """
    made = lambda within: Insert("ia3", within, 1, knobs.targets)  # noqa: E731
    return inserted(facts, knobs, made, PATTERN, RATES)
