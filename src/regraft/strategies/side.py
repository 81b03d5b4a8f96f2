"""Side: a small network is trained beside the backbone, which it reads at several depths and which stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from regraft.backbone.pooling import chosen, depths, heads
from regraft.strategies._inserted import Beside
from regraft.waist import Count, Facts, Insert, Passes, Plan, Pooled, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-3, 3e-4)
PATTERN = "side/*"
"""The names of all weights of the side network, which belongs to no stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Beside):
    """taps: at how many depths the backbone is read at most, the end of its last block among them; 0 for every stage.

    width: of the side network.
    epochs: passes over the training rows at most, 0 for 40; they are passes over what was kept, not of the backbone.
    """

    taps: Passes = 4
    width: Count = 64
    ratio: Rate = 0.3


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: the side network at `ratio` times the head's rate, the trunk being all that it reads."""
    (pooled,) = chosen(facts.backbone, knobs.pooling)
    reads = _read(pooled, knobs.taps)
    frontier, of_head = heads(pooled, len(pooled.stages))
    phase = knobs.phase(facts, knobs.epochs or 40, frontier, (*of_head, (PATTERN, knobs.ratio)))
    settings = (("taps", len(reads)), ("width", knobs.width), ("ratio", knobs.ratio), ("norm", phase.norm))
    plans = [knobs.plan("side", (phase,), lr, settings, pooled) for lr in knobs.rates(RATES)]
    return [replace(plan, inserts=(Insert("side", (), knobs.width, reads=reads),)) for plan in plans]


def _read(pooled: Pooled, count: int) -> tuple[int, ...]:
    """The last block's stage, and those below it at shares of the work as even as can be; 0 for all of them."""
    end = min((pooled.row[-1] if pooled.row else len(pooled.stages) - 1, *(k - 1 for k in pooled.new)))
    return (*depths(pooled.stages[: end + 1], count - 1), end) if count else tuple(range(end + 1))
