"""One class out of several: a linear head, cross-entropy, softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from regraft.kit import shelf
from regraft.tasks import _labels, _order
from regraft.waist import Loss, Metric, Target, Task

if TYPE_CHECKING:
    import numpy
    from torch import Tensor, nn

KIND = "class"


def fits(target: Target) -> bool:
    """Whether this task answers the target.

    >>> fits(Target("pet", "class", ("cat", "dog"), (1, 1))), fits(Target("age", "number"))
    (True, False)
    """
    return target.kind == "class"


def make(target: Target, metric: str = "") -> Task:
    """The task for `target`: outputs are logits [n, C] in the order of its labels.

    Without a `metric`, accuracy decides, or balanced accuracy where classes are imbalanced. Two classes are also judged
    by how the last, positive one is found. `Loss.balance` b weighs a row of class c by (N / (C · n_c))ᵇ, at most 20,
    with mean 1 over the training rows. `Loss.focal`, `adjust`, `robust` and `reverse` are those of `_losses`, of
    classes in their smoothed shares.

    Raises: UsageError: there is no such metric.

    >>> task = make(Target("pet", "class", ("cat", "dog"), (60, 20)))
    >>> task.metrics[0].name, task.encode(["dog", "cat"]).tolist()
    ('balanced_accuracy', [1, 0])
    """

    def head(dim: int, bias: bool) -> nn.Module:
        """A linear layer that starts at zero: every class equally likely."""
        from regraft.tasks import _linear

        return _linear.plain(dim, len(target.labels), bias)

    def settle(head: nn.Module, features: Tensor, targets: Tensor) -> None:
        from regraft.tasks import _linear

        _linear.nearest(head, features, targets[:, None] == targets.new_tensor(range(len(target.labels))))

    def encode(ys: Sequence[Any]) -> Tensor:
        import torch

        return torch.tensor(_labels.indices(target, ys), dtype=torch.long)

    def loss(outputs: Tensor, targets: Tensor, options: Loss) -> Tensor:
        import torch
        from torch.nn import functional

        from regraft.tasks import _losses

        if options.adjust:
            outputs = outputs + _losses.offsets(target.counts, options.adjust).to(outputs)
        if options.focal or options.robust or options.reverse:
            count = len(target.labels)
            wanted = functional.one_hot(targets, count) * (1 - options.smoothing) + options.smoothing / count
            found = (wanted * _losses.lost(outputs.log_softmax(-1), options)).sum(-1)
        else:
            found = functional.cross_entropy(outputs, targets, label_smoothing=options.smoothing, reduction="none")
        if not options.balance:
            return found
        return found * torch.tensor(_labels.weights(target.counts, options.balance), device=found.device)[targets]

    def decode(outputs: Tensor) -> dict[str, numpy.ndarray]:
        prob = outputs.float().softmax(-1).numpy()
        return {"pred": prob.argmax(-1), "prob": prob}

    def answers(outputs: Tensor, numbers: Mapping[str, float]) -> list[dict[str, Any]]:
        made = decode(outputs)
        return [
            {
                "label": target.labels[best],
                "confidence": float(row[best]),
                "probabilities": {label: float(p) for label, p in zip(target.labels, row, strict=True)},
            }
            for best, row in zip(made["pred"], made["prob"], strict=True)
        ]

    metrics: tuple[Metric, ...] = shelf.find("metrics", "classes").METRICS
    if len(target.labels) == 2:
        metrics += shelf.find("metrics", "binary").METRICS
    usual = "balanced_accuracy" if target.unequal else "accuracy"
    return Task(
        name="classify",
        head=head,
        fold=lambda head: head,
        settle=settle,
        encode=encode,
        loss=loss,
        decode=decode,
        calibrate=lambda outputs, targets: (),
        answers=answers,
        metrics=_order.first(metrics, metric or usual),
        takes=("smoothing", "balance", "focal", "adjust", "robust", "reverse", "sampling"),
    )
