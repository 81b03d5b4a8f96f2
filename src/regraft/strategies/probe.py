"""Probe: the backbone stays as it is; a linear head is trained on its features."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from regraft.backbone.pooling import chosen, ends, heads
from regraft.errors import UsageError
from regraft.strategies._tuning import Tuning
from regraft.waist import Facts, Loss, Optimizer, Phase, Plan, Pooled, Schedule, Settings, Share

RATES = (1e-3, 1e-2)
KINDS = ("class", "number")


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """by: steps of gradient descent, or path: ridge and logistic heads over whole paths of penalties, of which
    cross-validation on the training rows chooses one; of the other knobs it knows pooling and smoothing alone.

    epochs: passes over the training rows at most, 0 for 100. patience: 0 for a quarter of these, 10 at least.

    pooling: native (as the architecture's own classifier), mean (over tokens), or auto: every one that the backbone
    offers is run, and validation decides.

    blocks: after how many of its blocks the network ends, several with commas between; each is a plan of its own and
    ships a smaller network. None for all.
    """

    warmup: Share = 0.0
    schedule: Schedule = "cosine"
    by: Literal["steps", "path"] = "steps"
    blocks: str = ""


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per pooling and rate: everything frozen but layers that the checkpoint lacks, early stopping.

    Raises: UsageError: by path, a target that is neither classes nor a number, layers that must be trained, or knobs of
        gradient steps.
    """
    pools = [end for one in chosen(facts.backbone, knobs.pooling, every=True) for end in ends(one, knobs.blocks)]
    if knobs.by == "path":
        return _paths(facts, knobs, pools)
    plans = []
    most = knobs.epochs or 100
    for pooled in pools:
        frontier, rates = heads(pooled, len(pooled.stages))
        phase = Phase(
            most,
            frontier,
            rates,
            schedule=knobs.schedule,
            warmup_frac=knobs.warmup,
            patience_epochs=knobs.patience or max(10, most // 4),
        )
        plans += [knobs.plan("probe", (phase,), lr, _told(pooled), pooled) for lr in knobs.rates(RATES)]
    return plans


def _paths(facts: Facts, knobs: Knobs, pools: list[Pooled]) -> list[Plan]:
    """A plan per pooling that needs no layer of its own trained."""
    target = facts.data.target
    usual = Knobs(by="path", pooling=knobs.pooling, smoothing=knobs.smoothing, blocks=knobs.blocks)
    if idle := [f.name for f in fields(knobs) if getattr(knobs, f.name) != getattr(usual, f.name)]:
        raise UsageError(
            "a head that is chosen by cross-validation takes no gradient steps",
            saw=", ".join(f"--probe.{name}" for name in idle) + " with --probe.by path",
            allowed="--probe.pooling, --probe.smoothing, --probe.blocks",
            do="leave the others out, or --probe.by steps",
        )
    if target.kind not in KINDS:
        raise UsageError(
            "a head cannot be chosen by cross-validation for this target",
            saw=f"--probe.by path for {target.name}, a target of kind {target.kind!r}",
            allowed="one class or one number for each row",
            do="--probe.by steps",
        )
    ready = [pooled for pooled in pools if not pooled.new]
    if not ready:
        raise UsageError(
            "the features of this backbone come from layers that its checkpoint lacks",
            saw=f"--probe.by path with pooling {knobs.pooling}",
            allowed="features that stay as they are",
            do="--probe.by steps, or another --probe.pooling",
        )
    return [
        Plan(
            "probe",
            (Phase(1, len(pooled.stages), (("head/*", 1.0),)),),
            (("by", "path"), *_told(pooled)),
            pooling=pooled.pooling,
            blocks=pooled.blocks,
            optimizer=Optimizer("path"),
            loss=Loss(knobs.smoothing),
        )
        for pooled in ready
    ]


def _told(pooled: Pooled) -> Settings:
    """After how many blocks the network ends, where not after all."""
    return (("blocks", pooled.blocks),) if pooled.blocks else ()
