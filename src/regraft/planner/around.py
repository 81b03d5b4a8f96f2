"""Plans around a race's leader: one knob of its strategy changed at a time, its rate and all else as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from regraft.errors import UsageError
from regraft.kit import shelf
from regraft.planner.propose import propose
from regraft.planner.sizes import planned, shortened
from regraft.waist import Facts, Plan

MOST = 3
KNOB = "with"


def around(plan: Plan, facts: Facts, knobs: Sequence[tuple[str, str]]) -> list[Plan]:
    """At most three plans, in the order in which the strategy names knobs and values (`AROUND`).

    Knobs that the user set are left alone, as are values that this backbone or these data do not allow.
    """
    item, short = shelf.find("strategies", plan.strategy), plan.strategy.rsplit(".", 1)[-1]
    tried: dict[str, tuple[str, ...]] = vars(item).get("AROUND", {})
    own, found = dict(knobs), list[Plan]()
    for name, value in ((name, value) for name, values in tried.items() for value in values):
        if f"{short}.{name}" in own:
            continue
        asked = [*knobs, (f"{short}.{name}", value), (f"{short}.lr", repr(plan.optimizer.lr))]
        try:
            made = propose(facts, [plan.strategy], list(dict(asked).items()), raced=True)
        except UsageError:
            continue
        found += [_like(one, plan, facts, f"{name} {value}") for one in made if _by(one) == _by(plan)]
    return [one for one in dict.fromkeys(found) if one.label != plan.label][:MOST]


def _like(made: Plan, plan: Plan, facts: Facts, told: str) -> Plan:
    """A plan with the loss, the sampling and the epochs of another one; where its label is equal, the knob is told."""
    stages = len(facts.backbone.read(plan).stages)
    made = replace(shortened(made, planned(plan, stages), stages), loss=plan.loss, sampling=plan.sampling)
    return made if made.label != plan.label else replace(made, knobs=(*made.knobs, (KNOB, told)))


def _by(plan: Plan) -> object:
    return dict(plan.knobs).get("by")
