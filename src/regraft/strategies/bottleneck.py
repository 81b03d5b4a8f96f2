"""Bottleneck: small adapter networks are trained inside the last blocks, beside weights that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from regraft.backbone.pooling import chosen, heads
from regraft.strategies._tuning import Tuning, epochs, placed
from regraft.waist import Count, Facts, Insert, Norm, Passes, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-4, 3e-3)
PATTERN = "*narrow.*"
"""The names of all adapters, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """width: of the adapters, between the projection down and the one up.

    last: how many of the last blocks (stages, where there are none) have them, 0 for all.
    by: houlsby, behind attention and feed-forward part of each block, or parallel, beside the latter.
    ratio: the adapters' share of the head's rate.
    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    width: Count = 32
    last: Passes = 0
    by: Literal["houlsby", "parallel"] = "houlsby"
    ratio: Rate = 1.0
    norm: Literal["auto", "keep", "update"] = "keep"

    def statistics(self, facts: Facts) -> Norm:
        """Statistics stay, so that the adapters are all that sets the network apart, unless it is asked for."""
        return "update" if self.norm == "update" else "keep"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: adapters in the last blocks at `ratio` of the head's rate, cosine after a warm-up.

    Raises: UsageError: there are not that many blocks.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    within = placed(pooled, knobs.last, "bottleneck.last")
    frontier, rates = heads(pooled, within[0])
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, (*rates, (PATTERN, knobs.ratio)))
    insert = Insert("bottleneck", within, knobs.width, knobs.by)
    more = (*((("last", knobs.last),) if knobs.last else ()), ("width", knobs.width), ("by", knobs.by))
    settings = (*more, ("ratio", knobs.ratio), ("norm", phase.norm))
    plans = [knobs.plan("bottleneck", (phase,), lr, settings, pooled) for lr in knobs.rates(RATES)]
    return [replace(plan, inserts=(insert,)) for plan in plans]
