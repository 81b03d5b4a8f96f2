"""BitFit: the biases are trained with the head; everything else stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.backbone.pooling import chosen
from regraft.strategies._tuning import Tuning, epochs, placed, selected
from regraft.waist import Facts, Norm, Passes, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-4, 3e-3)


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """last: they train from so many of the last blocks (stages, where there are none) on; 0 for everywhere.

    ratio: their share of the head's rate.
    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    last: Passes = 0
    ratio: Rate = 1.0
    norm: Literal["auto", "keep", "update"] = "keep"

    def statistics(self, facts: Facts) -> Norm:
        """Statistics stay, so that biases are all that moves, unless it is asked for."""
        return "update" if self.norm == "update" else "keep"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: biases at `ratio` of the head's rate, those of normalisation layers too.

    Raises: UsageError: there are not that many blocks, or no biases in them.

    Reference: Ben Zaken et al., BitFit: simple parameter-efficient fine-tuning for transformers, 2022.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    first = placed(pooled, knobs.last, "bitfit.last")[0] if knobs.last else 0
    frontier, rates = selected(pooled, first, lambda stage: ("*bias",) if stage.biases else (), knobs.ratio)
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, rates)
    more = (*((("last", knobs.last),) if knobs.last else ()), ("ratio", knobs.ratio), ("norm", phase.norm))
    return [knobs.plan("bitfit", (phase,), lr, more, pooled) for lr in knobs.rates(RATES)]
