"""A plan once more, held close to the pretrained network: run for a leader that tuned it, where rows are few."""

from __future__ import annotations

from dataclasses import replace

from regraft.planner.course import Course
from regraft.planner.rules import FEW
from regraft.planner.sizes import planned, shortened
from regraft.waist import Plan

CLOSE = (("l2sp", 0.1), ("ema", 0.98))
"""Both are of one scale in all networks; the distance of features is not."""
SHARE = 0.25
"""So large a part of the epochs through the backbone that the race has run may go into it."""


def closer(course: Course, plan: Plan, spent: int, left: int) -> Plan | None:
    """The plan with regularisers, its epochs cut to a quarter of those `spent` in the race, and to those `left`.

    None where there are more than 500 training rows (rule E1), where it has regularisers already, where it trains
    inserts, or where its share is less than half of its epochs.
    """
    if len(course.rows(plan)) > FEW or plan.regularise or plan.inserts:
        return None
    stages = len(course.pretrained(plan).stages)
    most = planned(plan, stages)
    epochs = min(most, int(SHARE * spent), left)
    if 2 * epochs < most:
        return None
    return replace(shortened(plan, epochs, stages), regularise=CLOSE)
