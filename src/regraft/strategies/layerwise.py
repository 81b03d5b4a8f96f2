"""Layerwise: every weight is trained, each stage at a lower rate than the one above it."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.backbone.pooling import chosen
from regraft.strategies._close import Close
from regraft.strategies._tuning import epochs, stages
from regraft.waist import Facts, Plan, Rate

RATES = (1e-3, 3e-3)
AROUND = {"augment": ("flip",), "fall": ("0.65",), "decay": ("0.1",)}
"""What a race tries around a leader of this kind."""


@dataclass(frozen=True, slots=True)
class Knobs(Close):
    """ratio: the last stage's share of the head's rate. fall: a stage's share of the rate of the one above it.

    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    ratio: Rate = 0.2
    fall: Rate = 0.8


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: stage i of L at ratio · fall^(L - 1 - i) of the head's rate.

    Reference: Howard & Ruder, Universal language model fine-tuning for text classification, 2018, section 3.2.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    last = len(pooled.stages) - 1
    frontier, rates = stages(pooled, 0, lambda i: float(f"{knobs.ratio * knobs.fall ** (last - i):.6g}"))
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, rates)
    more = (("ratio", knobs.ratio), ("fall", knobs.fall), ("norm", phase.norm))
    return [knobs.plan("layerwise", (phase,), lr, more, pooled) for lr in knobs.rates(RATES)]
