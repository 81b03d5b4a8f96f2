"""How much better the winner answers each test row than another trial does, paired on the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regraft.waist import Evidence, Init

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Paired:
    """One trial's mean gain over another on a test row, with its 95 % interval; `error` is the other's absolute error.

    The gain is in right answers for classes, in the share of right labels for sets of labels, and for numbers in
    absolute error, in the target's units.
    """

    value: float
    low: float
    high: float
    error: float
    kind: str

    def told(self, other: str) -> str:
        """The comparison in words; `other` says what with."""
        interval = f"[{self.low:+.3f}, {self.high:+.3f}]"
        if self.kind == "number":
            found = f"mean absolute error {self.error - self.value:.4g}, for {other} {self.error:.4g}"
            return f"{found}: a gain of {self.value:+.4g} [{self.low:+.4g}, {self.high:+.4g}]"
        what = "right answers" if self.kind == "class" else "right labels a row"
        return f"{self.value:+.3f} {interval} {what} against {other}"


def best(evidence: Evidence, init: Init) -> int | None:
    """The place of the trial with this start that is best on validation, among those that have predictions.

    Of equal ones that which trains most.
    """
    found = [i for i, trial in enumerate(evidence.trials) if trial.plan.init == init and trial.whole]
    if len(found) < 2:
        return found[0] if found else None
    scores = {i: evidence.trials[i].score("val") for i in found}

    def rank(i: int) -> tuple[float, int]:
        value = scores[i].value if scores[i].better == "higher" else -scores[i].value
        return value, evidence.trials[i].cost.trainable

    return max(found, key=rank)


def compared(evidence: Evidence, other: int, ours: int | None = None) -> Paired:
    """The trial at `ours`, the winner for none, against the one at `other`, by a bootstrap over test rows."""
    y, draw = evidence.arrays["y"], np.random.default_rng(int(evidence.arrays["seed"]))
    place = int(evidence.arrays["winner"]) if ours is None else ours
    reached = goodness(evidence.arrays[f"pred/{other}"], y)
    gap = goodness(evidence.arrays[f"pred/{place}"], y) - reached
    low, high = np.percentile([gap[draw.integers(0, len(y), len(y))].mean() for _ in range(RESAMPLES)], [2.5, 97.5])
    kind = "multi" if y.ndim == 2 else "number" if y.dtype.kind == "f" else "class"
    return Paired(float(gap.mean()), float(low), float(high), float(-reached.mean()), kind)


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
