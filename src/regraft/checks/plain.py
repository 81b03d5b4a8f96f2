"""Does the winner beat what needs no network: a linear model on word counts or pixels?"""

from __future__ import annotations

from regraft.checks import _paired
from regraft.waist import Evidence, Finding

NEEDS = ("predictions",)


def check(evidence: Evidence) -> Finding:
    """What the winner gains on each test row over the best plain trial, paired on the same rows (95 %).

    A gain that may be none is a warning: the plain model is smaller and faster, and needs no network.

    >>> import numpy as np
    >>> from regraft.waist import Cost, Plan, Trial
    >>> plans = Plan("probe", ()), Plan("scratch", (), init="plain")
    >>> ours, words = (Trial(plan, 0, (), (), Cost(1.0, 1), "p", "w") for plan in plans)
    >>> arrays = {"y": np.ones(50, int), "pred/0": np.ones(50, int), "pred/1": np.arange(50) % 2}
    >>> arrays |= {"seed": np.array(0), "winner": np.array(0)}
    >>> check(Evidence(ours, (ours, words), (), arrays)).evidence
    '+0.500 [+0.360, +0.640] right answers against a linear model without any network'
    """
    plain = _paired.best(evidence, "plain")
    if evidence.winner.plan.init == "plain":
        return _beaten(evidence)
    if plain is None:
        saw = "no trial without a network was run"
        return Finding("plain", "skip", 0.0, (0.0, 0.0), 0.0, saw, "add --strategy scratch to know")
    found = _paired.compared(evidence, plain)
    good = found.low > 0
    return Finding(
        check="plain",
        status="pass" if good else "warn",
        value=found.value,
        interval=(found.low, found.high),
        threshold=0.0,
        evidence=found.told("a linear model without any network"),
        advice="" if good else ADVICE,
    )


ADVICE = (
    "a linear model without any network, on TF-IDF or on small pixels, does as well: "
    "use it, or try another backbone, or train more of this one"
)


def _beaten(evidence: Evidence) -> Finding:
    """A winner that needs no network, and what the best pretrained trial gains over it: less than nothing harms."""
    ours, advice = _paired.best(evidence, "pretrained"), "another backbone may: look for one trained on data like this"
    saw = "the winner itself needs no network: "
    if ours is None:
        saw += "no pretrained network was tried"
        return Finding("plain", "skip", 0.0, (0.0, 0.0), 0.0, saw, advice)
    found = _paired.compared(evidence, int(evidence.arrays["winner"]), ours)
    saw += "negative transfer: " if found.high < 0 else ""
    saw += f"{evidence.trials[ours].label}, the best that is pretrained, has {found.told('it')}"
    return Finding("plain", "skip", found.value, (found.low, found.high), 0.0, saw, advice)
