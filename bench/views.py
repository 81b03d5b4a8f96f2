"""7: augmentation from a cache of V views, against a loop that varies every picture anew in each epoch.

A `partial` plan with random crops and flips on ants_bees, 60 epochs. The cached side runs the trunk on V views of each
row once; a row shows another of them in each epoch. The other side draws a new view for each row and epoch and runs the
trunk on it: the same engine and steps, without a cache. Its time is that of a run of one epoch, and for each one more
half of what a run of three takes longer: they are all alike. A third side has the cache and computes as is fastest on
the machine at hand (`--precision auto`).

With training that costs nothing the limit would be E / V, and the goal is 0.8 of that. With the seconds t of an epoch
of that loop and c of one on cached views, measured here, it is E t / (V (t - c) + E c). For the fast side the goal is ρ
times as high, and the limit E t / (V (t - c) / ρ + E c / φ). Accuracy is compared over seeds, each side with all its
epochs.

    python bench/views.py [--quick] [--epochs 60] [--views 6] [--seeds 5] [--rounds 3] [--again]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import works
from results import HERE, SHARED, Comparison, keep, measured, ratios, turns

GOAL = 0.8
FEW, MORE = 1, 3
"""Epochs of the side without a cache that are timed."""
SIDES = {"views from the cache": "cache", "views from the cache, fast": "fast"}
OTHER = "new views"


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--epochs", type=int, default=60)
    parse.add_argument("--views", type=int, default=6)
    parse.add_argument("--seeds", type=int, default=5)
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--quick", action="store_true", help="6 epochs of 2 views on 60 rows, one seed, one round")
    parse.add_argument("--again", action="store_true", help="measure what is there already")
    given = parse.parse_args()
    if not SHARED.is_dir():
        print(f"skipped: {SHARED} is absent")
        return 0
    if given.quick:
        given.epochs, given.views, given.seeds, given.rounds = 6, 2, 1, 1
    if (
        not given.again
        and not given.quick
        and all(measured(7, "MobileNetV2, ants_bees", side, OTHER) for side in SIDES)
    ):
        return 0
    with tempfile.TemporaryDirectory() as place:
        race(given, Path(place))
    return 0


def race(given: argparse.Namespace, place: Path) -> None:
    from regraft.waist import Plan

    knobs = {"epochs": given.epochs, "depth": 2, "augment": "crop", "views": given.views}
    data, rows = SHARED / "data" / "ants_bees", 60 if given.quick else 0
    bench = works.open_bench(data, works.MOBILENET, "partial", knobs, place, rows)

    def shortened(plan: Plan, epochs: int) -> Plan:
        """The plan of a loop: a view for each epoch, of which so many are run."""
        (phase,) = plan.phases
        anew = (("how", "crop"), ("views", given.epochs))
        return dataclasses.replace(plan, augment=anew, phases=(dataclasses.replace(phase, stop=epochs),))

    few, more = (dataclasses.replace(bench, plan=shortened(bench.plan, epochs)) for epochs in (FEW, MORE))
    e, v = given.epochs, given.views
    (phase,) = bench.plan.phases
    short = dataclasses.replace(
        bench, plan=dataclasses.replace(bench.plan, phases=(dataclasses.replace(phase, stop=v),))
    )
    fast = bench.fast()
    scores = accuracy(bench, fast, shortened(bench.plan, e), given)
    n = len(bench.course.data.test)
    gaps = {side: [one[i] - one[-1] for one in scores] for i, side in enumerate(SIDES)}
    for side, some in gaps.items():
        spread = 1.96 * statistics.stdev(some) / len(some) ** 0.5 if len(some) > 1 else 0.0
        if statistics.mean(some) < -max(spread, 1 / n):
            raise SystemExit(f"accuracy of {side} is lower than that of new views: {some}")
    sides = {
        "cache": bench.regraft,
        "fast": fast.regraft,
        "short": short.regraft,
        "few": lambda: few.regraft(cached=False),
        "more": lambda: more.regraft(cached=False),
    }
    seconds = turns(sides, given.rounds, lambda _: None)
    each = [(long - short) / (MORE - FEW) for short, long in zip(seconds["few"], seconds["more"], strict=True)]
    seconds["fly"] = [short + (e - FEW) * one for short, one in zip(seconds["few"], each, strict=True)]
    gone = [(whole - part) / (e - v) for whole, part in zip(seconds["cache"], seconds["short"], strict=True)]
    epoch_s, cached_s = statistics.median(each), statistics.median(gone)
    pace, work = works.fastest(fast.course), "MobileNetV2, ants_bees"
    print(f"rho {pace.rho:.2f}, phi {pace.phi:.2f}: {pace.told}; epochs of {epoch_s:.2f} s, cached {cached_s:.2f} s")
    for (name, side), rho, phi in zip(SIDES.items(), (1.0, pace.rho), (1.0, pace.phi), strict=True):
        some = gaps[name]
        mean, least, most = (100 * of(some) for of in (statistics.mean, min, max))
        equal = {
            "what": f"test accuracy over {len(some)} seeds, views less new ones",
            "difference": f"{mean:+.1f} points ({least:+.1f} to {most:+.1f})",
        }
        keep(
            Comparison(
                7,
                work,
                name,
                OTHER,
                ratios(seconds, side, "fly"),
                round(GOAL * rho * e / v, 2),
                round(e * epoch_s / (v * (epoch_s - cached_s) / rho + e * cached_s / phi), 2),
                equal,
                given.quick,
                {"views": v, "epochs": e, "seconds": seconds, "scores": scores},
                pace.rho,
                pace.phi,
            )
        )


def accuracy(bench: works.Bench, fast: works.Bench, fly: object, given: argparse.Namespace) -> list[list[float]]:
    """Test accuracy of the sides for each seed, kept as they come, so that a bench that was stopped goes on."""
    from regraft.kit.store import Folder
    from regraft.waist import Finished

    kept = HERE / f"views-{given.epochs}-{given.views}.json"
    found: list[list[float]] = []
    if kept.is_file() and not given.quick:
        found = json.loads(kept.read_text("utf-8"))
    for seed in range(len(found), given.seeds):
        made = []
        for of, plan, cached in ((bench, bench.plan, True), (fast, bench.plan, True), (bench, fly, False)):
            place = Folder(Path(tempfile.mkdtemp(dir=bench.place)))
            course = dataclasses.replace(of.course, folder=place, seed=seed, cached=cached)
            trial = next(event.trial for event in course.trial(0, plan) if isinstance(event, Finished))
            made.append(trial.score("test").value)
        found.append(made)
        told = "{:.3f} from the cache, {:.3f} fast, {:.3f} new views".format(*made)
        print(f"  seed {seed}: {told}", file=sys.stderr, flush=True)
        if not given.quick:
            kept.write_text(json.dumps(found))
    return found


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
