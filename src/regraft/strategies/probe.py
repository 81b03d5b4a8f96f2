"""Probe: the backbone stays as it is; a linear head is trained on its features."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.backbone.pooling import chosen, heads
from regraft.strategies._tuning import Tuning
from regraft.waist import Facts, Phase, Plan, Schedule, Share

RATES = (1e-3, 1e-2)


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """epochs: passes over the training rows at most, 0 for 100. patience: 0 for a quarter of these, 10 at least.

    pooling: native (as the architecture's own classifier), mean (over tokens), or auto: every one that the backbone
    offers is run, and validation decides.
    """

    warmup: Share = 0.0
    schedule: Schedule = "cosine"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per pooling and rate: everything frozen but layers that the checkpoint lacks, early stopping."""
    plans = []
    most = knobs.epochs or 100
    for pooled in chosen(facts.backbone, knobs.pooling, every=True):
        frontier, rates = heads(pooled, len(pooled.stages))
        phase = Phase(
            most,
            frontier,
            rates,
            schedule=knobs.schedule,
            warmup_frac=knobs.warmup,
            patience_epochs=knobs.patience or max(10, most // 4),
        )
        plans += [knobs.plan("probe", (phase,), lr, (), pooled) for lr in knobs.rates(RATES)]
    return plans
