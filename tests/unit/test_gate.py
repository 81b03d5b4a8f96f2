"""The gate: one failure refuses, one warning warns, and what speaks against is always said."""

from __future__ import annotations

import itertools

import pytest

from regraft.audit.gate import gate
from regraft.waist import Finding, Score, Status

CHANCE = (Score("accuracy", "test", 0.5, 0.5, 0.5, 9),)


def finding(status: Status) -> Finding:
    return Finding(f"c-{status}", status, 0.1, (0.0, 0.2), 0.5, f"evidence of {status}", "")


PAIRS = list(itertools.combinations_with_replacement(["pass", "skip", "warn", "fail"], 2))


@pytest.mark.parametrize("statuses", PAIRS)
def test_the_worst_finding_decides(statuses: tuple[Status, ...]) -> None:
    decision = "refuse" if "fail" in statuses else "warn" if "warn" in statuses else "ship"
    assert gate(0, "r", (), [finding(s) for s in statuses]).decision == decision


def test_failures_speak_before_warnings() -> None:
    found = gate(1, "the rule", CHANCE, [finding("warn"), finding("pass"), finding("fail")])
    assert found.against == "evidence of fail; evidence of warn"
    assert (found.winner, found.rule, found.baselines, len(found.findings)) == (1, "the rule", CHANCE, 3)


def test_nothing_against_is_said_too() -> None:
    assert gate(0, "r", (), [finding("pass")]).against == "nothing that was checked"
