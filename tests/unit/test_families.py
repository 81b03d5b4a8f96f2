"""Families: what is the same but for its rate competes with itself first."""

from __future__ import annotations

from regraft.planner.families import families, kind
from regraft.waist import Optimizer, Plan


def plan(strategy: str, lr: float, pooling: str = "native") -> Plan:
    return Plan(strategy, (), (("lr", lr),), pooling=pooling, optimizer=Optimizer(lr=lr))  # type: ignore[arg-type]


PLANS = [plan("probe", 1e-3), plan("full", 1e-3), plan("full", 1e-4), plan("probe", 1e-2), plan("probe", 1e-3, "mean")]


def test_rates_of_one_kind_make_a_family() -> None:
    found = families(PLANS, 0)
    assert [[number for number, _ in family] for family in found] == [[0, 3], [1, 2], [4]]
    assert kind(PLANS[0]) == kind(PLANS[3]) != kind(PLANS[4])


def test_with_few_trials_every_family_comes_before_a_second_rate() -> None:
    assert [[n for n, _ in family] for family in families(PLANS, 4)] == [[0, 3], [1], [4]]
    assert [[n for n, _ in family] for family in families(PLANS, 2)] == [[0], [1]]
    assert families([], 3) == []
