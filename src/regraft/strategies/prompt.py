"""Prompt: tokens are trained that go through the last blocks beside those of the input; all else stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from regraft.backbone.pooling import chosen, heads
from regraft.strategies._tuning import Tuning, epochs, placed
from regraft.waist import Count, Facts, Insert, Norm, Passes, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-3, 3e-4)
PATTERN = "*prompt.*"
"""The names of all tokens, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """size: how many tokens at a time.

    last: how many of the last blocks have them, 0 for all.
    by: shallow, once before the input of the first of these blocks, or deep, anew before each of them.
    ratio: how many times the head's rate they have.
    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    size: Count = 10
    last: Passes = 0
    by: Literal["shallow", "deep"] = "deep"
    ratio: Rate = 30.0
    decay: float = 0.0
    norm: Literal["auto", "keep", "update"] = "keep"

    def statistics(self, facts: Facts) -> Norm:
        """Statistics stay, so that the tokens are all that sets the network apart, unless it is asked for."""
        return "update" if self.norm == "update" else "keep"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: tokens in the last blocks at `ratio` times the head's rate, without weight decay.

    Reference: Lester et al., The power of scale for parameter-efficient prompt tuning, 2021; Jia et al., Visual prompt
    tuning, 2022.
    Raises: UsageError: there are not that many blocks.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    within = placed(pooled, knobs.last, "prompt.last")
    frontier, rates = heads(pooled, within[0])
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, (*rates, (PATTERN, knobs.ratio)))
    insert = Insert("prompt", within, knobs.size, knobs.by)
    more = (
        *((("last", knobs.last),) if knobs.last else ()),
        ("size", knobs.size),
        ("by", knobs.by),
        ("ratio", knobs.ratio),
    )
    settings = (*more, ("norm", phase.norm))
    plans = [knobs.plan("prompt", (phase,), lr, settings, pooled) for lr in knobs.rates(RATES)]
    return [replace(plan, inserts=(insert,)) for plan in plans]
