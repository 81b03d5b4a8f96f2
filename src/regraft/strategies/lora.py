"""LoRA: low-rank matrices are trained inside the last blocks, beside weights that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from regraft.backbone.pooling import chosen, heads
from regraft.strategies._tuning import Tuning, epochs, placed
from regraft.waist import Count, Facts, Insert, Norm, Passes, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
SHARED = (("last", "1"),)
"""It leaves the backbone to other tasks; the knobs that it has then."""
RATES = (1e-3, 3e-4, 3e-3)
PATTERN = "*lora.*"
"""The names of all matrices, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """rank: of the matrices. alpha: their product is scaled by alpha / rank.

    last: how many of the last blocks (stages, where there are none) have them, 0 for all.
    targets: linear layers, conv, all, or auto: whichever of the two hold more weights there.
    rs: whether they are scaled by alpha over the root of rank. dora: whether outputs keep a trained norm (DoRA).
    ratio: the matrices' share of the head's rate.
    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    rank: Count = 8
    alpha: Rate = 16.0
    last: Passes = 0
    targets: Literal["auto", "linear", "conv", "all"] = "auto"
    rs: bool = False
    dora: bool = False
    ratio: Rate = 1.0
    norm: Literal["auto", "keep", "update"] = "keep"

    def statistics(self, facts: Facts) -> Norm:
        """Statistics stay, so that the matrices are all that sets the network apart, unless it is asked for."""
        return "update" if self.norm == "update" else "keep"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: matrices in the last blocks at `ratio` of the head's rate, cosine after a warm-up.

    Raises: UsageError: there are not that many blocks.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    within = placed(pooled, knobs.last, "lora.last")
    frontier, rates = heads(pooled, within[0])
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, (*rates, (PATTERN, knobs.ratio)))
    settings = (("alpha", knobs.alpha), ("rs", knobs.rs), ("dora", knobs.dora))
    insert = Insert("lora", within, knobs.rank, knobs.targets, settings)
    more = (*((("last", knobs.last),) if knobs.last else ()), ("rank", knobs.rank), ("ratio", knobs.ratio))
    plans = [knobs.plan("lora", (phase,), lr, (*more, ("norm", phase.norm)), pooled) for lr in knobs.rates(RATES)]
    return [replace(plan, inserts=(insert,)) for plan in plans]
