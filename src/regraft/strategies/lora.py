"""LoRA: low-rank matrices are trained inside the last blocks, beside weights that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.strategies._inserted import Inserted, inserted
from regraft.waist import Count, Facts, Insert, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
SHARED = (("last", "1"),)
"""It leaves the backbone to other tasks; the knobs that it has then."""
RATES = (1e-3, 3e-4, 3e-3)
PATTERN = "*lora.*"
"""The names of all matrices, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Inserted):
    """rank: of the matrices. alpha: their product is scaled by alpha / rank.

    targets: linear layers, conv, all, or auto: whichever of the two hold more weights there.
    rs: whether they are scaled by alpha over the root of rank. dora: whether outputs keep a trained norm (DoRA).
    """

    rank: Count = 8
    alpha: Rate = 16.0
    targets: Literal["auto", "linear", "conv", "all"] = "auto"
    rs: bool = False
    dora: bool = False


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: matrices in the last blocks at `ratio` times the head's rate.

    Raises: UsageError: there are not that many blocks.
    """
    settings = (("alpha", knobs.alpha), ("rs", knobs.rs), ("dora", knobs.dora))
    made = lambda within: Insert("lora", within, knobs.rank, knobs.targets, settings)  # noqa: E731
    return inserted(facts, knobs, made, PATTERN, RATES, (("rank", knobs.rank),))
