"""Group plans by kind: what is the same but for its rate competes first of all with itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from regraft.waist import Plan


def kind(plan: Plan) -> Plan:
    """What plans of one family share: everything but the rate.

    >>> from regraft.waist import Optimizer
    >>> a, b = (Plan("full", (), (("lr", lr),), optimizer=Optimizer(lr=lr)) for lr in (1e-3, 1e-4))
    >>> a == b, kind(a) == kind(b)
    (False, True)
    """
    knobs = tuple((name, value) for name, value in plan.knobs if name not in ("lr", "c"))
    return replace(plan, knobs=knobs, optimizer=replace(plan.optimizer, lr=1.0, weight_decay=0.0))


def families(plans: Sequence[Plan], trials: int) -> list[list[tuple[int, Plan]]]:
    """(number, plan) by kind, in the order in which kinds come first; with `trials` at most so many plans in all.

    Then the first rate of every family comes before the second of any.
    """
    found: list[tuple[Plan, list[tuple[int, Plan]]]] = []
    for number, plan in enumerate(plans):
        home = next((family for key, family in found if key == kind(plan)), None)
        if home is None:
            found.append((kind(plan), [(number, plan)]))
        else:
            home.append((number, plan))
    groups = [family for _, family in found]
    if trials:
        rounds = [family[i] for i in range(max(map(len, groups), default=0)) for family in groups if i < len(family)]
        kept = {number for number, _ in rounds[:trials]}
        groups = [[one for one in family if one[0] in kept] for family in groups]
    return [family for family in groups if family]
