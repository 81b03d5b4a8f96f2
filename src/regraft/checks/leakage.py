"""Does the winner owe its test score to rows that training or validation has too?"""

from __future__ import annotations

import numpy as np

from regraft.waist import Evidence, Finding, Metric

NEEDS = ("predictions", "leaks")
RESAMPLES = 1000
FEWEST = 10
POINT, LEAST = 0.01, 0.002
"""Differences, as shares of the score's scale, that are warned of in any case, or only where they are beyond noise."""


def check(evidence: Evidence) -> Finding:
    """The deciding test score on all rows against that without the rows that leak, by a bootstrap over rows (95 %).

    `leaks` marks test rows whose content, or whose group, stands in training or validation as well; above zero the
    difference flatters. The scale of a score whose best is 0 is the score itself.

    >>> import numpy as np
    >>> from regraft.waist import Cost, Plan, Trial
    >>> winner = Trial(Plan("probe", ()), 0, (), (), Cost(1.0, 1), "p", "w")
    >>> share = Metric("accuracy", "higher", lambda pred, y, weight: float((pred == y).mean()), lambda y: 0.5)
    >>> arrays = {"y": np.ones(40, int), "pred/0": np.arange(40) % 4 > 0, "leaks": np.arange(40) % 4 == 1}
    >>> arrays |= {"seed": np.array(0), "winner": np.array(0)}
    >>> found = check(Evidence(winner, (winner,), (), arrays, share))
    >>> found.status, found.evidence.partition(":")[0]
    ('warn', 'accuracy 0.750 on all 40 test rows, 0.667 without the 10 that training or validation has too')
    """
    leaks, metric = evidence.arrays["leaks"], evidence.metric
    if metric is None or not leaks.any():
        return Finding("leakage", "skip", 0.0, (0.0, 0.0), 0.0, "no test row is known to leak", "")
    y, pred = evidence.arrays["y"], evidence.arrays[f"{metric.takes}/{int(evidence.arrays['winner'])}"]
    known = f"{int(leaks.sum()):,} that training or validation has too"
    if (~leaks).sum() < FEWEST:
        saw = f"without the {known}, {int((~leaks).sum()):,} of {len(y):,} test rows are left: too few to score"
        return Finding("leakage", "warn", 0.0, (0.0, 0.0), POINT, saw, ADVICE)
    sign = 1 if metric.better == "higher" else -1
    everything, without = metric.fn(pred, y, None), metric.fn(pred[~leaks], y[~leaks], None)
    gap, (low, high) = sign * (everything - without), _interval(metric, pred, y, leaks, int(evidence.arrays["seed"]))
    scale = 1.0 if metric.better == "higher" else max(abs(without), 1e-12)
    flatters = gap > POINT * scale or (low > 0 and gap > LEAST * scale)
    saw = f"{metric.name} {everything:.3f} on all {len(y):,} test rows, {without:.3f} without the {known}: "
    return Finding(
        check="leakage",
        status="warn" if flatters else "pass",
        value=float(gap),
        interval=(low, high),
        threshold=POINT * scale,
        evidence=saw + f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]",
        advice=ADVICE if flatters else "",
    )


ADVICE = "believe the score without them; remove them from the test split, or keep groups whole with --group"


def _interval(metric: Metric, pred: np.ndarray, y: np.ndarray, leaks: np.ndarray, seed: int) -> tuple[float, float]:
    """The 95 % interval of how much better the score on all rows is than that without the leaking ones."""
    draw, gaps = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        rows = draw.integers(0, len(y), len(y))
        kept = rows[~leaks[rows]]
        gaps.append(metric.fn(pred[rows], y[rows], None) - metric.fn(pred[kept], y[kept], None) if len(kept) else 0.0)
    low, high = np.percentile(np.array(gaps) * (1 if metric.better == "higher" else -1), [2.5, 97.5])
    return float(low), float(high)
