"""Bench 13: what plans were forecast to take, held against what they took, in 30 runs.

Each run is a process of its own: it opens the data and the network, times a few steps, forecasts the seconds, the most
memory and the trained weights of one plan, then trains it by the engine as a user runs it, without early stopping and
from an empty cache. Kept in bench/price.json as they end, so that a bench that was stopped goes on.

The goals are those of the planner: trained weights exact in all runs, memory within 15 % and seconds within a factor of
1.5 in 27 of them. The ratio is what a plan took over what was forecast, of seconds.

    python bench/price.py [--quick] [--again]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from results import HERE, SHARED, Comparison, keep, measured

KEPT, WORK = HERE / "price.json", "30 plans, seconds"
NEAR, SLOW, ENOUGH = 0.15, 1.5, 0.9
ON = (
    ("ants_bees", "mobilenet_v2_1.0_224", 60),
    ("flowers_sharp", "mobilenet_v1_0.75_224", 70),
    ("steel_defects", "mobilenet_v2_1.0_224_inat_insect", 60),
    ("trec_questions", "all_minilm_l6_v2", 160),
    ("sst2", "all_minilm_l6_v2", 100),
    ("product_reviews_cr", "all_minilm_l6_v2", 120),
)
PLANS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("probe", {"by": "path"}),
    ("probe", {"epochs": 30}),
    ("partial", {"depth": 2, "epochs": 3}),
    ("layerwise", {"epochs": 2}),
    ("full", {"epochs": 2}),
)
RUNS = tuple((*where, *plan) for where in ON for plan in PLANS)


def main() -> int:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--quick", action="store_true", help="the first run of each network; nothing is kept")
    parse.add_argument("--again", action="store_true", help="measure what is measured already")
    parse.add_argument("--one", type=int, default=-1, help=argparse.SUPPRESS)
    given = parse.parse_args()
    if given.one >= 0:
        print(json.dumps(one(*RUNS[given.one])))
        return 0
    if not SHARED.is_dir():
        print(f"skipped: {SHARED} is absent")
        return 0
    if measured(13, WORK, "forecast", "fact") and not (given.again or given.quick):
        print(f"{WORK}: measured already")
        return 0
    held = json.loads(KEPT.read_text("utf-8")) if KEPT.is_file() and not given.again else {}
    found: dict[str, dict[str, Any]] = {}
    for number, run in enumerate(RUNS):
        name = " ".join(map(str, run[:4])) + "".join(f" {knob} {value}" for knob, value in run[4].items())
        if given.quick and number % len(PLANS):
            continue
        found[name] = held.get(name) or _asked(number)
        row = found[name]
        print(
            f"  {name}: {row['seconds'][0]:.1f} s forecast, {row['seconds'][1]:.1f} s; "
            f"{row['bytes'][0] / 1e6:,.0f} MB, {row['bytes'][1] / 1e6:,.0f} MB; "
            f"{row['trained'][0]:,} trained, {row['trained'][1]:,}",
            flush=True,
        )
        if not given.quick:
            KEPT.write_text(json.dumps(found | {k: v for k, v in held.items() if k not in found}, indent=1), "utf-8")
    rows = list(found.values())
    ratios = [row["seconds"][1] / row["seconds"][0] for row in rows]
    memory = [row["bytes"][1] / row["bytes"][0] for row in rows]
    exact = sum(row["trained"][0] == row["trained"][1] for row in rows)
    near = sum(abs(1 / one - 1) <= NEAR for one in memory)
    soon = sum(1 / SLOW <= one <= SLOW for one in ratios)
    told = f"exact in {exact} of {len(rows)}, memory within {NEAR:.0%} in {near}, seconds within {SLOW:g} in {soon}"
    print(told)
    assert exact == len(rows), told
    if not given.quick:
        more = {"reached": near >= ENOUGH * len(rows) and soon >= ENOUGH * len(rows), "runs": found}
        equal = {"what": "trained weights", "difference": told}
        keep(Comparison(13, WORK, "forecast", "fact", ratios, 1.0, 0.0, equal, more=more))
    return 0


def _asked(number: int) -> dict[str, Any]:
    """A run in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", str(number)], capture_output=True, text=True, check=False, env=os.environ
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def one(data: str, model: str, rows: int, strategy: str, knobs: dict[str, Any]) -> dict[str, Any]:
    """Forecast and fact of a plan: seconds, the most bytes, trained weights."""
    import torch
    import works

    from regraft.planner.price import Rate, price
    from regraft.planner.timing import timed
    from regraft.waist import Finished

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as place:
        bench = works.open_bench(SHARED / "data" / data, SHARED / "models" / model, strategy, knobs, Path(place), rows)
        course, plan = bench.course, bench.plan
        foreseen = price(course, plan, timed(course, [plan]), Rate()).cost
        trial = next(event.trial for event in course.trial(0, plan) if isinstance(event, Finished))
    came = trial.cost
    return {
        "seconds": [round(foreseen.seconds, 3), came.seconds],
        "bytes": [foreseen.peak_bytes, came.peak_bytes],
        "trained": [foreseen.trainable, came.trainable],
    }


if __name__ == "__main__":
    sys.exit(main())
