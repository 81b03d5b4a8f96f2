"""Does the winner beat a constant guess?"""

from __future__ import annotations

from regraft.waist import Evidence, Finding

NEEDS = ("predictions",)


def check(evidence: Evidence) -> Finding:
    """The winner's deciding score on test against what a constant guess reaches: its whole interval must lie above."""
    score = evidence.winner.score("test")
    chance = next(b.value for b in evidence.baselines if b.metric == score.metric)
    good = score.low > chance
    return Finding(
        check="chance",
        status="pass" if good else "fail" if score.high < chance else "warn",
        value=score.value,
        interval=(score.low, score.high),
        threshold=chance,
        evidence=f"{score.metric} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}] on {score.n} test rows, "
        f"a constant guess has {chance:.3f}",
        advice="" if good else "more rows, another backbone, or labels that the inputs can tell apart",
    )
