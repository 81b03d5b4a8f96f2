"""LoRA: low-rank matrices are trained inside the last blocks, beside weights that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.errors import UsageError
from regraft.strategies._inserted import Inserted, inserted
from regraft.waist import Count, Facts, Insert, Plan, Rate, Settings

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
    bits: 4 or 8 hold the weights of linear layers that have matrices in so many bits (QLoRA), none as they are.
    """

    rank: Count = 8
    alpha: Rate = 16.0
    targets: Literal["auto", "linear", "conv", "all"] = "auto"
    rs: bool = False
    dora: bool = False
    bits: Literal["none", "8", "4"] = "none"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: matrices in the last blocks at `ratio` times the head's rate.

    Raises: UsageError: there are not that many blocks, or norms are asked for of weights that are not whole.
    """
    if knobs.dora and knobs.bits != "none":
        raise UsageError(
            "DoRA takes the norms of whole weights in each step",
            saw=f"--lora.dora true with --lora.bits {knobs.bits}",
            allowed="one of the two",
            do="leave one of them out",
        )
    few: Settings = (("bits", int(knobs.bits)),) if knobs.bits != "none" else ()
    settings = (("alpha", knobs.alpha), ("rs", knobs.rs), ("dora", knobs.dora), *few)
    made = lambda within: Insert("lora", within, knobs.rank, knobs.targets, settings)  # noqa: E731
    return inserted(facts, knobs, made, PATTERN, RATES, (("rank", knobs.rank), *few))
