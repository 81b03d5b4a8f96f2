"""Draw the rows of an epoch so that rare classes come more often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from regraft.engine.trunk import Shape


def drawn(classes: Sequence[int], shapes: Sequence[Shape], power: float, seed: int) -> list[int]:
    """Positions of an epoch's rows: about as many as there are, those of a class by its frequency to 1 - `power`.

    At power 1 every class comes as often, at 0.5 by the square root of its frequency. How many come of a class and a
    shape is the same for each seed, one at least, so that every epoch has as many steps; which ones is drawn anew. No
    row comes twice before every other of its class and shape has come once.

    >>> found = drawn([0] * 9 + [1] * 3, [()] * 12, 1.0, seed=0)
    >>> Counter(i // 9 for i in found) == {0: 6, 1: 6}, Counter(i for i in found if i > 8) == {9: 2, 10: 2, 11: 2}
    (True, True)
    """
    draw = torch.Generator().manual_seed(seed)
    sizes = Counter(classes)
    whole = sum(n ** (1 - power) for n in sizes.values())
    cells: dict[tuple[int, Shape], list[int]] = {}
    for i, cell in enumerate(zip(classes, shapes, strict=True)):
        cells.setdefault(cell, []).append(i)
    found = []
    for (kind, _), members in cells.items():
        each = len(classes) * sizes[kind] ** -power / whole  # how often a row of this class comes
        order = torch.randperm(len(members), generator=draw).tolist()
        found += [members[order[i % len(members)]] for i in range(max(1, round(each * len(members))))]
    return found
