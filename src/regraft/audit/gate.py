"""Decide whether the winner may ship, by rules over the findings."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.waist import Comparison, Decision, Finding, Score, Trial, Verdict


def gate(
    trials: Sequence[Trial],
    winner: int,
    rule: str,
    baselines: Sequence[Score],
    findings: Sequence[Finding],
    comparisons: Sequence[Comparison] = (),
) -> Verdict:
    """One failed check refuses, one warning warns, otherwise it ships; what speaks against is always said.

    A winner that needs no network is what the user falls back on: no pretrained plan was better.

    >>> from regraft.waist import Cost, Plan
    >>> made = [Trial(Plan(name, (), init=init), 0, (), (), Cost(1.0, 1), "", "") for name, init in
    ...         (("probe", "pretrained"), ("scratch", "plain"))]
    >>> gate(made, 0, "the only plan", (), ()).decision, gate(made, 1, "the best", (), ()).decision
    ('ship', 'fall back')
    """
    failed = [f for f in findings if f.status == "fail"]
    warned = [f for f in findings if f.status == "warn"]
    against = "; ".join(f.evidence for f in [*failed, *warned]) or "nothing that was checked"
    decision: Decision = "refuse" if failed else "warn" if warned else "ship"
    fallback = ""
    if trials[winner].plan.init == "plain" and not failed:
        decision = "fall back"
        tried = any(trial.whole and trial.plan.init == "pretrained" for trial in trials)
        why = "no pretrained plan that was run is better on validation rows" if tried else "no pretrained plan was run"
        fallback = f"{trials[winner].label}: {why}"
    return Verdict(
        decision, winner, rule, against, tuple(baselines), tuple(findings), fallback, comparisons=tuple(comparisons)
    )
