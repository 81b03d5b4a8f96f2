"""Prefix: keys and values are trained that all tokens of the last blocks attend to; all else stays."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.strategies._inserted import Inserted, inserted
from regraft.waist import Count, Facts, Insert, Plan, Rate

NAMED = True
"""It runs where it is asked for by name, not in a race of all strategies."""
RATES = (1e-3, 3e-3, 3e-4)
PATTERN = "*prefix.*"
"""The names of all keys and values, whatever the stage."""


@dataclass(frozen=True, slots=True)
class Knobs(Inserted):
    """size: how many keys and values in each block."""

    size: Count = 10
    ratio: Rate = 30.0
    decay: float = 0.0


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per rate: keys and values in the last blocks at `ratio` times the head's rate, without weight decay.

    Reference: Li & Liang, Prefix-tuning: optimizing continuous prompts for generation, 2021.
    Raises: UsageError: there are not that many blocks.
    """
    made = lambda within: Insert("prefix", within, knobs.size, "")  # noqa: E731
    return inserted(facts, knobs, made, PATTERN, RATES, (("size", knobs.size),))
