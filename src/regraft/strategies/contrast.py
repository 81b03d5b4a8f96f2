"""Contrast: the last blocks learn to put rows of a class side by side; the nearest class mean answers (as SetFit)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from regraft.backbone.pooling import chosen
from regraft.errors import UsageError
from regraft.strategies._tuning import Tuning, stages
from regraft.waist import Count, Facts, Passes, Plan

NAMED, FEW = True, ()
"""It runs where it is asked for by name, or where few rows of each class are."""
RATES = (3e-4,)
EPOCHS, DEEPEST = 3, 3


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """depth: how many of the last blocks (stages, where there are none) train, 0 for half of them, 3 at most.
    epochs: each takes eight steps at least, passing over few rows several times; 0 for three of them. Validation rows
    choose none. batch: about so many rows are compared with each other in a step.
    """

    depth: Passes = 0
    batch: Count = 16


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: cosines of the last blocks' features are drawn to 1 in a class, else to 0; the trunk is cached.

    A row goes through the blocks once a pass, and is compared with all others of its batch: in the place of SetFit's
    pairs, whose two texts are read anew for each pair.

    Raises: UsageError: the target has no classes, or there are not that many blocks.
    Reference: Tunstall et al., Efficient few-shot learning without prompts, 2022 (SetFit).
    """
    if facts.data.target.kind != "class":
        raise UsageError(
            "there are no pairs of one class for this target",
            saw=f"{facts.data.target.name}, a target of kind {facts.data.target.kind!r}",
            allowed="one class for each row",
            do="--strategy partial",
        )
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    old = [i for i, stage in enumerate(pooled.stages) if stage.params and i not in pooled.new]
    blocks = [i for i in pooled.row if i in old] or old
    if knobs.depth > len(blocks):
        raise UsageError(
            "this backbone does not have that many blocks",
            saw=f"--contrast.depth {knobs.depth}",
            allowed=f"0 for half of them, or 1 to {len(blocks)}: " + ", ".join(pooled.stages[i].name for i in blocks),
            do=f"choose at most {len(blocks)}",
        )
    depth = knobs.depth or min(DEEPEST, (len(blocks) + 1) // 2)
    frontier, rates = stages(pooled, blocks[-depth], lambda _: 1.0)
    most = knobs.epochs or EPOCHS
    phase = replace(knobs.phase(facts, most, frontier, rates), patience_epochs=0, stop=most)
    some = dict(facts.data.rows).get("unlabelled", 0)
    more = (("depth", depth), *((("unlabelled", some),) if some else ()))
    plans = [knobs.plan("contrast", (phase,), lr, more, pooled) for lr in knobs.rates(RATES)]
    return [replace(plan, loss=replace(plan.loss, contrast=1.0)) for plan in plans]
