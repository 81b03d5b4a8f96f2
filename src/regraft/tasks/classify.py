"""One class out of several: a linear head, cross-entropy, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from regraft.errors import DataError
from regraft.kit import shelf
from regraft.waist import Target, Task

if TYPE_CHECKING:
    import numpy
    from torch import Tensor, nn


def fits(target: Target) -> bool:
    """Whether this task answers the target."""
    return target.kind == "class"


def make(target: Target) -> Task:
    """The task for `target`: outputs are logits [n, C] in the order of its labels."""
    index = {label: i for i, label in enumerate(target.labels)}

    def head(dim: int) -> nn.Module:
        """A linear layer that starts at zero: every class equally likely, no random numbers drawn."""
        from torch import nn

        layer: nn.Module = nn.utils.skip_init(nn.Linear, dim, len(index))
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        return layer

    def encode(ys: Sequence[Any]) -> Tensor:
        import torch

        strange = sorted({str(y) for y in ys} - set(index))
        if strange:
            raise DataError(
                "a label is not one of the training labels",
                saw=", ".join(strange[:3]),
                allowed=", ".join(list(index)[:20]),
                do="rename it, or add training examples of it",
            )
        return torch.tensor([index[y] for y in ys], dtype=torch.long)

    def loss(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction="none")

    def decode(outputs: Tensor) -> dict[str, numpy.ndarray]:
        prob = outputs.float().softmax(-1).numpy()
        return {"pred": prob.argmax(-1), "prob": prob}

    def answers(outputs: Tensor) -> list[dict[str, Any]]:
        made = decode(outputs)
        return [
            {
                "label": target.labels[best],
                "confidence": float(row[best]),
                "probabilities": {label: float(p) for label, p in zip(target.labels, row, strict=True)},
            }
            for best, row in zip(made["pred"], made["prob"], strict=True)
        ]

    metrics = shelf.find("metrics", "classes").METRICS
    return Task("classify", head, encode, loss, decode, answers, metrics)
