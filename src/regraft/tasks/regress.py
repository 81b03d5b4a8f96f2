"""A number: a linear head in the target's own units, squared error, an interval around each answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from regraft.errors import DataError
from regraft.kit import shelf
from regraft.tasks import _order
from regraft.waist import Loss, Target, Task

if TYPE_CHECKING:
    import numpy
    from torch import Tensor, nn


KIND = "number"


def fits(target: Target) -> bool:
    """Whether this task answers the target.

    >>> fits(Target("age", "number")), fits(Target("pet", "class", ("cat", "dog"), (1, 1)))
    (True, False)
    """
    return target.kind == "number"


def margin(residuals: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """Half the width of an interval that holds a new row's number in 9 of 10 cases, by split conformal prediction.

    It is the ⌈0.9 · (n + 1)⌉-th smallest of the n absolute residuals, of rows that the weights were not fitted to: if
    rows are exchangeable the interval covers 0.9 of new ones, whatever the model and the noise. Below 9 residuals no
    finite margin can promise that: the largest is taken, and "coverage" is the n / (n + 1) that it does reach.
    Reference: Vovk et al., Algorithmic learning in a random world, 2005; Lei et al., Distribution-free predictive
    inference for regression, 2018, algorithm 2.

    >>> margin([float(i) for i in range(-9, 10)])
    (('margin', 9.0), ('coverage', 0.9))
    >>> margin([1.0, -4.0, 2.0])
    (('margin', 4.0), ('coverage', 0.75))
    >>> margin([])
    ()
    """
    sizes, n = sorted(abs(r) for r in residuals), len(residuals)
    if not n:
        return ()
    place = -(-9 * (n + 1) // 10)
    return ("margin", sizes[min(place, n) - 1]), ("coverage", 0.9 if place <= n else n / (n + 1))


def make(target: Target, metric: str = "") -> Task:
    """The task for `target`: outputs are numbers [n, 1] in its units.

    The loss is the squared error in units of the training rows' standard deviation, so that 1 is what their mean
    reaches; `Loss` has nothing to say here. The root mean squared error decides by default: it is in the target's units
    and is what the loss is about; similarity scores are better served by "spearman".
    `calibrate` finds the `margin` on validation; as that also chose the epoch, it errs a little to the small side.

    Raises: UsageError: there is no such metric.

    >>> task = make(Target("age", "number", centre=40.0, spread=10.0))
    >>> task.encode([25, "31.5"]).tolist(), task.metrics[0].name
    ([25.0, 31.5], 'rmse')
    >>> import torch
    >>> task.answers(torch.tensor([[30.0]]), {"margin": 4.0})
    [{'value': 30.0, 'low': 26.0, 'high': 34.0}]
    """

    def head(dim: int, bias: bool) -> nn.Module:
        """A linear layer that starts at zero, which is the mean of the training rows (0 without a bias)."""
        from regraft.tasks import _linear

        return _linear.Scaled(dim, bias, target.centre, target.spread)

    def settle(head: nn.Module, features: Tensor, targets: Tensor) -> None:
        from regraft.tasks import _linear

        _linear.line(head, features, targets)

    def fold(head: nn.Module) -> nn.Module:
        from regraft.tasks import _linear

        assert isinstance(head, _linear.Scaled)
        return head.folded()

    def encode(ys: Sequence[Any]) -> Tensor:
        import torch

        made = torch.tensor([_number(y) for y in ys], dtype=torch.float32)
        wrong = (~made.isfinite()).nonzero().flatten().tolist()
        if wrong:
            raise DataError(
                f"{len(wrong)} of {len(ys)} values of {target.name} are no numbers to learn from",
                saw=", ".join(repr(ys[i]) for i in wrong[:3]),
                allowed="finite numbers that fit into float32",
                do="fill these values in, or leave their rows out",
            )
        return made

    def loss(outputs: Tensor, targets: Tensor, options: Loss) -> Tensor:
        return ((outputs.flatten() - targets) / target.spread).square()

    def decode(outputs: Tensor) -> dict[str, numpy.ndarray]:
        return {"pred": outputs.float().flatten().numpy()}

    def calibrate(outputs: Tensor, targets: Tensor) -> tuple[tuple[str, float], ...]:
        return margin((outputs.float().flatten() - targets).tolist())

    def answers(outputs: Tensor, numbers: Mapping[str, float]) -> list[dict[str, Any]]:
        values, width = outputs.float().flatten().tolist(), numbers.get("margin")
        if width is None:
            return [{"value": value} for value in values]
        return [{"value": value, "low": value - width, "high": value + width} for value in values]

    return Task(
        name="regress",
        head=head,
        fold=fold,
        settle=settle,
        encode=encode,
        loss=loss,
        decode=decode,
        calibrate=calibrate,
        answers=answers,
        metrics=_order.first(shelf.find("metrics", "numbers").METRICS, metric or "rmse"),
        takes=(),
    )


def _number(y: Any) -> float:
    """`y` as a float; what is none becomes NaN.

    >>> _number("1.5"), _number("tall")
    (1.5, nan)
    """
    try:
        return float(y)
    except (TypeError, ValueError, OverflowError):
        return math.nan
