"""The gate: one failure refuses, one warning warns, and what speaks against is always said."""

from __future__ import annotations

import itertools

import pytest

from regraft.audit.gate import gate
from regraft.waist import Comparison, Cost, Finding, Init, Plan, Score, Status, Trial

CHANCE = (Score("accuracy", "test", 0.5, 0.5, 0.5, 9),)


def trials(*inits: Init) -> list[Trial]:
    return [Trial(Plan(f"s{i}", (), init=init), 0, (), (), Cost(1.0, 1), "p", "w") for i, init in enumerate(inits)]


TWO = trials("pretrained", "plain")


def finding(status: Status) -> Finding:
    return Finding(f"c-{status}", status, 0.1, (0.0, 0.2), 0.5, f"evidence of {status}", "")


PAIRS = list(itertools.combinations_with_replacement(["pass", "skip", "warn", "fail"], 2))


@pytest.mark.parametrize("statuses", PAIRS)
def test_the_worst_finding_decides(statuses: tuple[Status, ...]) -> None:
    decision = "refuse" if "fail" in statuses else "warn" if "warn" in statuses else "ship"
    assert gate(TWO, 0, "r", (), [finding(s) for s in statuses]).decision == decision


def test_failures_speak_before_warnings() -> None:
    found = gate(trials("plain", "random"), 1, "the rule", CHANCE, [finding("warn"), finding("pass"), finding("fail")])
    assert found.against == "evidence of fail; evidence of warn"
    assert (found.winner, found.rule, found.baselines, len(found.findings)) == (1, "the rule", CHANCE, 3)


def test_nothing_against_is_said_too() -> None:
    assert gate(TWO, 0, "r", (), [finding("pass")]).against == "nothing that was checked"


@pytest.mark.parametrize("statuses", PAIRS)
def test_a_winner_without_a_network_is_what_to_fall_back_on(statuses: tuple[Status, ...]) -> None:
    """Unless it fails itself: a plain model that loses to a guess is no way out either."""
    found = gate(TWO, 1, "r", CHANCE, [finding(s) for s in statuses])
    if "fail" in statuses:
        assert (found.decision, found.fallback) == ("refuse", "")
    else:
        assert found.decision == "fall back"
        assert found.fallback == "s1: no pretrained plan that was run is better on validation rows"
    assert ("evidence of warn" in found.against) == ("warn" in statuses)


def test_a_winner_with_a_network_has_no_fallback_and_keeps_its_comparisons() -> None:
    gap = Comparison(1, 0.1, -0.1, 0.3, 0.0, -0.1, 0.1, 9)
    for init in ("pretrained", "random"):
        found = gate(trials(init, "plain"), 0, "r", CHANCE, [finding("pass")], [gap])  # type: ignore[arg-type]
        assert (found.decision, found.fallback, found.comparisons) == ("ship", "", (gap,))
