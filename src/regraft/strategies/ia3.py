"""IA3: vectors are trained that rescale keys, values and feed-forward parts of the last blocks; all else stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from regraft.backbone.pooling import chosen, heads
from regraft.strategies._tuning import Tuning, epochs, placed
from regraft.waist import Facts, Insert, Norm, Passes, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-3, 3e-4)
PATTERN = "*ia3.scale"
"""The names of all vectors, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """last: how many of the last blocks (stages, where there are none) have vectors, 0 for all.

    targets: linear layers (keys, values, feed-forward parts), conv, all, or auto: whichever hold more weights there.
    ratio: how many times the head's rate the vectors have.
    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    last: Passes = 0
    targets: Literal["auto", "linear", "conv", "all"] = "auto"
    ratio: Rate = 10.0
    decay: float = 0.0
    norm: Literal["auto", "keep", "update"] = "keep"

    def statistics(self, facts: Facts) -> Norm:
        """Statistics stay, so that the vectors are all that sets the network apart, unless it is asked for."""
        return "update" if self.norm == "update" else "keep"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: vectors of ones in the last blocks at `ratio` times the head's rate, without weight decay.

    Decay would draw them to zero, which is no rest for what begins at one.

    Raises: UsageError: there are not that many blocks.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    within = placed(pooled, knobs.last, "ia3.last")
    frontier, rates = heads(pooled, within[0])
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, (*rates, (PATTERN, knobs.ratio)))
    more = (*((("last", knobs.last),) if knobs.last else ()), ("ratio", knobs.ratio), ("norm", phase.norm))
    plans = [knobs.plan("ia3", (phase,), lr, more, pooled) for lr in knobs.rates(RATES)]
    return [replace(plan, inserts=(Insert("ia3", within, 1, knobs.targets),)) for plan in plans]
