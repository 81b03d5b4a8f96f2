"""One plan from files: a plain loop that runs the frozen trunk in every epoch, against the trunk run once.

Both sides train the same plan with the same batches in one process; the weights must be equal bit for bit before a time
is printed. The bound is the number of epochs: the trunk's share of the work falls from E passes to one.

    python bench/probe.py [--model MODEL] [--data PATH] [--strategy probe] [--epochs 8] [--max-rows 0] [--rounds 3]
    python bench/probe.py --model minilm --data ../shared/data/trec_questions --max-rows 500
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
    parse.add_argument("--model", default=str(SHARED / "models" / "mobilenet_v2_1.0_224"))
    parse.add_argument("--data", default=str(SHARED / "data" / "ants_bees"))
    parse.add_argument("--strategy", default="probe")
    parse.add_argument("--epochs", type=int, default=8)
    parse.add_argument("--max-rows", type=int, default=0)
    parse.add_argument("--rounds", type=int, default=3)
    given = parse.parse_args()
    if not Path(given.data).exists():
        print(f"skipped: {given.data} is absent")
        return 0
    with tempfile.TemporaryDirectory() as place:
        os.environ["REGRAFT_CACHE"] = str(Path(place) / "cache")
        return race(given, Path(place))


def race(given: argparse.Namespace, place: Path) -> int:
    from regraft.data.open import card, open_data
    from regraft.kit import durable, hardware
    from regraft.kit.store import Folder
    from regraft.planner import survey
    from regraft.planner.course import Course
    from regraft.planner.propose import propose
    from regraft.planner.request import prepare
    from regraft.waist import Facts, Finished, Options, Reading

    reading = Reading(max_rows=given.max_rows)
    data = open_data(given.data, 0, reading)
    view, encoder, task = prepare(Options(given.data, given.model, reading), data, given.model)
    machine = survey.machine(view, data, encoder, "fp32")
    facts = Facts(card(data), survey.backbone(view, "bench"), machine)
    plan = propose(facts, [given.strategy], [(f"{given.strategy}.epochs", str(given.epochs))])[0]
    ratios, seconds = [], {True: [], False: []}
    for number in range(given.rounds):
        made = {}
        for cached in (True, False) if number % 2 else (False, True):
            durable.remove(hardware.cache_folder())
            course = Course(view, data, task, encoder, machine, Folder(place / f"{number}-{cached}"), 0, cached)
            start = time.perf_counter()
            trial = next(e.trial for e in course.trial(0, plan) if isinstance(e, Finished))
            seconds[cached].append(time.perf_counter() - start)
            made[cached] = (course.folder.path / trial.snapshot).read_bytes(), trial.scores
        assert made[True] == made[False], "cached and uncached weights differ"
        ratios.append(seconds[False][-1] / seconds[True][-1])
        print(
            f"round {number + 1}: plain {seconds[False][-1]:.1f} s, cached {seconds[True][-1]:.1f} s", file=sys.stderr
        )
    ran = len(trial.curve)
    rows = len(data.train) * ran + len(data.val) * (ran + 1) + len(data.test)
    bound = rows / (len(data.train) + len(data.val) + len(data.test))
    print(f"{machine.processor}, {machine.threads} threads, {plan.label}, {ran} epochs, weights equal bit for bit")
    print(
        f"plain / cached: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
        f"bound {bound:.2f} trunk passes to one"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
