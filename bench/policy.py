"""9: is what the cache keeps the best choice? Chosen by rates from a short probe, judged by what each step takes.

A cell of the grid is a network, the frontier that a plan reads, a bound in bytes, how often the plan reads it, and
whether the files are in the page cache. Every step is measured for each network: the trunk from frontier to frontier,
writing and reading the states of each. The seconds of a choice are composed of these. The policy knows none of them: it
goes by the disk's rates and the time of a whole pass. Against the best of all choices, never keeping anything, and
keeping everything that is read. Twelve cells are run end to end to see that composing is right.

    python bench/policy.py [--quick] [--rows 64] [--again]
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from results import SHARED, Comparison, keep, measured

PASSES = (1, 2, 5, 50)
BOUNDS = (0.05, 0.3, 0.8, 2.0)
"""Shares of what all four frontiers take."""
GOAL_WORST, GOAL_MEAN, CELLS = 1.10, 1.03, 12
NETS = ("MobileNetV2", "ResNet-18", "MiniLM")


class Net:
    """A network cut at four frontiers, with what each step took for its rows; all seconds are of one row."""

    def __init__(self, name: str, place: Path, rows: int) -> None:
        import works

        from regraft.engine import policy
        from regraft.engine.trunk import parts_of

        model = {"MobileNetV2": lambda: works.MOBILENET, "MiniLM": lambda: "minilm"}.get(name)
        data = "trec_questions" if name == "MiniLM" else "ants_bees"
        made = works.open_bench(
            SHARED / "data" / data, model() if model else works.resnet18(place), "probe", {"epochs": 1}, place, rows
        )
        self.course = course = made.course
        self.view = view = course.view
        self.rows = [*course.data.train][:rows]
        stages = len(view.stages)
        self.cuts = sorted({max(1, round(stages * share)) for share in (0.3, 0.55, 0.8, 1.0)})
        parts = [part for row in parts_of(course.encoder, self.rows, 1) for side in row for part in side]
        self.size = max({part.size for part in parts}, key=[part.size for part in parts].count)
        self.parts = [part for part in parts if part.size == self.size]
        self.rates = policy.measured(place)
        flops = [stage.flops for stage in view.stages]
        self.guess = {k: course.machine.forward_s * sum(flops[:k]) / sum(flops) for k in self.cuts}
        self._measure(place)

    def _measure(self, place: Path) -> None:
        """Seconds of a row to each frontier, and to write and read its states, hot and cold."""
        from safetensors.torch import load, save

        from regraft.backbone.state import leaves
        from regraft.engine.trunk import Trunk
        from regraft.kit import durable

        n, self.bytes, self.write, self.reads, self.compute = len(self.parts), {}, {}, {}, {}
        for k in self.cuts:
            trunk = Trunk(self.view, k, self.course.encoder, self.course.machine.micro_batch)
            took = []
            for _ in range(2):
                begun = time.perf_counter()
                state = trunk.states(self.parts)
                took.append(time.perf_counter() - begun)
            self.compute[k] = min(took) / n
            data = save({str(i): t.contiguous() for i, t in enumerate(leaves(state.value))})
            path = place / f"{k}.block"
            begun = time.perf_counter()
            durable.write(path, data)
            self.write[k] = (time.perf_counter() - begun) / n
            self.bytes[k] = len(data) / n
            for cold in (False, True):
                if cold:
                    drop(path)
                begun = time.perf_counter()
                load(path.read_bytes())
                self.reads[k, cold] = (time.perf_counter() - begun) / n
            path.unlink()
        for low, high in itertools.pairwise(self.cuts):  # noise never makes a longer trunk a faster one
            self.compute[high] = max(self.compute[high], self.compute[low])

    def seconds(self, wanted: int, passes: int, kept: tuple[int, ...], cold: bool) -> float:
        """What a row takes in all: filling what is kept from one frontier to the next, then reading or computing."""
        total, reached = 0.0, 0.0
        for i, k in enumerate(kept):
            total += self.compute[k] - reached + self.write[k] + (self.reads[kept[i - 1], False] if i else 0.0)
            reached = self.compute[k]
        if wanted in kept:
            return total + passes * self.reads[wanted, cold]
        below = max((k for k in kept if k < wanted), default=0)
        again = self.compute[wanted] - (self.compute[below] - self.reads[below, cold] if below else 0.0)
        return total + passes * again

    def choice(self, wanted: int, passes: int, room: float) -> tuple[int, ...]:
        """What the policy keeps."""
        from regraft.engine import policy

        seen = [
            policy.Frontier(k, self.view.stages[k - 1].out_bytes, self.guess[k], passes if k == wanted else 0)
            for k in self.cuts
        ]
        return policy.keep(seen, self.rates, room) if self.rates else ()

    def end_to_end(self, wanted: int, passes: int, kept: tuple[int, ...], place: Path) -> float:
        """The same, run: fill a store or none, then read all rows so often; seconds of a row."""
        from regraft.engine.cache import Store
        from regraft.kit import durable

        durable.remove(place)
        begun = time.perf_counter()
        stores: dict[int, Store] = {}
        for i, k in enumerate(kept):
            trunk, stores[k] = self._trunk(k), Store(place / str(k))
            if i:
                trunk.source = kept[i - 1], source(stores[kept[i - 1]])
            list(stores[k].fill(trunk, self.parts))
        below = max((k for k in kept if k <= wanted), default=0)
        trunk = self._trunk(wanted)
        for _ in range(passes):
            if below == wanted:
                stores[below].states([part.key for part in self.parts]).all()
                continue
            trunk.source = (below, source(stores[below])) if below else None
            trunk.states(self.parts)
        return (time.perf_counter() - begun) / len(self.parts)

    def _trunk(self, k: int) -> Any:
        from regraft.engine.trunk import Trunk

        return Trunk(self.view, k, self.course.encoder, self.course.machine.micro_batch)


def source(store: Any) -> Any:
    return lambda parts: store.states([part.key for part in parts]).all()


def drop(path: Path) -> None:
    """Take a file out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def grid(net: Net) -> list[dict[str, Any]]:
    """Every cell of a network with the seconds of each side."""
    cells = []
    whole = sum(net.bytes.values())
    for wanted, bound, passes, cold in itertools.product(net.cuts, BOUNDS, PASSES, (False, True)):
        room = bound * whole
        choices = [c for n in range(len(net.cuts) + 1) for c in itertools.combinations(net.cuts, n)]
        fitting = [c for c in choices if sum(net.bytes[k] for k in c) <= room]
        kept = net.choice(wanted, passes, room)
        everything = (wanted,) if net.bytes[wanted] <= room else ()
        sides = {"policy": kept, "never": (), "all": everything}
        took = {name: net.seconds(wanted, passes, some, cold) for name, some in sides.items()}
        took["best"] = min(net.seconds(wanted, passes, some, cold) for some in fitting)
        cells.append({"wanted": wanted, "passes": passes, "cold": cold, "kept": kept, "seconds": took})
    return cells


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--rows", type=int, default=64)
    parse.add_argument("--quick", action="store_true", help="16 rows and one network")
    parse.add_argument("--again", action="store_true", help="measure what is there already")
    given = parse.parse_args()
    if not SHARED.is_dir():
        print(f"skipped: {SHARED} is absent")
        return 0
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    nets, rows = (NETS[:1], 16) if given.quick else (NETS, given.rows)
    for name in nets:
        if not given.again and measured(9, name, "worst cell of the policy", "best choice"):
            continue
        with tempfile.TemporaryDirectory() as place:
            one(name, Path(place), rows, given.quick)
    return 0


def one(name: str, place: Path, rows: int, quick: bool) -> None:
    """Measure a network, judge its grid, keep the records."""
    os.environ["REGRAFT_CACHE"] = str(place / "cache")
    net = Net(name, place, rows)
    cells = grid(net)
    checked = random.Random(0).sample([c for c in cells if c["passes"] < 50 and not c["cold"]], CELLS // len(NETS))
    apart = []
    for cell in checked:
        ran = net.end_to_end(cell["wanted"], cell["passes"], cell["kept"], place / "store")
        apart.append(ran / cell["seconds"]["policy"])
    equal = {
        "what": f"{len(apart)} cells run end to end, seconds over those composed",
        "difference": f"median {statistics.median(apart):.2f} ({min(apart):.2f} to {max(apart):.2f})",
    }
    more = {
        "frontiers": [net.view.stages[k - 1].name for k in net.cuts],
        "bytes": [round(net.bytes[k]) for k in net.cuts],
        "ms": [round(1e3 * net.compute[k], 3) for k in net.cuts],
        "write_GBps": round(net.rates.write / 1e9, 2) if net.rates else 0,
        "read_GBps": round(net.rates.read / 1e9, 2) if net.rates else 0,
        "cells": len(cells),
    }
    best = [cell["seconds"]["policy"] / cell["seconds"]["best"] for cell in cells]
    for side, value, goal in (
        ("worst cell", max(best), GOAL_WORST),
        ("mean of cells", statistics.mean(best), GOAL_MEAN),
    ):
        keep(Comparison(9, name, f"{side} of the policy", "best choice", [value], goal, 1.0, equal, quick, more))
    for other in ("never", "all"):
        gains = [cell["seconds"][other] / cell["seconds"]["policy"] for cell in cells]
        keep(Comparison(9, name, "the policy", f"keeping {other}", gains, 1.0, 0, equal, quick))


if __name__ == "__main__":
    sys.exit(main())
