"""Scratch: what the pretrained weights must beat: no network at all (TF-IDF, pixels), and the same one from random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.backbone.pooling import chosen
from regraft.strategies._tuning import Several, Tuning, epochs
from regraft.waist import Facts, Loss, Optimizer, Phase, Plan, Target

RATES = (2e-3, 5e-4)
PENALTIES = (10.0, 1.0)


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """by: plain (a linear model on TF-IDF or on small pixels), random (the network from random weights), or auto: both.

    c: the plain model's inverse penalty, as in scikit-learn; 0 takes the usual one, and several in a race.
    epochs: passes over the training rows at most, 0 for 30 or fewer where rows are many.
    """

    by: Literal["auto", "plain", "random"] = "auto"
    c: Several = 0.0


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """Plans per penalty and per rate; of random weights all are trained, normalisation statistics too."""
    plans = []
    if knobs.by != "random":
        head = Phase(1, 0, (("head/*", 1.0),))
        plans += [
            Plan(
                "scratch",
                (head,),
                (("by", "plain"), ("c", c)),
                init="plain",
                optimizer=Optimizer("lbfgs", weight_decay=penalty(facts.data.target, facts.train_rows, c)),
            )
            for c in ((knobs.c,) if knobs.c else PENALTIES)
        ]
    if knobs.by != "plain":
        most = epochs(knobs.epochs, 30, facts.train_rows, knobs.batch)
        phase = Phase(
            most,
            0,
            (("*", 1.0),),
            schedule=knobs.schedule,
            norm="update",
            warmup_frac=knobs.warmup,
            patience_epochs=knobs.patience or max(10, most // 3),
        )
        plans += [
            Plan(
                "scratch",
                (phase,),
                knobs.told(lr, (("by", "random"), ("epochs", most))),
                init="random",
                pooling=chosen(facts.backbone, knobs.pooling)[0].pooling,
                optimizer=knobs.rule(lr),
                loss=Loss(knobs.smoothing),
                batch=knobs.batch,
            )
            for lr in knobs.rates(RATES)
        ]
    return plans


def penalty(target: Target, rows: int, c: float) -> float:
    """The L2 penalty on the mean loss of a row that scikit-learn's C means for this target.

    Two classes have two outputs here that share its one vector of weights; a label of several is a model of its own.

    >>> penalty(Target("y", "class", ("a", "b", "c"), (1, 1, 1)), 100, 10.0), penalty(Target("y", "number"), 100, 1.0)
    (0.001, 0.02)
    """
    labels = len(target.labels)
    share = {"class": 2.0 if labels == 2 else 1.0, "multi": 1.0 / max(1, labels), "number": 2.0}.get(target.kind, 1.0)
    return float(f"{share / (c * rows):.6g}")
