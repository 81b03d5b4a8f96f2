"""Scratch: the same network from random weights: what the pretrained ones must beat."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.waist import Count, Facts, Optimizer, Phase, Plan, Rate, Share


@dataclass(frozen=True, slots=True)
class Knobs:
    """lr: learning rate of all weights. epochs: passes over the training rows at most. batch: rows in a step.

    warmup: share of the steps in which the rate rises.
    """

    lr: Rate = 2e-3
    epochs: Count = 30
    batch: Count = 32
    warmup: Share = 0.1


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """One plan: all weights random and trained, normalisation statistics learned, early stopping."""
    phase = Phase(
        knobs.epochs,
        0,
        (("*", 1.0),),
        norm="update",
        warmup_frac=knobs.warmup,
        patience_epochs=max(10, knobs.epochs // 3),
    )
    return [
        Plan(
            "scratch",
            (phase,),
            (("lr", knobs.lr), ("epochs", knobs.epochs), ("batch", knobs.batch)),
            init="random",
            optimizer=Optimizer("adamw", knobs.lr, weight_decay=0.01),
            batch=knobs.batch,
        )
    ]
