"""Probe: the backbone stays as it is; a linear head is trained on its features."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.backbone.pooling import Asked, chosen, heads
from regraft.waist import Count, Facts, Optimizer, Phase, Plan, Rate


@dataclass(frozen=True, slots=True)
class Knobs:
    """lr: learning rate of the head. epochs: passes over the training rows at most. batch: rows in a step.

    pooling: native (as the architecture's own classifier), mean (over tokens), or auto: every one that the backbone
    offers is run, and validation decides.
    """

    lr: Rate = 1e-3
    epochs: Count = 100
    batch: Count = 32
    pooling: Asked = "auto"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per pooling: everything frozen but layers that the checkpoint lacks, early stopping on validation."""
    plans = []
    for pooled in chosen(facts.backbone, knobs.pooling, every=True):
        frontier, rates = heads(pooled, len(pooled.stages))
        phase = Phase(knobs.epochs, frontier, rates, patience_epochs=max(10, knobs.epochs // 4))
        settings = (("lr", knobs.lr), ("epochs", knobs.epochs), ("batch", knobs.batch))
        optimizer = Optimizer("adamw", knobs.lr, weight_decay=0.01)
        plans.append(Plan("probe", (phase,), settings, pooling=pooled.pooling, optimizer=optimizer, batch=knobs.batch))
    return plans
