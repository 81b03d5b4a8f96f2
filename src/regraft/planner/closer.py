"""A plan once more, held close to the pretrained network: run for a leader that tuned it, where rows are few."""

from __future__ import annotations

from dataclasses import replace

from regraft.planner.course import Course
from regraft.planner.rules import FEW
from regraft.planner.sizes import planned, shortened
from regraft.waist import Plan

CLOSE = (("delta", 0.01), ("ema", 0.98))
OTHERWISE = (("l2sp", 0.01), ("ema", 0.98))
"""Where features are made by layers that start at random, there are none to stay close to."""
SHARE = 0.25
"""So large a part of the epochs through the backbone that the race has run may go into it."""
FEWEST = 3


def closer(course: Course, plan: Plan, spent: int, left: int) -> Plan | None:
    """The plan with regularisers, its epochs cut to a quarter of those `spent` in the race, and to those `left`.

    None where there are more than 500 training rows (rule E1), where it has regularisers already, where it trains
    inserts, or where fewer than three epochs are its share.
    """
    if len(course.rows(plan)) > FEW or plan.regularise or plan.inserts:
        return None
    view = course.pretrained(plan)
    stages = len(view.stages)
    epochs = min(planned(plan, stages), int(SHARE * spent), left)
    if epochs < FEWEST:
        return None
    return replace(shortened(plan, epochs, stages), regularise=OTHERWISE if view.card().new else CLOSE)
