"""Partial: the last stages are trained with the head; everything below them stays frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.backbone.pooling import Asked, chosen, heads
from regraft.errors import UsageError
from regraft.strategies._epochs import epochs
from regraft.waist import Count, Facts, Loss, Norm, Optimizer, Passes, Phase, Plan, Rate, Schedule, Share

FEW_ROWS = 5000
FEW_IN_BATCH = 16


@dataclass(frozen=True, slots=True)
class Knobs:
    """depth: how many of the last stages train. lr: rate of the head. ratio: the stages' share of that rate.

    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many. batch: rows in a step.
    warmup: share of the steps in which the rate rises. smoothing: share of probability spread over all classes.
    schedule: constant, linear or cosine.
    norm: whether trained stages update their normalisation statistics; auto keeps them where rows are few.
    pooling: native (as the architecture's own classifier), mean (over tokens), or auto: what suits the checkpoint.
    """

    depth: int = 2
    lr: Rate = 1e-3
    ratio: Rate = 0.1
    epochs: Passes = 0
    batch: Count = 32
    warmup: Share = 0.1
    smoothing: Share = 0.0
    schedule: Schedule = "cosine"
    norm: Literal["auto", "keep", "update"] = "auto"
    pooling: Asked = "auto"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """One plan: stages from L - depth on at `ratio` of the head's rate, cosine after a warm-up, early stopping.

    Raises: UsageError: the depth is not 1 … L.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    stages = pooled.stages
    if not 1 <= knobs.depth <= len(stages):
        raise UsageError(
            "this backbone does not have that many stages to train",
            saw=f"--partial.depth {knobs.depth}",
            allowed=f"1 to {len(stages)}: " + ", ".join(stage.name for stage in stages),
            do=f"choose a depth of at most {len(stages)}",
        )
    frontier, rates = heads(pooled, len(stages) - knobs.depth)
    few = facts.train_rows < FEW_ROWS or knobs.batch < FEW_IN_BATCH
    norm: Norm = "update" if knobs.norm == "update" or (knobs.norm == "auto" and not few) else "keep"
    old = [i for i in range(frontier, len(stages)) if stages[i].params and i not in pooled.new]
    trained = [(f"{stages[i].name}/*", knobs.ratio) for i in old]
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = Phase(
        most,
        frontier,
        (*rates, *trained, *([("glue/*", knobs.ratio)] if pooled.glue and not frontier else [])),
        schedule=knobs.schedule,
        norm=norm,
        warmup_frac=knobs.warmup,
        patience_epochs=max(5, most // 4),
    )
    return [
        Plan(
            "partial",
            (phase,),
            (("depth", knobs.depth), ("lr", knobs.lr), ("ratio", knobs.ratio), ("norm", norm)),
            pooling=pooled.pooling,
            optimizer=Optimizer("adamw", knobs.lr, weight_decay=0.01),
            loss=Loss(knobs.smoothing),
            batch=knobs.batch,
        )
    ]
