"""Fill the stores of one cache in a process of its own, or remove stores from it, while other processes do so too.

python -m tests.laws.fillers FOLDER fill|trim

Each begins when there is a file `go` in the folder. Who fills prints the SHA-256 of all states; who trims ends when
there is a file `stop`, and prints how many blocks it saw.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.engine import blocks
from regraft.kit import durable

if TYPE_CHECKING:
    from regraft.planner.course import Course


def main(place: Path, what: str) -> str:
    work = trim(place) if what == "trim" else fill(place)
    (place / f"ready-{what}").touch()
    while not (place / "go").exists():
        time.sleep(0.002)
    return work()


def fill(place: Path) -> Callable[[], str]:
    """All that is needed to fill the stores; a block holds one micro-batch."""
    import torch

    from regraft.engine import cache
    from tests import places

    torch.set_num_threads(1)
    cache.BLOCK_BYTES = 1
    course = places.course(place, run="fill")
    return lambda: told(course, cached=True)


def told(course: Course, cached: bool) -> str:
    """All states at all frontiers, one row after the other, as one number."""
    from regraft.engine.cache import Table

    found = []
    rows = [*course.data.train, *course.data.val, *course.data.test]
    course.machine = course.trunks.machine = replace(course.machine, micro_batch=4)
    for k in range(1, len(course.view.stages) + 1):
        held = course.table(course.view, k, rows)
        table = held if cached else Table(held.trunk, rows, None)
        for index, count in table.micro_batches():
            (side,) = table.batch(index)
            found.append(side.state.value[:count].contiguous().numpy().tobytes())
    return durable.digest(b"".join(found))


def trim(place: Path) -> Callable[[], str]:
    """Remove whatever is there, again and again."""

    def work() -> str:
        seen = 0
        while not (place / "stop").exists():
            seen += len(list(blocks.root().rglob("*.block")))
            blocks.trim(blocks.root(), 0, place)
        return str(seen)

    return work


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2]))
