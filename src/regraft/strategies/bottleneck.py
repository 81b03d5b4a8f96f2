"""Bottleneck: small adapter networks are trained inside the last blocks, beside weights that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.strategies._inserted import Inserted, inserted
from regraft.waist import Count, Facts, Insert, Plan

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-4, 3e-3)
PATTERN = "*narrow.*"
"""The names of all adapters, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Inserted):
    """width: of the adapters, between the projection down and the one up.

    by: houlsby, behind attention and feed-forward part of each block, or parallel, beside the latter.
    """

    width: Count = 32
    by: Literal["houlsby", "parallel"] = "houlsby"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: adapters in the last blocks at `ratio` times the head's rate.

    Raises: UsageError: there are not that many blocks.
    """
    told = (("width", knobs.width), ("by", knobs.by))
    made = lambda within: Insert("bottleneck", within, knobs.width, knobs.by)  # noqa: E731
    return inserted(facts, knobs, made, PATTERN, RATES, told)
