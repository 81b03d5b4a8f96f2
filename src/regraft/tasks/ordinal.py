"""One class out of several in an order, such as grades: a near miss costs less than a far one.

It is asked for by name, because nothing in a table says that its labels have an order; the target's is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regraft.errors import UsageError
from regraft.kit import shelf
from regraft.tasks import _labels, _order
from regraft.waist import Loss, Metric, Target, Task

if TYPE_CHECKING:
    from torch import Tensor

SHARE = 0.1
"""How much of cross-entropy is in the loss: the distance alone stands still where softmax is sure of a wrong class.

Kappa of linear heads, means of five splits, on red wine, white wine and sst5: 0.53, 0.45, 0.48 so; 0.51, 0.46, 0.48 by
the distance alone; 0.52, 0.42, 0.48 by cross-entropy alone; single splits differ by 0.01 to 0.05.
"""
KIND = "class"


def fits(target: Target) -> bool:
    """Never by itself: that labels have an order must be said.

    >>> fits(Target("grade", "class", ("a", "b", "c"), (1, 1, 1)))
    False
    """
    return False


def make(target: Target, metric: str = "") -> Task:
    """The task for `target`: outputs are logits [n, C], which ship as any classifier's do; their argmax is the answer.

    The loss is the squared earth mover's distance, which is the sum over labels of squared differences between the
    predicted and the true probability of being at or below each, plus a `SHARE` of cross-entropy. `Loss.smoothing` acts
    on cross-entropy alone, `Loss.balance` and `Loss.adjust` on both. It takes neither a focal nor a robust loss: the
    distance has a bound, and weighs rows by how far they are off.
    The quadratic kappa decides by default; an answer's "rank" is the expected one, counted from 1.
    Reference: Hou, Yu & Samaras, Squared earth mover's distance-based loss, arXiv 1611.05916, 2016.

    Raises: UsageError: there is no such metric, or the target is not made of classes in a known order.

    >>> task = make(Target("grade", "class", ("poor", "fair", "good"), (5, 5, 5), ordered=True))
    >>> [metric.name for metric in task.metrics]
    ['quadratic_kappa', 'mae', 'accuracy']
    """
    if target.kind != "class":
        raise UsageError(
            "the ordinal task needs classes in an order",
            saw=f"{target.name}, a target of kind {target.kind!r}",
            allowed="a target of kind 'class'",
            do="leave the task to be guessed, or name another target",
        )
    if not target.ordered:
        raise UsageError(
            "the order of these labels is not known",
            saw=", ".join(target.labels[:5]),
            allowed="labels that are numbers, or --order with all labels from low to high",
            do=f"--order {','.join(target.labels[:5])} if that is their order",
        )
    plain: Task = shelf.find("tasks", "classify").make(target)

    def loss(outputs: Tensor, targets: Tensor, options: Loss) -> Tensor:
        import torch

        logits = outputs
        if options.adjust:
            from regraft.tasks import _losses

            logits = outputs + _losses.offsets(target.counts, options.adjust).to(outputs)
        below = logits.softmax(-1).cumsum(-1)[:, :-1]
        truth = targets[:, None] <= torch.arange(below.shape[1], device=targets.device)
        far = (below - truth.to(below.dtype)).square().sum(-1)
        if options.balance:
            far = far * torch.tensor(_labels.weights(target.counts, options.balance), device=far.device)[targets]
        return far + SHARE * plain.loss(outputs, targets, options)

    def answers(outputs: Tensor, numbers: Mapping[str, float]) -> list[dict[str, Any]]:
        prob = plain.decode(outputs)["prob"]
        expected = (prob * range(1, len(target.labels) + 1)).sum(-1)
        return [
            row | {"rank": float(rank)} for row, rank in zip(plain.answers(outputs, numbers), expected, strict=True)
        ]

    accuracy: list[Metric] = [m for m in plain.metrics if m.name == "accuracy"]
    metrics = (*shelf.find("metrics", "ranks").METRICS, *accuracy)
    return dataclasses.replace(
        plain,
        name="ordinal",
        loss=loss,
        answers=answers,
        metrics=_order.first(metrics, metric or "quadratic_kappa"),
        takes=("smoothing", "balance", "adjust", "sampling"),
    )
