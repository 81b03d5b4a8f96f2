"""Prompt: tokens are trained that go through the last blocks beside those of the input; all else stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.strategies._inserted import Inserted, inserted
from regraft.waist import Count, Facts, Insert, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-3, 3e-4)
PATTERN = "*prompt.*"
"""The names of all tokens, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Inserted):
    """size: how many tokens at a time.

    by: shallow, once before the input of the first of these blocks, or deep, anew before each of them.
    """

    size: Count = 10
    by: Literal["shallow", "deep"] = "deep"
    ratio: Rate = 30.0
    decay: float = 0.0


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: tokens in the last blocks at `ratio` times the head's rate, without weight decay.

    Reference: Lester et al., The power of scale for parameter-efficient prompt tuning, 2021; Jia et al., Visual prompt
    tuning, 2022.
    Raises: UsageError: there are not that many blocks.
    """
    made = lambda within: Insert("prompt", within, knobs.size, knobs.by)  # noqa: E731
    return inserted(facts, knobs, made, PATTERN, RATES, (("size", knobs.size), ("by", knobs.by)))
