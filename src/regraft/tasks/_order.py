"""Which metric decides: the one that was asked for, put first."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.errors import unknown
from regraft.waist import Metric


def first(metrics: Sequence[Metric], name: str) -> tuple[Metric, ...]:
    """The metrics with the one called `name` in front, the others in their order.

    Raises: UsageError: there is none of that name; those that there are, are named.

    >>> one, two = (Metric(name, "higher", lambda pred, y, weight: 0.0, lambda y: 0.0) for name in ("one", "two"))
    >>> [metric.name for metric in first((one, two), "two")]
    ['two', 'one']
    """
    names = [metric.name for metric in metrics]
    if name not in names:
        raise unknown("metric", name, names)
    return tuple(sorted(metrics, key=lambda metric: metric.name != name))
