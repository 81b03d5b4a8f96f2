"""Gradual: the head is trained first, then the backbone: from the top down, or all of it at once (LP-FT)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from regraft.backbone.pooling import chosen
from regraft.strategies._close import Close
from regraft.strategies._tuning import epochs, stages
from regraft.waist import Facts, Phase, Plan, Pooled, Rate

RATES = (1e-3, 3e-4)
AROUND = {"augment": ("flip",), "ratio": ("0.3",), "decay": ("0.1",)}
"""What a race tries around a leader of this kind."""
HEAD_EPOCHS = 30
WAYS = ("lpft", "unfreeze")


@dataclass(frozen=True, slots=True)
class Knobs(Close):
    """by: lpft (the head, then everything), unfreeze (the head, then from the top down), or auto: both.

    ratio: the share of lr at which all trains once the head is fitted. groups: in how many steps "unfreeze" goes down.
    epochs: passes over the training rows after the head's own, 0 for 20 or fewer where rows are many.
    """

    by: Literal["auto", "lpft", "unfreeze"] = "auto"
    ratio: Rate = 0.1
    groups: int = 3


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per way and rate. The head's phase reads cached features; each later one keeps what it makes no better.

    Reference: Kumar et al., Fine-tuning can distort pretrained features, 2022 (LP-FT); Howard & Ruder, Universal
    language model fine-tuning for text classification, 2018, section 3.3 (gradual unfreezing).
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    return [
        knobs.plan(
            "gradual",
            _phases(facts, knobs, pooled, 1 if way == "lpft" else max(1, min(knobs.groups, len(pooled.stages)))),
            lr,
            (("by", way), ("ratio", knobs.ratio)),
            pooled,
        )
        for way in (WAYS if knobs.by == "auto" else (knobs.by,))
        for lr in knobs.rates(RATES)
    ]


def _phases(facts: Facts, knobs: Knobs, pooled: Pooled, groups: int) -> tuple[Phase, ...]:
    """The head alone, then `groups` phases with ever lower frontiers, 0 at last; epochs are shared out among these."""
    frontier, rates = stages(pooled, len(pooled.stages), lambda _: knobs.ratio)
    phases = [Phase(HEAD_EPOCHS, frontier, rates, schedule="constant", patience_epochs=5)]
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    for i in range(1, groups + 1):
        frontier, rates = stages(
            pooled, len(pooled.stages) * (groups - i) // groups, lambda _: knobs.ratio, head=knobs.ratio
        )
        shorter = knobs.phase(facts, most, frontier, rates)
        phases.append(replace(shorter, epochs=max(1, most // groups)))
    return tuple(phases)
