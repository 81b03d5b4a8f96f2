"""Full: every weight is trained, the backbone's at a share of the head's rate."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.backbone.pooling import chosen
from regraft.strategies._tuning import Tuning, epochs, stages
from regraft.waist import Facts, Loss, Phase, Plan, Rate

RATES = (1e-3, 3e-4, 3e-3)


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """ratio: the backbone's share of the head's rate; 1 trains all at one rate.

    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    ratio: Rate = 0.1


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: all stages at `ratio` of the head's rate, cosine after a warm-up, early stopping."""
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    frontier, rates = stages(pooled, 0, lambda _: knobs.ratio)
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = Phase(
        most,
        frontier,
        rates,
        schedule=knobs.schedule,
        norm=knobs.statistics(facts),
        warmup_frac=knobs.warmup,
        patience_epochs=knobs.patience or max(5, most // 4),
    )
    return [
        Plan(
            "full",
            (phase,),
            knobs.told(lr, (("ratio", knobs.ratio), ("norm", phase.norm))),
            pooling=pooled.pooling,
            optimizer=knobs.rule(lr),
            loss=Loss(knobs.smoothing),
            batch=knobs.batch,
        )
        for lr in knobs.rates(RATES)
    ]
