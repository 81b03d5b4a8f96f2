"""Decide whether the winner may ship, by rules over the findings."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.waist import Decision, Finding, Score, Verdict


def gate(winner: int, rule: str, baselines: Sequence[Score], findings: Sequence[Finding]) -> Verdict:
    """One failed check refuses, one warning warns, otherwise it ships; what speaks against is always said.

    >>> gate(0, "the only plan", (), ()).decision
    'ship'
    """
    failed = [f for f in findings if f.status == "fail"]
    warned = [f for f in findings if f.status == "warn"]
    against = "; ".join(f.evidence for f in [*failed, *warned]) or "nothing that was checked"
    decision: Decision = "refuse" if failed else "warn" if warned else "ship"
    return Verdict(decision, winner, rule, against, tuple(baselines), tuple(findings))
