"""Prefix: keys and values are trained that all tokens of the last blocks attend to; all else stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from regraft.backbone.pooling import chosen, heads
from regraft.strategies._tuning import Tuning, epochs, placed
from regraft.waist import Count, Facts, Insert, Norm, Passes, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-3, 3e-4)
PATTERN = "*prefix.*"
"""The names of all keys and values, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """size: how many keys and values in each block.

    last: how many of the last blocks have them, 0 for all.
    ratio: how many times the head's rate they have.
    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    size: Count = 10
    last: Passes = 0
    ratio: Rate = 30.0
    decay: float = 0.0
    norm: Literal["auto", "keep", "update"] = "keep"

    def statistics(self, facts: Facts) -> Norm:
        """Statistics stay, so that the keys and values are all that sets the network apart, unless it is asked for."""
        return "update" if self.norm == "update" else "keep"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: keys and values in the last blocks at `ratio` times the head's rate, without weight decay.

    Reference: Li & Liang, Prefix-tuning: optimizing continuous prompts for generation, 2021.
    Raises: UsageError: there are not that many blocks.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    within = placed(pooled, knobs.last, "prefix.last")
    frontier, rates = heads(pooled, within[0])
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, (*rates, (PATTERN, knobs.ratio)))
    insert = Insert("prefix", within, knobs.size, "")
    more = (*((("last", knobs.last),) if knobs.last else ()), ("size", knobs.size), ("ratio", knobs.ratio))
    settings = (*more, ("norm", phase.norm))
    plans = [knobs.plan("prefix", (phase,), lr, settings, pooled) for lr in knobs.rates(RATES)]
    return [replace(plan, inserts=(insert,)) for plan in plans]
