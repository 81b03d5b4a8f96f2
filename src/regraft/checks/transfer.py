"""Does starting from pretrained weights help, or would the same network from scratch do better?"""

from __future__ import annotations

import numpy as np

from regraft.waist import Evidence, Finding

NEEDS = ("predictions",)
RESAMPLES = 2000


def check(evidence: Evidence) -> Finding:
    """What the winner gains on each test row over the from-scratch trial, paired on the same rows (95 %).

    The gain is in right answers for classes, in the share of right labels for sets of labels, and for numbers in
    absolute error, in the target's units.

    >>> from regraft.waist import Cost, Plan, Trial
    >>> plans = Plan("probe", ()), Plan("scratch", (), init="random")
    >>> ours, scratch = (Trial(plan, 0, (), (), Cost(1.0, 1), "", "") for plan in plans)
    >>> arrays = {"y": np.ones(50), "pred/0": np.full(50, 1.5), "pred/1": np.full(50, 3.0)}
    >>> arrays |= {"seed": np.array(0), "winner": np.array(0)}
    >>> check(Evidence(ours, (ours, scratch), (), arrays)).evidence
    'mean absolute error 0.5, for the same network from scratch 2: a gain of +1.5 [+1.5, +1.5]'
    """
    y, draw = evidence.arrays["y"], np.random.default_rng(int(evidence.arrays["seed"]))
    random = [i for i, trial in enumerate(evidence.trials) if trial.plan.init == "random"]
    if not random or evidence.winner.plan.init == "random":
        saw = "the winner itself starts at random" if random else "no trial from scratch was run"
        return Finding("transfer", "skip", 0.0, (0.0, 0.0), 0.0, saw, "add --strategy scratch to know")
    ours, theirs = evidence.arrays[f"pred/{int(evidence.arrays['winner'])}"], evidence.arrays[f"pred/{random[0]}"]
    reached = goodness(theirs, y)
    gap = goodness(ours, y) - reached
    low, high = np.percentile([gap[draw.integers(0, len(y), len(y))].mean() for _ in range(RESAMPLES)], [2.5, 97.5])
    value = float(gap.mean())
    return Finding(
        check="transfer",
        status="fail" if high < 0 else "warn" if low <= 0 else "pass",
        value=value,
        interval=(float(low), float(high)),
        threshold=0.0,
        evidence=_told(y, value, (float(low), float(high)), float(-reached.mean())),
        advice="" if low > 0 else "the pretrained weights bring little here: try another backbone, or train more of it",
    )


def goodness(pred: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How well each row is answered, [n], higher is better, by the kind of `y`.

    Class indices [n]: 1 where right. Sets of labels [n, C]: the share of labels that are right. Numbers [n]: the
    absolute error, negative.

    >>> goodness(np.array([[True, False]]), np.array([[1.0, 1.0]])).tolist(), goodness(np.array([3.0]), np.array([1.0]))
    ([0.5], array([-2.]))
    """
    if y.ndim == 2:
        return np.asarray((pred == (y > 0.5)).mean(1))
    if y.dtype.kind == "f":
        return np.asarray(-np.abs(pred.astype(float) - y))
    return np.asarray(pred == y, float)


def _told(y: np.ndarray, value: float, interval: tuple[float, float], error: float) -> str:
    low, high = interval
    if y.ndim == 1 and y.dtype.kind == "f":
        found = f"mean absolute error {error - value:.4g}, for the same network from scratch {error:.4g}"
        return f"{found}: a gain of {value:+.4g} [{low:+.4g}, {high:+.4g}]"
    what = "right answers" if y.ndim == 1 else "right labels a row"
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}] {what} against the same network from scratch"
