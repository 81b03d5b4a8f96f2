"""Set a head without training it: from centroids, from the checkpoint's own labels, from names, from a cosine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from regraft.backbone.names import matched, phrase
from regraft.engine import freeze
from regraft.engine.cache import Table
from regraft.engine.predict import JOINED, Graft
from regraft.engine.trunk import Trunk
from regraft.waist import Loss, Plan, Row, Target, Task, fingerprint

WIDEST, FINE, SLACK = 8, 8, 0.5


def begin(plan: Plan, graft: Graft, task: Task, table: Table, target: Target) -> None:
    """Set the head of a graft, which starts at zero, as `plan.start` says; nothing is done at "zero".

    `table` holds the training rows at the plan's last frontier. Their labels are used for centroids, for the line of a
    cosine, and, where outputs are scores of classes, for one number: the `temperature`.
    """
    if plan.start == "zero":
        return
    x, y = features(graft, table), task.encode([row.y for row in table.rows])
    with torch.no_grad():
        if plan.start == "centroids":
            task.settle(graft.head, x, y)
        elif plan.start == "cosine":
            _cosine(graft.head, task, x, y)
        elif plan.start == "labels":
            _labels(graft, target.labels)
        else:
            _names(graft.head, embedded(graft, table.trunk, target.labels))
        if target.kind in ("class", "multi"):
            scale = temperature(graft.head(x), y, task.loss, plan.loss)
            for parameter in graft.head.parameters():
                parameter.mul_(scale)


def features(graft: Graft, table: Table) -> Tensor:
    """What the head takes for every row of a table, [N, D], in micro-batches of fixed shapes as `predict.outputs`."""
    found: dict[int, Tensor] = {}
    with torch.no_grad(), freeze.mode(graft.view, graft.head, None):
        for index, count in table.micro_batches():
            made = graft.features(table.batch(index), table.trunk.k)
            found |= dict(zip(index[:count], made[:count], strict=True))
    return torch.stack([found[i] for i in range(len(table.rows))])


def embedded(graft: Graft, trunk: Trunk, labels: Sequence[str]) -> Tensor:
    """Features of labels that are read as texts, [C, D], by the trunk that rows of text go through."""
    texts = [phrase(label) for label in labels]
    rows = [Row(id=text, cell=text, y=None, group="", key=fingerprint(text)) for text in texts]
    return features(graft, Table(trunk, rows, None))


def temperature(
    outputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor, Loss], Tensor], options: Loss
) -> float:
    """A factor for outputs [n, C]: it moves their probabilities and not the best class.

    Among eighths of powers of two from 2^-8 to 2^8, the smallest whose loss over all rows is within 0.5 of the lowest:
    a standard error below the likeliest. Where few rows are all answered rightly the lowest loss is at the largest
    factor: with centroids of 10 rows a class the loss of a test row was 4.1 so and is 0.58 now (means of seven sets;
    0.29 and 0.28 with all rows). Reference: Guo et al., On calibration of modern neural networks, 2017.

    >>> from torch.nn import functional
    >>> plain = lambda o, t, _: functional.cross_entropy(o, t, reduction="none")
    >>> temperature(torch.tensor([[2.0, 0.0]] * 400), torch.tensor([0, 0, 0, 1] * 100), plain, Loss())  # 3 to 1
    0.5
    """

    def total(i: int) -> float:
        return float(loss(outputs * 2.0 ** (i / FINE), targets, options).double().sum())

    end = WIDEST * FINE
    coarse = min(range(-end, end + 1, FINE), key=total)
    best = min(range(max(-end, coarse - FINE + 1), min(end + 1, coarse + FINE)), key=total)
    allowed = total(best) + SLACK
    while best > -end and total(best - 1) <= allowed:
        best -= 1
    return float(2.0 ** (best / FINE))


def _labels(graft: Graft, wanted: Sequence[str]) -> None:
    """Rows of the native head, averaged over the outputs that mean a label."""
    native, places = graft.view.native, matched(graft.view.labels, wanted)
    assert isinstance(native, nn.Linear) and places is not None, "planned without the checkpoint's own labels"
    for name, parameter in graft.head.named_parameters():
        own: Tensor | None = getattr(native, name)
        if own is not None:
            parameter.copy_(torch.stack([own[list(places[label])].mean(0) for label in wanted]))


def _names(head: nn.Module, classes: Tensor) -> None:
    """Classes [C, D] at unit length, so that the largest output is the largest cosine.

    Nothing is centred: on 400 training rows each of ten text sets with MiniLM, less the mean of the classes, classes
    alone changed balanced accuracy by -2.5 to +0.9 points (mean -0.6), classes and rows by -38 to -0.4.
    """
    dict(head.named_parameters())["weight"].copy_(classes / classes.norm(dim=1, keepdim=True).clamp(min=1e-12))


def _cosine(head: nn.Module, task: Task, x: Tensor, y: Tensor) -> None:
    """Settle a head on the cosine of a pair alone, which is the mean of the last block of joined features [n, 4 D]."""
    width = x.shape[1] // JOINED
    own = dict(head.named_parameters())
    small = task.head(1, "bias" in own)
    task.settle(small, x[:, -width:].mean(1, keepdim=True), y)
    found = dict(small.named_parameters())
    own["weight"][:, -width:] = found["weight"] / width
    if "bias" in own:
        own["bias"].copy_(found["bias"])
