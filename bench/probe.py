"""One probe from JPEG files: a plain loop that runs the frozen trunk in every epoch, against the trunk run once.

Both sides train the same plan with the same batches in one process; the heads must be equal bit for bit before a time
is printed. The bound is the number of epochs: the trunk's share of the work falls from E passes to one.

    python bench/probe.py [--model DIR] [--data DIR] [--epochs 8] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--model", type=Path, default=SHARED / "models" / "mobilenet_v2_1.0_224")
    parse.add_argument("--data", type=Path, default=SHARED / "data" / "ants_bees")
    parse.add_argument("--epochs", type=int, default=8)
    parse.add_argument("--rounds", type=int, default=3)
    given = parse.parse_args()
    if not given.model.is_dir() or not given.data.is_dir():
        print(f"skipped: {given.model} or {given.data} is absent")
        return 0
    with tempfile.TemporaryDirectory() as place:
        os.environ["REGRAFT_CACHE"] = str(Path(place) / "cache")
        return race(given, Path(place))


def race(given: argparse.Namespace, place: Path) -> int:
    from regraft.api import choose_task, find_provider
    from regraft.data.open import card, open_data
    from regraft.kit import durable, hardware, shelf
    from regraft.kit.store import Folder
    from regraft.planner import survey
    from regraft.planner.propose import propose
    from regraft.planner.race import Course
    from regraft.waist import Facts, Finished

    data = open_data(given.data)
    view = find_provider(str(given.model)).load(str(given.model))
    encode = shelf.find("modalities", data.modality).encoder(view.inputs, True)
    machine = survey.machine(view, data, encode, "fp32")
    facts = Facts(card(data), survey.backbone(view, "bench"), machine)
    (plan,) = propose(facts, ["probe"], [("probe.epochs", str(given.epochs))])
    ratios, seconds = [], {True: [], False: []}
    for number in range(given.rounds):
        made = {}
        for cached in (True, False) if number % 2 else (False, True):
            durable.remove(hardware.cache_folder())
            course = Course(
                view, data, choose_task(data), encode, machine, Folder(place / f"{number}-{cached}"), 0, cached
            )
            start = time.perf_counter()
            trial = next(e.trial for e in course.trial(0, plan) if isinstance(e, Finished))
            seconds[cached].append(time.perf_counter() - start)
            made[cached] = (course.folder.path / trial.snapshot).read_bytes(), trial.scores
        assert made[True] == made[False], "cached and uncached heads differ"
        ratios.append(seconds[False][-1] / seconds[True][-1])
        print(
            f"round {number + 1}: plain {seconds[False][-1]:.1f} s, cached {seconds[True][-1]:.1f} s", file=sys.stderr
        )
    rows = len(data.train) * given.epochs + len(data.val) * (given.epochs + 1) + len(data.test)
    bound = rows / (len(data.train) + len(data.val) + len(data.test))
    print(f"{machine.processor}, {machine.threads} threads, {given.epochs} epochs, heads equal bit for bit")
    print(
        f"plain / cached: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
        f"bound {bound:.2f} trunk passes to one"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
