"""Decide whether the winner may ship, by rules over the findings."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.waist import Comparison, Decision, Finding, Init, Score, Trial, Verdict


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


def substitutes(trials: Sequence[Trial], refused: int) -> list[int]:
    """The trials that may ship in place of one that was refused, the best on validation first.

    At most one of each start: the best pretrained one that trains fewer weights, the best of random weights, the best
    without a network. So at most three are held against test rows: of many, some would pass by luck alone.

    >>> from regraft.waist import Cost, Plan
    >>> made = [Trial(Plan(name, (), init=init), 0, (Score("accuracy", "val", v, v, v, 9),), (), Cost(1.0, n), "p", "w")
    ...         for name, init, v, n in (("full", "pretrained", 0.9, 9), ("probe", "pretrained", 0.7, 2),
    ...         ("partial", "pretrained", 0.8, 5), ("layerwise", "pretrained", 0.9, 9), ("scratch", "plain", 0.75, 3))]
    >>> [made[i].label for i in substitutes(made, 0)]
    ['partial', 'scratch']
    """

    def value(i: int) -> float:
        score = trials[i].score("val")
        return score.value if score.better == "higher" else -score.value

    loser, best = trials[refused], dict[Init, int]()
    for i, trial in enumerate(trials):
        shallow = trial.plan.init != loser.plan.init or trial.cost.trainable < loser.cost.trainable
        if trial.whole and trial.plan.fold == "train" and shallow and i != refused:
            kind = trial.plan.init
            best[kind] = i if kind not in best or value(i) > value(best[kind]) else best[kind]
    return sorted(best.values(), key=value, reverse=True)
