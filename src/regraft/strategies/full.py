"""Full: every weight is trained, the backbone's at a share of the head's rate."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.backbone.pooling import chosen
from regraft.strategies._close import Close
from regraft.strategies._tuning import epochs, stages
from regraft.waist import Facts, Plan, Rate

RATES = (1e-3, 3e-4, 3e-3)
AROUND = {"augment": ("flip",), "decay": ("0.1",), "ratio": ("0.3",)}
"""What a race tries around a leader of this kind."""


@dataclass(frozen=True, slots=True)
class Knobs(Close):
    """ratio: the backbone's share of the head's rate; 1 trains all at one rate.

    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    ratio: Rate = 0.1


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: all stages at `ratio` of the head's rate, cosine after a warm-up, early stopping."""
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    frontier, rates = stages(pooled, 0, lambda _: knobs.ratio)
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, rates)
    more = (("ratio", knobs.ratio), ("norm", phase.norm))
    return [knobs.plan("full", (phase,), lr, more, pooled) for lr in knobs.rates(RATES)]
