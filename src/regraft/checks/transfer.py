"""Does starting from pretrained weights help, or would the same network from scratch do better?"""

from __future__ import annotations

from regraft.checks import _paired
from regraft.waist import Evidence, Finding

NEEDS = ("predictions",)


def check(evidence: Evidence) -> Finding:
    """What the winner gains on each test row over the from-scratch trial, paired on the same rows (95 %).

    A winner that is not pretrained gives its place to the pretrained trial that is best on validation. A gain that lies
    below zero is negative transfer: it fails a pretrained winner, and warns of the backbone where another plan won.
    The gain is in right answers for classes, in the share of right labels for sets of labels, and for numbers in
    absolute error, in the target's units.

    Reference: Wang et al., Characterizing and avoiding negative transfer, 2019.

    >>> import numpy as np
    >>> from regraft.waist import Cost, Plan, Trial
    >>> plans = Plan("probe", ()), Plan("scratch", (), init="random")
    >>> ours, scratch = (Trial(plan, 0, (), (), Cost(1.0, 1), "p", "w") for plan in plans)
    >>> arrays = {"y": np.ones(50), "pred/0": np.full(50, 1.5), "pred/1": np.full(50, 3.0)}
    >>> arrays |= {"seed": np.array(0), "winner": np.array(0)}
    >>> check(Evidence(ours, (ours, scratch), (), arrays)).evidence
    'mean absolute error 0.5, for the same network from scratch 2: a gain of +1.5 [+1.5, +1.5]'
    """
    winner = int(evidence.arrays["winner"])
    own = evidence.winner.plan.init == "pretrained"
    random, ours = _paired.best(evidence, "random"), winner if own else _paired.best(evidence, "pretrained")
    if random is None or ours is None:
        saw = "no trial from scratch was run" if random is None else "no pretrained trial was run"
        advice = f"add --strategy {'scratch' if random is None else 'probe'} to know"
        return Finding("transfer", "skip", 0.0, (0.0, 0.0), 0.0, saw, advice)
    found = _paired.compared(evidence, random, ours)
    harmed, good = found.high < 0, found.low > 0
    whole = evidence.trials[random].plan.optimizer.whole
    told = found.told("features of the same network with random weights" if whole else "the same network from scratch")
    if not own:
        told = f"{evidence.trials[ours].label}, the best that is pretrained: {told}"
    return Finding(
        check="transfer",
        status="pass" if good else "fail" if harmed and own else "warn",
        value=found.value,
        interval=(found.low, found.high),
        threshold=0.0,
        evidence=f"negative transfer: {told}" if harmed else told,
        advice="" if good else ADVICE,
    )


ADVICE = "the pretrained weights bring little here: try another backbone, or train more of it"
