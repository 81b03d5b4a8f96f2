"""Does starting from pretrained weights help, or would the same network from scratch do better?"""

from __future__ import annotations

from regraft.checks import _paired
from regraft.waist import Evidence, Finding

NEEDS = ("predictions",)


def check(evidence: Evidence) -> Finding:
    """What the winner gains on each test row over the from-scratch trial, paired on the same rows (95 %).

    The gain is in right answers for classes, in the share of right labels for sets of labels, and for numbers in
    absolute error, in the target's units.

    >>> import numpy as np
    >>> from regraft.waist import Cost, Plan, Trial
    >>> plans = Plan("probe", ()), Plan("scratch", (), init="random")
    >>> ours, scratch = (Trial(plan, 0, (), (), Cost(1.0, 1), "p", "w") for plan in plans)
    >>> arrays = {"y": np.ones(50), "pred/0": np.full(50, 1.5), "pred/1": np.full(50, 3.0)}
    >>> arrays |= {"seed": np.array(0), "winner": np.array(0)}
    >>> check(Evidence(ours, (ours, scratch), (), arrays)).evidence
    'mean absolute error 0.5, for the same network from scratch 2: a gain of +1.5 [+1.5, +1.5]'
    """
    init = evidence.winner.plan.init
    random = _paired.best(evidence, "random")
    if random is None or init != "pretrained":
        saw = "no trial from scratch was run"
        if init != "pretrained":
            saw = "the winner itself starts at random" if init == "random" else "the winner itself has no network"
        return Finding("transfer", "skip", 0.0, (0.0, 0.0), 0.0, saw, "add --strategy scratch to know")
    found = _paired.compared(evidence, random)
    return Finding(
        check="transfer",
        status="fail" if found.high < 0 else "warn" if found.low <= 0 else "pass",
        value=found.value,
        interval=(found.low, found.high),
        threshold=0.0,
        evidence=found.told("the same network from scratch"),
        advice=""
        if found.low > 0
        else "the pretrained weights bring little here: try another backbone, or train more of it",
    )
