"""What strategies share that train inserts in the last blocks: their knobs, and a plan for each rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from regraft.backbone.pooling import chosen, heads
from regraft.strategies._tuning import Tuning, epochs, placed
from regraft.waist import Facts, Insert, Norm, Passes, Plan, Rate, Settings


@dataclass(frozen=True, slots=True)
class Beside(Tuning):
    """ratio: how many times the head's rate they have."""

    ratio: Rate = 1.0
    norm: Literal["auto", "keep", "update"] = "keep"

    def statistics(self, facts: Facts) -> Norm:
        """Statistics stay, so that inserts are all that sets the network apart, unless it is asked for."""
        return "update" if self.norm == "update" else "keep"


@dataclass(frozen=True, slots=True)
class Inserted(Beside):
    """last: how many of the last blocks (stages, where there are none) have them, 0 for all.

    epochs: passes over the training rows at most, 0 for 20 or fewer where rows are many.
    """

    last: Passes = 0


def inserted(
    facts: Facts,
    knobs: Inserted,
    made: Callable[[tuple[int, ...]], Insert],
    pattern: str,
    rates: tuple[float, ...],
    told: Settings = (),
) -> list[Plan]:
    """A plan per rate: an insert, `made` of stages, in the last blocks; names of its weights match `pattern`.

    `told` are the knobs by which plans are told apart besides. The rate falls by a cosine after a warm-up.

    Raises: UsageError: there are not that many blocks.
    """
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    kind = made(()).kind
    within = placed(pooled, knobs.last, f"{kind}.last")
    frontier, of_head = heads(pooled, within[0])
    most = epochs(knobs.epochs, 20, facts.train_rows, knobs.batch)
    phase = knobs.phase(facts, most, frontier, (*of_head, (pattern, knobs.ratio)))
    last = (("last", knobs.last),) if knobs.last else ()
    settings = (*last, *told, ("ratio", knobs.ratio), ("norm", phase.norm))
    plans = [knobs.plan(kind, (phase,), lr, settings, pooled) for lr in knobs.rates(rates)]
    return [replace(plan, inserts=(made(within),)) for plan in plans]
