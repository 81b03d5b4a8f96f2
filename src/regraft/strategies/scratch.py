"""Scratch: what pretrained weights must beat: no network (TF-IDF, pixels), random features, training from random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.backbone.pooling import chosen
from regraft.strategies._tuning import DRAWN, Several, Tuning, epochs
from regraft.waist import Facts, Optimizer, Phase, Plan, Target

RATES = (2e-3, 5e-4)
PENALTIES = (10.0, 1.0)


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """by: plain (a linear model on TF-IDF or on small pixels), features (a head on features of random weights that stay
    as they are), random (the network trained from random weights), or auto: all of these.

    c: the plain model's inverse penalty, as in scikit-learn; 0 takes the usual one, and several in a race.
    epochs: passes over the training rows at most, 0 for 30 or fewer where rows are many.
    """

    by: Literal["auto", "plain", "features", "random"] = "auto"
    c: Several = 0.0


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """Plans per penalty and per rate; of random weights all are trained, normalisation statistics too, or none.

    Features that no training made are what the architecture alone gives: Saxe et al., On random weights and
    unsupervised feature learning, 2011.
    """
    plans, (pooled, *_) = [], chosen(facts.backbone, knobs.pooling)
    target = facts.data.target
    if knobs.by in ("auto", "plain"):
        head = Phase(1, 0, (("head/*", 1.0),))
        plans += [
            Plan(
                "scratch",
                (head,),
                (("by", "plain"), ("c", c), *knobs.lossy()),
                init="plain",
                loss=knobs.loss(),
                sampling=DRAWN[knobs.sampling],
                optimizer=Optimizer("lbfgs", weight_decay=penalty(target, facts.train_rows, c)),
            )
            for c in ((knobs.c,) if knobs.c else PENALTIES)
        ]
    if knobs.by in ("auto", "features"):
        known = target.kind in ("class", "number") and dict(knobs.lossy()).keys() <= {"balance", "sampling"}
        rule = Optimizer("path") if known else Optimizer("lbfgs", weight_decay=penalty(target, facts.train_rows, 1.0))
        head = Phase(1, len(pooled.stages), (("head/*", 1.0),))
        plans.append(
            Plan(
                "scratch",
                (head,),
                (("by", "features"), *knobs.lossy()),
                init="random",
                pooling=pooled.pooling,
                loss=knobs.loss(),
                sampling=DRAWN[knobs.sampling],
                optimizer=rule,
            )
        )
    if knobs.by in ("auto", "random"):
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
                pooling=pooled.pooling,
                optimizer=knobs.rule(lr),
                loss=knobs.loss(),
                sampling=DRAWN[knobs.sampling],
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
