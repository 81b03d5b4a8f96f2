"""EMA: an exponential moving average of the weights over the steps is what is scored, kept and shipped."""

from __future__ import annotations

ACTS_ON = "average"


def act(strength: float, step: int) -> float:
    """The share of itself that the average keeps at a step, which counts from 0 in each phase.

    It begins low, so that few steps leave little of the start in it.

    Reference: Polyak & Juditsky, Acceleration of stochastic approximation by averaging, 1992; Tarvainen & Valpola, Mean
    teachers are better role models, 2017; the start is that of TensorFlow's ExponentialMovingAverage.

    >>> [round(act(0.99, step), 2) for step in (0, 8, 1000)]
    [0.1, 0.5, 0.99]
    """
    return min(strength, (1 + step) / (10 + step))
