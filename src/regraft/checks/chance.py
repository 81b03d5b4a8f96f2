"""Does the winner beat a constant guess?"""

from __future__ import annotations

from regraft.waist import Evidence, Finding, Score

NEEDS = ("predictions",)


def check(evidence: Evidence) -> Finding:
    """The winner's deciding score on test against what a constant guess reaches: its whole interval must be better.

    Where a constant guess is perfect already, as calling every row positive is by recall, the score says nothing.

    >>> from regraft.waist import Cost, Plan, Trial
    >>> score = Score("rmse", "test", 1.046, 0.9, 1.2, 50, "lower")
    >>> winner = Trial(Plan("probe", ()), 0, (score,), (), Cost(1.0, 1), "", "")
    >>> guess = Score("rmse", "test", 1.46, 1.46, 1.46, 50, "lower")
    >>> check(Evidence(winner, (winner,), (guess,), {})).evidence
    'rmse 1.046 [0.9, 1.2] on 50 test rows, a constant guess has rmse 1.46'
    """
    score = evidence.winner.score("test")
    chance = next(b.value for b in evidence.baselines if b.metric == score.metric)
    higher = score.better == "higher"
    good = score.low > chance if higher else score.high < chance
    bad = score.high < chance if higher else score.low > chance
    won = chance >= 1 if higher else chance <= 0
    advice = "more rows, another backbone, or labels that the inputs can tell apart"
    if won:
        advice = "decide by a metric that no constant guess can win, or add test rows that differ in the target"
    return Finding(
        check="chance",
        status="pass" if good else "fail" if bad and not won else "warn",
        value=score.value,
        interval=(score.low, score.high),
        threshold=chance,
        evidence=_told(score, chance),
        advice="" if good else advice,
    )


def _told(score: Score, chance: float) -> str:
    """The finding in words; shares with three places, errors in the target's units with four figures."""
    if score.better == "higher":
        found, guess = f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]", f"{chance:.3f}"
    else:
        found, guess = f"{score.value:.4g} [{score.low:.4g}, {score.high:.4g}]", f"{score.metric} {chance:.4g}"
    return f"{score.metric} {found} on {score.n} test rows, a constant guess has {guess}"
