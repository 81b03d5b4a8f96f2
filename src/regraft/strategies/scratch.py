"""Scratch: the same network from random weights: what the pretrained ones must beat."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.backbone.pooling import Asked, chosen
from regraft.strategies._epochs import epochs
from regraft.waist import Count, Facts, Optimizer, Passes, Phase, Plan, Rate, Share


@dataclass(frozen=True, slots=True)
class Knobs:
    """lr: learning rate of all weights. epochs: passes over the training rows at most, 0 for 30 or fewer where rows
    are many. batch: rows in a step. warmup: share of the steps in which the rate rises.

    pooling: native, mean (over tokens), or auto: what suits the checkpoint.
    """

    lr: Rate = 2e-3
    epochs: Passes = 0
    batch: Count = 32
    warmup: Share = 0.1
    pooling: Asked = "auto"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """One plan: all weights random and trained, normalisation statistics learned, early stopping."""
    most = epochs(knobs.epochs, 30, facts.train_rows, knobs.batch)
    phase = Phase(
        most,
        0,
        (("*", 1.0),),
        norm="update",
        warmup_frac=knobs.warmup,
        patience_epochs=max(10, most // 3),
    )
    return [
        Plan(
            "scratch",
            (phase,),
            (("lr", knobs.lr), ("epochs", most), ("batch", knobs.batch)),
            init="random",
            pooling=chosen(facts.backbone, knobs.pooling)[0].pooling,
            optimizer=Optimizer("adamw", knobs.lr, weight_decay=0.01),
            batch=knobs.batch,
        )
    ]
