"""Bench 4: 24 trials on growing data, the shape of Nautilus' FTU, against 24 independent runs and keeping everything.

A ResNet-50 of 112 pixels with random weights, its last 1 to 4 residual blocks trained with the head, batches of 8 and
16, three rates, 3 epochs; 24 more pictures of ants_bees to train on in each of 4 cycles, 24 to validate on. regraft
runs each cycle as a race would with every trial to its end, on one cache. Independent runs are the plain loop that
tutorials write; a rate does not change what a trial takes, so one of three is run and counts three times. Keeping
everything is regraft where every frontier on the way is stored (Nautilus' MAT-ALL).

Asserted first: weights of all trials of the last cycle are those of runs without a cache, bit for bit, and those of all
cycles are equal where everything is kept; losses of the plain loops are those of regraft within 0.01. With f the frozen
share of a trial's FLOP, N rows to train on and M to validate on in a cycle, T to test on, E epochs, the limit is the
sum over trials and cycles of E (N (f + 3 (1 - f)) + M) + M + T over that of (1 - f) (E (3 N + M) + M + T), and one pass
of all rows below the highest frontier. That counts FLOP alone. `limit by seconds` beside it is the loops' time over
what is left of it without the passes below frontiers, which are timed on the loops' batches: weights that are updated
take time whatever is frozen. `all in` is the race as it is, with `--precision auto`: of a family's three rates one goes
on from a third of its epochs, and a training step is φ times as fast.

Regret is measured on MobileNetV2 with its real weights and all of ants_bees: the test accuracy of the trial that the
race chose, against that of the one that is best on validation among all 24 run to their ends; over seeds.

    python bench/growing.py [--quick] [--rounds 3] [--seeds 5] [--again]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peers
import torch
import works
from results import SHARED, Comparison, keep, measured, ratios, turns
from torch import nn

from regraft.data.open import card, open_data
from regraft.engine.trunks import Trunks
from regraft.kit import durable, hardware
from regraft.kit.store import Folder
from regraft.planner import survey
from regraft.planner.clock import Clock
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.race import Race
from regraft.planner.request import prepare
from regraft.providers.module import ASSUMED
from regraft.waist import Budget, Facts, Finished, MachineCard, Options, Plan, Reading, Trial

DEPTHS, BATCHES, RATES, EPOCHS = (1, 2, 3, 4), (8, 16), (1e-3, 3e-4, 3e-3), 3
CYCLES, MORE = 4, 24
REUSE, ALL_IN, LOOPS, EVERYTHING = "regraft, reuse alone", "regraft, all in", "independent runs", "keeping everything"
GOAL = 2.7


class Pictures(nn.Sequential):
    """Layers one after the other, with an answer as networks of transformers give it."""

    def forward(self, given: Any) -> Any:
        return SimpleNamespace(logits=super().forward(given))


def resnet50() -> Pictures:
    """ResNet-50 as a row of its residual blocks, with random weights."""
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.resnet50(weights=None, num_classes=2)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    blocks = [block for layer in (net.layer1, net.layer2, net.layer3, net.layer4) for block in layer]
    return Pictures(stem, *blocks, net.avgpool, nn.Flatten(), net.fc).eval()


@dataclasses.dataclass
class Grown:
    """All rows and all plans; `cycle(i)` is a course over what there is of them by then.

    Of so many `rates` that follow each other in the plans the loops run one; `work(course, plan)` is what they do.
    """

    course: Course
    plans: list[Plan]
    cycles: int
    place: Path
    work: Callable[[Course, Plan], peers.Work]
    more: int = MORE
    rates: int = len(RATES)

    def cycle(self, number: int, cached: bool = True, seed: int = 0) -> Course:
        data, folder = self.course.data, Folder(Path(tempfile.mkdtemp(dir=self.place)))
        data = dataclasses.replace(data, train=data.train[: self.more * (number + 1)])
        return dataclasses.replace(self.course, data=data, folder=folder, seed=seed, cached=cached)

    def run(self, cached: bool = True, numbers: Sequence[int] = ()) -> list[list[tuple[Trial, bytes]]]:
        """Every plan to its end in every cycle or these, from an empty cache; a trial with the bytes of its weights."""
        durable.remove(hardware.cache_folder())
        made = []
        for number in numbers or range(self.cycles):
            course = self.cycle(number, cached)
            course.trunks.expect(self.plans)
            found = []
            for i, plan in enumerate(self.plans):
                trial = next(event.trial for event in course.trial(i, plan) if isinstance(event, Finished))
                found.append((trial, (course.folder.path / trial.snapshot).read_bytes()))
            made.append(found)
            durable.remove(course.folder.path)
        return made

    def everything(self) -> list[list[tuple[Trial, bytes]]]:
        """The same with every frontier stored on the way."""
        kept, Trunks._kept_below = Trunks._kept_below, lambda _own, _view, k, _rows: list(range(1, k))  # type: ignore
        try:
            return self.run()
        finally:
            Trunks._kept_below = kept  # type: ignore[method-assign]

    def raced(self) -> list[Race]:
        """The race of all plans in every cycle, from an empty cache, with whatever computes fastest here."""
        durable.remove(hardware.cache_folder())
        cycles = [self.cycle(number) for number in range(self.cycles)]
        return [race(dataclasses.replace(one, machine=self.fast), self.plans) for one in cycles]

    @functools.cached_property
    def fast(self) -> MachineCard:
        """The machine of a race where exactness is not asked for."""
        return survey.machine(self.course.view, self.course.data, self.course.encoder, "auto")

    def loops(self) -> tuple[list[peers.Made], float]:
        """The plain loop for one rate of each kind of plan in every cycle, and its seconds times the rates."""
        begun, made = time.perf_counter(), []
        for number in range(self.cycles):
            for plan in self.plans[:: self.rates]:
                made.append(peers.plain(self.work(self.cycle(number), plan)))
        return made, self.rates * (time.perf_counter() - begun)

    @functools.cached_property
    def limit(self) -> float:
        """How many times less work there is with each row through the trunk once."""
        rows = {name: len(getattr(self.course.data, name)) for name in ("val", "test")}
        every = sum(stage.flops for stage in self.course.view.stages)
        m, t, e = rows["val"], rows["test"], EPOCHS
        whole = own = highest = 0.0
        for plan in self.plans:
            flops = [stage.flops for stage in self.course.view.pooled(plan.reading).stages]
            f, above = sum(flops[: plan.trunk]) / every, sum(flops[plan.trunk :]) / every
            highest = max(highest, f)
            for n in (self.more * (i + 1) for i in range(self.cycles)):
                whole += e * (n * (f + 3 * above) + (f + above) * m) + (f + above) * (m + t)
                own += above * (e * (3 * n + m) + m + t)
        return whole / (own + highest * (self.more * self.cycles + m + t))

    def spared(self) -> float:
        """Seconds that loops spend below frontiers, less those of one pass of every row below the highest frontier."""
        rows = {name: len(getattr(self.course.data, name)) for name in ("val", "test")}
        m, t, e = rows["val"], rows["test"], EPOCHS
        timed: dict[tuple[int, int], float] = {}
        every = highest = 0.0
        for plan in self.plans:
            if (at := (plan.trunk, plan.batch)) not in timed:
                timed[at] = self._row_s(*at)
            highest = max(highest, timed[at])
            for n in (self.more * (i + 1) for i in range(self.cycles)):
                every += timed[at] * (e * (n + m) + m + t)
        return every - highest * (self.more * self.cycles + m + t)

    def _row_s(self, k: int, batch: int) -> float:
        """Seconds of a row on its way to frontier k in a batch of so many."""
        view, rows = self.course.view, self.course.data.train[:batch]
        (side,) = self.course.table(view, 0, rows).batch(list(range(len(rows))))
        took = []
        with torch.no_grad():
            for _ in range(3):
                begun = time.perf_counter()
                view.run(side.state.inputs, stop=k)
                took.append(time.perf_counter() - begun)
        return min(took) / len(rows)


def race(course: Course, plans: Sequence[Plan]) -> Race:
    """All plans raced: rates of a family against each other, none left out because it is behind another family."""
    made = Race(course, plans, Budget(), Clock(course.folder, 0.0, time.monotonic()), named=True)
    for _ in made.run():
        pass
    return made


def main() -> int:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--quick", action="store_true", help="one cycle, two depths, one round and seed")
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--seeds", type=int, default=5)
    parse.add_argument("--again", action="store_true")
    given = parse.parse_args()
    if given.quick:
        given.rounds = given.seeds = 1
    if not (SHARED / "data/ants_bees").is_dir():
        print("skipped: ants_bees is absent")
        return 0
    with tempfile.TemporaryDirectory() as place:
        os.environ["REGRAFT_CACHE"] = str(Path(place) / "cache")
        speed(given, Path(place))
        regret(given, Path(place))
    return 0


def opened(model: Any, place: Path, few: bool, depths: Sequence[int], seed: int = 0) -> tuple[Course, list[Plan]]:
    """A course over ants_bees and the plans: by depth, batch size and rate; `few` rows to grow by, or all."""
    reading = Reading()
    data = open_data(str(SHARED / "data/ants_bees"), seed, reading)
    if few:
        some = {"train": MORE * CYCLES, "val": MORE, "test": 8}
        mixed = {name: sorted(getattr(data, name), key=lambda row: row.key)[:count] for name, count in some.items()}
        data = dataclasses.replace(data, **mixed)
    view, encoder, task = prepare(Options(str(data), "model", reading), data, model)
    machine = survey.machine(view, data, encoder, "fp32")
    facts = Facts(card(data), survey.backbone(view, "bench"), machine)
    plans = []
    for depth in depths:
        for batch in BATCHES:
            for lr in RATES:
                knobs = {"depth": depth, "batch": batch, "lr": lr, "epochs": EPOCHS, "patience": EPOCHS}
                plans += propose(facts, ["partial"], [(f"partial.{name}", str(value)) for name, value in knobs.items()])
    course = Course(view, data, task, encoder, machine, Folder(place / f"course-{seed}"), seed)
    return course, plans


def speed(given: argparse.Namespace, place: Path) -> None:
    """Reuse alone and all in, against independent runs and keeping everything."""
    work = f"24 trials in {CYCLES} cycles, ResNet-50 of 112 pixels"
    if not given.again and all(measured(4, work, REUSE, other) for other in (LOOPS, EVERYTHING)):
        print(f"{work}: measured already")
        return
    # the depth counts blocks and what is behind them: pooling and flattening hold no weights
    course, plans = opened(
        (resnet50(), dataclasses.replace(ASSUMED, shape=(3, 112, 112), settings=())), place, True, _depths(given)
    )

    def loop(course: Course, plan: Plan) -> peers.Work:
        return dataclasses.replace(works.Bench(course, plan, Path(), place).work(), body=resnet50)

    grown = Grown(course, plans, 1 if given.quick else CYCLES, place, loop)
    compared(4, work, grown, given, functools.partial(_goals, grown))


def _goals(grown: Grown, halving: float) -> tuple[float, float]:
    """The goals by reuse alone and all in: of Nautilus' limit of 2.85 at this work's; 0.7 of what halving gives."""
    return GOAL * grown.limit / 2.85, 0.7 * grown.limit * halving


def compared(
    number: int, work: str, grown: Grown, given: argparse.Namespace, goals: Callable[[float], tuple[float, float]]
) -> None:
    """The four sides in turns; no time of a round is told before its weights and losses were found equal."""
    (bare,) = grown.run(cached=False, numbers=[grown.cycles - 1])
    took: list[float] = []
    gaps: list[float] = []
    ran: list[int] = []

    def check(made: dict[str, Any]) -> None:
        ours, every = ([[w for _, w in cycle] for cycle in made[side]] for side in (REUSE, EVERYTHING))
        assert ours[-1] == [w for _, w in bare], "weights with and without the cache differ"
        assert ours == every, "weights differ by what is kept"
        ran.append(sum(len(trial.curve) for one in made[ALL_IN] for trial in one.trials))
        loops, seconds = made[LOOPS]
        for loop, (trial, _) in zip(loops, (t for c in made[REUSE] for t in c[:: grown.rates]), strict=True):
            ours = peers.Made([line.train_loss for line in trial.curve], [line.val_loss for line in trial.curve])
            gaps.append(peers.gap(loop, ours))
        assert max(gaps) < works.CLOSE, f"losses differ by {max(gaps):.1g}"
        took.append(seconds)

    sides = {REUSE: grown.run, ALL_IN: grown.raced, LOOPS: grown.loops, EVERYTHING: grown.everything}
    seconds = turns(sides, given.rounds, check)
    seconds[LOOPS] = took
    halving = len(grown.plans) * EPOCHS * grown.cycles / ran[0]
    alone, all_in = goals(halving)
    pace, spared = works.fastest(grown.course), grown.spared()
    loops_s = statistics.median(took)
    stages = len(grown.course.view.stages)
    gain = pace.phi if any(plan.trunk < stages for plan in grown.plans) else 1.0
    for side, other, goal, limit in (
        (REUSE, LOOPS, alone, grown.limit),
        (REUSE, EVERYTHING, 1.0, 0.0),
        (ALL_IN, LOOPS, all_in * gain, grown.limit * halving * gain),
    ):
        more = {"seconds": seconds, "epochs of all trials over epochs that the race ran": round(halving, 3)}
        more["limit by seconds, reuse alone"] = round(loops_s / (loops_s - spared), 2)
        what = "weights of the last cycle without the cache, and keeping all, bit for bit; losses of the plain loops"
        told = {"what": what, "difference": f"none; {max(gaps):.1g} at most"}
        rest = {"equal": told, "quick": given.quick, "more": more, "rho": pace.rho, "phi": pace.phi}
        found, bound = ratios(seconds, side, other), round(limit, 2)
        keep(Comparison(number, work, side, other, found, round(goal, 2), bound, **rest))


def _depths(given: argparse.Namespace) -> tuple[int, ...]:
    return DEPTHS[:2] if given.quick else DEPTHS


def regret(given: argparse.Namespace, place: Path) -> None:
    """What the race's choice loses against the best of all trials on validation, in test accuracy over seeds."""
    work = f"24 trials, MobileNetV2, ants_bees, {given.seeds} seeds"
    if not works.MOBILENET.is_dir() or (measured(4, work, ALL_IN, "all trials to their ends") and not given.again):
        print(f"{work}: measured already, or its model is absent")
        return
    lost, speeds, n = [], [], 0
    for seed in range(given.seeds):
        course, plans = opened(str(works.MOBILENET), place, False, _depths(given), seed)
        chosen = []
        for run in (_all_to_the_end, race):
            durable.remove(hardware.cache_folder())
            folder = Folder(Path(tempfile.mkdtemp(dir=place)))
            begun = time.perf_counter()
            trials = run(dataclasses.replace(course, folder=folder), plans).trials
            seconds = time.perf_counter() - begun
            whole = [trial for trial in trials if trial.whole]
            best = max(whole, key=lambda t: (t.score("val").value, -min(line.val_loss for line in t.curve)))
            chosen.append((best.score("test").value, seconds, best.label))
            n = best.score("test").n
            durable.remove(folder.path)
        (full, all_s, first), (ours, own_s, second) = chosen
        lost.append(100 * (full - ours))
        speeds.append(all_s / own_s)
        print(f"  seed {seed}: all {first} {full:.3f} in {all_s:.0f} s, race {second} {ours:.3f} in {own_s:.0f} s",
              file=sys.stderr, flush=True)  # fmt: skip
    mean = statistics.mean(lost)
    spread = 196 * (2 * 0.05 * 0.95 / n) ** 0.5
    assert mean <= max(0.5, spread), f"the race's choice loses {mean:.2f} points on test, {lost}"
    told = {"what": "points of test accuracy lost by the race's choice, mean over seeds", "difference": round(mean, 2)}
    more = {"lost": lost, "interval of one difference": round(spread, 2)}
    pace = works.fastest(course)
    whole = "all trials to their ends"
    keep(Comparison(4, work, ALL_IN, whole, speeds, 1.0, 0.0, told, given.quick, more, pace.rho, pace.phi))


def _all_to_the_end(course: Course, plans: Sequence[Plan]) -> Any:
    """Every plan to its end on one cache."""
    course.trunks.expect(plans)
    runs = (event for i, plan in enumerate(plans) for event in course.trial(i, plan))
    return SimpleNamespace(trials=[event.trial for event in runs if isinstance(event, Finished)])


if __name__ == "__main__":
    sys.exit(main())
