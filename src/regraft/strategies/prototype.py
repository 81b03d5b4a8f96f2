"""Prototype: the backbone stays as it is; the nearest class mean of its features answers."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.backbone.pooling import Asked, chosen
from regraft.errors import UsageError
from regraft.waist import Facts, Optimizer, Phase, Plan

NAMED, FEW = True, ()
"""It runs where it is asked for by name, or where few rows of each class are."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """pooling: native (as the architecture's own classifier), mean (over tokens), or auto: every one that the backbone
    offers is run, and validation decides.
    """

    pooling: Asked = "auto"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per pooling that needs no layer of its own trained; distance and shrinkage by leave-one-out.

    Raises: UsageError: the target has no classes, or the features come from layers that the checkpoint lacks.
    """
    if facts.data.target.kind != "class":
        raise UsageError(
            "there are no class means for this target",
            saw=f"{facts.data.target.name}, a target of kind {facts.data.target.kind!r}",
            allowed="one class for each row",
            do="--strategy probe",
        )
    ready = [pooled for pooled in chosen(facts.backbone, knobs.pooling, every=True) if not pooled.new]
    if not ready:
        raise UsageError(
            "the features of this backbone come from layers that its checkpoint lacks",
            saw=f"pooling {knobs.pooling}",
            allowed="features that stay as they are",
            do="--strategy probe, or another --prototype.pooling",
        )
    more = dict(facts.data.rows).get("unlabelled", 0)
    return [
        Plan(
            "prototype",
            (Phase(1, len(pooled.stages), (("head/*", 1.0),)),),
            (("unlabelled", more),) if more else (),
            pooling=pooled.pooling,
            optimizer=Optimizer("means"),
        )
        for pooled in ready
    ]
