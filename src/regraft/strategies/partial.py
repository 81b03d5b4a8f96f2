"""Partial: the last stages are trained with the head; everything below them stays frozen."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.backbone.pooling import chosen
from regraft.errors import UsageError
from regraft.strategies._close import Close
from regraft.strategies._tuning import epochs, stages
from regraft.waist import Facts, Plan, Rate

RATES = (1e-3, 3e-4, 3e-3)
AROUND = {"depth": ("4", "1"), "augment": ("flip",), "decay": ("0.1",)}
"""What a race tries around a leader of this kind."""


@dataclass(frozen=True, slots=True)
class Knobs(Close):
    """depth: how many of the last stages train. ratio: the stages' share of the head's rate.

    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    depth: int = 2
    ratio: Rate = 0.1


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: stages from L - depth on at `ratio` of the head's rate, cosine after a warm-up, early stopping.

    Raises: UsageError: the depth is not 1 … L.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    if not 1 <= knobs.depth <= len(pooled.stages):
        raise UsageError(
            "this backbone does not have that many stages to train",
            saw=f"--partial.depth {knobs.depth}",
            allowed=f"1 to {len(pooled.stages)}: " + ", ".join(stage.name for stage in pooled.stages),
            do=f"choose a depth of at most {len(pooled.stages)}",
        )
    frontier, rates = stages(pooled, len(pooled.stages) - knobs.depth, lambda _: knobs.ratio)
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, rates)
    more = (("depth", knobs.depth), ("ratio", knobs.ratio), ("norm", phase.norm))
    return [knobs.plan("partial", (phase,), lr, more, pooled) for lr in knobs.rates(RATES)]
