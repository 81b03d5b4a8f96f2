"""Any number of labels a row: a linear head, a yes or no per label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from regraft.kit import shelf
from regraft.tasks import _labels, _order
from regraft.waist import Loss, Target, Task

if TYPE_CHECKING:
    import numpy
    from torch import Tensor, nn


KIND = "multi"


def fits(target: Target) -> bool:
    """Whether this task answers the target.

    >>> fits(Target("tags", "multi", ("cat", "dog"), (1, 1))), fits(Target("age", "number"))
    (True, False)
    """
    return target.kind == "multi"


def positive_weights(counts: Sequence[int], balance: float = 0.5) -> list[float]:
    """How much a yes of each label weighs: (largest count / own count) to the power `balance`, at most 20.

    At 1 every label's yeses weigh the same, but a rare label would then be given wherever it is slightly likely: weight
    w moves the threshold to a probability of 1 / (1 + w). The root is the usual compromise.
    Reference: Mahajan et al., Exploring the limits of weakly supervised pretraining, 2018, section 2.2.

    >>> positive_weights([900, 100])
    [1.0, 3.0]
    """
    return [min(_labels.HEAVIEST, (max(counts) / max(1, n)) ** balance) for n in counts]


def make(target: Target, metric: str = "") -> Task:
    """The task for `target`: outputs are logits [n, C] in the order of its labels, a label is given from 0.5 on.

    The loss is the mean over labels of binary cross-entropy; `Loss.smoothing` s turns yes and no into 1 - s/2 and s/2,
    `Loss.balance` weighs each yes by `positive_weights`; `Loss.focal` acts on each yes and no, with `Loss.asymmetric`
    on each yes alone. Macro F1 decides by default: every label counts equally, as a rare one is seldom less wanted, and
    the many rows without a label do not flatter it.
    An answer's confidence is that in the least certain of its yeses and noes.

    Raises: UsageError: there is no such metric.

    >>> task = make(Target("tags", "multi", ("cat", "dog"), (5, 5)))
    >>> task.metrics[0].name, task.encode([("dog", "cat"), ()]).tolist()
    ('macro_f1', [[1.0, 1.0], [0.0, 0.0]])
    """

    def head(dim: int, bias: bool) -> nn.Module:
        """A linear layer that starts at zero: every label as likely as not."""
        from regraft.tasks import _linear

        return _linear.plain(dim, len(target.labels), bias)

    def settle(head: nn.Module, features: Tensor, targets: Tensor) -> None:
        from regraft.tasks import _linear

        _linear.between(head, features, targets)

    def encode(ys: Sequence[Any]) -> Tensor:
        import torch

        made = torch.zeros(len(ys), len(target.labels))
        rows = [i for i, y in enumerate(ys) for _ in y]
        made[rows, _labels.indices(target, [label for y in ys for label in y])] = 1
        return made

    def loss(outputs: Tensor, targets: Tensor, options: Loss) -> Tensor:
        import torch
        from torch.nn import functional

        heavy = (
            torch.tensor(positive_weights(target.counts, options.balance), device=outputs.device)
            if options.balance
            else None
        )
        soft = targets * (1 - options.smoothing) + options.smoothing / 2
        if not (options.focal or options.asymmetric):
            each = functional.binary_cross_entropy_with_logits(outputs, soft, pos_weight=heavy, reduction="none")
            return each.mean(-1)
        from regraft.tasks import _losses

        yes, no = (_losses.lost(functional.logsigmoid(side), options) for side in (outputs, -outputs))
        no = _losses.refused(outputs, options.asymmetric) if options.asymmetric else no
        return (soft * (yes if heavy is None else heavy * yes) + (1 - soft) * no).mean(-1)

    def decode(outputs: Tensor) -> dict[str, numpy.ndarray]:
        prob = outputs.float().sigmoid().numpy()
        return {"pred": prob >= 0.5, "prob": prob}

    def answers(outputs: Tensor, numbers: Mapping[str, float]) -> list[dict[str, Any]]:
        made = decode(outputs)
        return [
            {
                "labels": [label for label, yes in zip(target.labels, given, strict=True) if yes],
                "confidence": float(abs(row - 0.5).min() + 0.5),
                "probabilities": {label: float(p) for label, p in zip(target.labels, row, strict=True)},
            }
            for given, row in zip(made["pred"], made["prob"], strict=True)
        ]

    return Task(
        name="multilabel",
        head=head,
        fold=lambda head: head,
        settle=settle,
        encode=encode,
        loss=loss,
        decode=decode,
        calibrate=lambda outputs, targets: (),
        answers=answers,
        metrics=_order.first(shelf.find("metrics", "labels").METRICS, metric or "macro_f1"),
        takes=("smoothing", "balance", "focal", "asymmetric"),
    )
