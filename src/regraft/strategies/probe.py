"""Probe: the backbone stays as it is; a linear head is trained on its features."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.waist import Count, Facts, Optimizer, Phase, Plan, Rate


@dataclass(frozen=True, slots=True)
class Knobs:
    """lr: learning rate of the head. epochs: passes over the training rows at most. batch: rows in a step."""

    lr: Rate = 1e-3
    epochs: Count = 100
    batch: Count = 32


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """One plan: everything frozen, early stopping on validation."""
    top = len(facts.backbone.stages)
    phase = Phase(knobs.epochs, top, (("head/*", 1.0),), patience_epochs=max(10, knobs.epochs // 4))
    settings = (("lr", knobs.lr), ("epochs", knobs.epochs), ("batch", knobs.batch))
    optimizer = Optimizer("adamw", knobs.lr, weight_decay=0.01)
    return [Plan("probe", (phase,), settings, optimizer=optimizer, batch=knobs.batch)]
