"""Does starting from pretrained weights help, or would the same network from scratch do better?"""

from __future__ import annotations

import numpy as np

from regraft.waist import Evidence, Finding

NEEDS = ("predictions",)
RESAMPLES = 2000


def check(evidence: Evidence) -> Finding:
    """Share of test rows the winner gets right beyond the from-scratch trial, paired on the same rows (95 %)."""
    y, draw = evidence.arrays["y"], np.random.default_rng(int(evidence.arrays["seed"]))
    random = [i for i, trial in enumerate(evidence.trials) if trial.plan.init == "random"]
    if not random or evidence.winner.plan.init == "random":
        saw = "the winner itself starts at random" if random else "no trial from scratch was run"
        return Finding("transfer", "skip", 0.0, (0.0, 0.0), 0.0, saw, "add --strategy scratch to know")
    ours, theirs = evidence.arrays[f"pred/{int(evidence.arrays['winner'])}"], evidence.arrays[f"pred/{random[0]}"]
    gap = (ours == y).astype(float) - (theirs == y)
    low, high = np.percentile([gap[draw.integers(0, len(y), len(y))].mean() for _ in range(RESAMPLES)], [2.5, 97.5])
    value = float(gap.mean())
    return Finding(
        check="transfer",
        status="fail" if high < 0 else "warn" if low <= 0 else "pass",
        value=value,
        interval=(float(low), float(high)),
        threshold=0.0,
        evidence=f"{value:+.3f} [{low:+.3f}, {high:+.3f}] right answers against the same network from scratch",
        advice="" if low > 0 else "the pretrained weights bring little here: try another backbone, or train more of it",
    )
