"""Look at what the winner answered on the test split: what it confuses, and the rows that it got most wrong."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.errors import DataError
from regraft.kit import shelf
from regraft.waist import Data, Examined, Example, Row, Task

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = 12
PAIRS = 500
SIDE_BY_SIDE = 3


def examine(task: Task, data: Data, outputs: Tensor) -> Examined:
    """What the winner got right and wrong; `outputs` are its outputs for the rows of `data.test`, [N, …].

    >>> import torch
    >>> from regraft.waist import Target
    >>> target = Target("pet", "class", ("cat", "dog"), (1, 1))
    >>> rows = [Row("1", "a cat", "cat", "", ""), Row("2", "a dog", "dog", "", "")]
    >>> data = Data("pets", "text", target, (), (), rows, "")
    >>> made = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    >>> found = examine(shelf.find("tasks", "classify").make(target), data, made)
    >>> found.confusion, [(e.id, e.y, e.said) for e in found.examples]
    (((1, 0), (1, 0)), [('2', 'dog', 'cat')])
    """
    return replace(_examined(task, data, outputs), alike=alike(data))


def alike(data: Data) -> tuple[Example, ...]:
    """The rows that the first finding about the data names to be seen beside each other, as a reader sees them."""
    wanted = next((flag.shown for flag in data.flags if flag.shown), ())
    rows = {
        row.id: (split, row)
        for split in ("train", "val", "test")
        for row in (getattr(data, split) if wanted else ())
        if row.id in wanted
    }
    found = []
    for split, row in (rows[name] for name in wanted[:SIDE_BY_SIDE] if name in rows):
        y = ", ".join(row.y) if isinstance(row.y, tuple) else str(row.y)
        found.append(_example(data, row, y, split, 0.0))
    return tuple(found)


def _examined(task: Task, data: Data, outputs: Tensor) -> Examined:
    """What was right and wrong, by the kind of target."""
    decoded, labels = task.decode(outputs), data.target.labels
    truth = task.encode([row.y for row in data.test]).numpy()
    if data.target.kind == "number":
        return _numbers(data, truth.astype(float), decoded["pred"].astype(float))
    if data.target.kind == "multi":
        return _sets(data, truth > 0.5, decoded["pred"], decoded["prob"])
    pred = decoded["pred"].astype(int)
    counts = np.zeros((len(labels), len(labels)), int)
    np.add.at(counts, (truth, pred), 1)
    sure = decoded["prob"][np.arange(len(pred)), pred]
    wrong = np.flatnonzero(pred != truth)
    cells = {int(i): (int(truth[i]), int(pred[i])) for i in wrong}
    return Examined(
        labels=labels,
        confusion=tuple(tuple(map(int, line)) for line in counts),
        examples=tuple(
            _example(data, data.test[i], labels[truth[i]], labels[pred[i]], float(sure[i])) for i in spread(cells, sure)
        ),
    )


def _sets(data: Data, truth: np.ndarray, pred: np.ndarray, prob: np.ndarray) -> Examined:
    """Sets of labels, [N, C]: a row's confidence is that in the label it is most surely wrong about."""
    labels = data.target.labels
    missed = pred != truth
    sure = np.where(missed, np.abs(prob - 0.5) + 0.5, 0.0)
    cells = {int(i): (int(sure[i].argmax()), int(pred[i][sure[i].argmax()])) for i in np.flatnonzero(missed.any(1))}
    counts = [(~truth & ~pred).sum(0), (~truth & pred).sum(0), (truth & ~pred).sum(0), (truth & pred).sum(0)]

    def named(some: np.ndarray) -> str:
        return ", ".join(labels[c] for c in np.flatnonzero(some)) or "none"

    most = sure.max(1, initial=0.0)
    return Examined(
        labels=labels,
        confusion=tuple(tuple(map(int, line)) for line in np.stack(counts, 1)),
        examples=tuple(
            _example(data, data.test[i], named(truth[i]), named(pred[i]), float(most[i])) for i in spread(cells, most)
        ),
    )


def _numbers(data: Data, truth: np.ndarray, pred: np.ndarray) -> Examined:
    """Numbers: the largest errors, and pairs at even steps through the sorted truths."""
    errors = np.nan_to_num(np.abs(pred - truth), nan=math.inf)
    worst = [int(i) for i in np.argsort(-errors, kind="stable")[:EXAMPLES] if errors[i] > 0]
    order = np.argsort(truth, kind="stable")
    if len(order) > PAIRS:
        order = order[np.linspace(0, len(order) - 1, PAIRS).round().astype(int)]
    return Examined(
        labels=(),
        confusion=(),
        examples=tuple(_example(data, data.test[i], f"{truth[i]:.6g}", f"{pred[i]:.6g}", 0.0) for i in worst),
        numbers=tuple((float(truth[i]), float(pred[i])) for i in order),
    )


def spread(cells: dict[int, tuple[int, int]], sure: Sequence[float] | np.ndarray) -> list[int]:
    """At most `EXAMPLES` of the rows in `cells` (row → kind of mistake), the surest first.

    They are taken in turn from the most frequent kinds of mistake, of each the surest that is left.

    >>> spread({0: (0, 1), 1: (0, 1), 2: (1, 0)}, [0.6, 0.9, 0.7])
    [1, 2, 0]
    """
    kinds: dict[tuple[int, int], list[int]] = {}
    for i in sorted(cells, key=lambda i: (-float(sure[i]), i)):
        kinds.setdefault(cells[i], []).append(i)
    rounds: Iterable[tuple[int | None, ...]] = zip_longest(*sorted(kinds.values(), key=lambda rows: -len(rows)))
    taken = [i for turn in rounds for i in turn if i is not None][:EXAMPLES]
    return sorted(taken, key=lambda i: (-float(sure[i]), i))


def _example(data: Data, row: Row, y: str, said: str, confidence: float) -> Example:
    """A row as a reader sees it; one whose file is gone by now is shown without its content."""
    text, picture = _shown(data.modality, row.cell)
    return Example(row.id, text, base64.b64encode(picture).decode(), y, said, round(confidence, 4))


def _shown(modality: str, cell: Any) -> tuple[str, bytes]:
    try:
        found: tuple[str, bytes] = shelf.find("modalities", modality).shown(cell)
        return found
    except DataError:
        return "", b""
