"""Bench 14: the race, Optuna and random search at equal cost, all of them replayed from the oracle's table.

oracle.py has run eleven plans at two rates each to their ends, on eight pairs of data and network. Here each side may
spend a share of what that cost, and reads what it learns off the recorded epochs: the race is `planner.race.Race`,
under a clock that counts forward equivalents in place of seconds; Optuna (TPE with its median pruner) and random search
choose among the same plans and rates, and count the same way. Each side takes the trial with the best deciding metric
on validation, of equal ones that with the lowest loss. Regret is the test accuracy of the oracle's best less that of
the choice, in points, with a paired bootstrap over the test rows (95 %), as in advice.py. A choice holds where it loses
at most 0.5 points or the interval reaches 0. The goal: 10 % of the oracle's cost, and the race holds on 7 of 8 pairs.

A forward equivalent is a pass of one row through the whole network. With f the share of a pass's FLOP below the
frontier, an epoch on N rows with M to validate on costs (1 - f) (3 N + M), and rows go once through what is frozen:
all sides read one cache, though Optuna's users have none. The oracle's cost is that of loops without a cache. What
Optuna and random search would have spent so is told beside it.

What the table lacks: a plan that a budget cuts to fewer epochs is read off the first epochs of the whole one, whose
rate has not fallen by then; a trial that is ended before its best epoch answers as the whole one does, but for so many
right answers, drawn at random, as its metric is lower by. Trials that a race makes of its leader (other knobs,
averages, a part of the way) are not in the table, and are left out.

Optuna comes from PyPI (uv pip install optuna), and is left out where it is absent. Pairs that the oracle has not done
are left out; what is kept is marked as quick until all are there.

    python bench/replay.py [--seeds 20] [--pair NAME] [--again]
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import torch
from advice import UNIT, best, lost
from oracle import PAIRS, Opened, Pair
from results import Comparison, keep, measured
from safetensors.torch import save_file

from regraft.engine.predict import share_interval
from regraft.errors import Diverged
from regraft.kit.store import Folder
from regraft.planner.clock import Clock
from regraft.planner.course import Course
from regraft.planner.families import families
from regraft.planner.propose import effort
from regraft.planner.race import Race
from regraft.waist import Budget, Cost, Epoch, Event, Filled, Finished, Plan, Score, Scored, Trial, fingerprint

SIDE, OPTUNA, RANDOM, ORACLE = "the race", "Optuna, median pruner", "random search", "the oracle"
SHARE, SHARES = 0.10, (0.05, 0.10, 0.20, 0.0)
"""Of the oracle's cost, and at which else the sides are looked at; 0 for no bound."""
POINTS, HOLD, WORK = 0.5, 7, f"{len(PAIRS)} pairs of data and network, a tenth of the oracle's cost"
MOST = 200
"""Trials that Optuna may ask for; what it asks for again is free."""


class Spent(Exception):
    """The bound is reached."""


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Row:
    """One trial of the table: its plan, its epochs, its answers."""

    plan: Plan
    curve: tuple[Epoch, ...]
    told: Mapping[str, Any]

    @property
    def best(self) -> int:
        """How many epochs it takes to the one with the lowest loss."""
        return 1 + min(range(len(self.curve)), key=lambda i: self.curve[i].val_loss) if self.curve else 0


@dataclass
class Table:
    """What the oracle knows of a pair, and what a side has spent on it."""

    run: Opened
    held: Mapping[str, Any]
    rows: dict[str, Row]
    allowed: float
    spent: float = 0.0
    plain: float = 0.0
    frozen: dict[str, float] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)

    def share(self, plan: Plan, frontier: int) -> float:
        """The share of a pass below a frontier."""
        flops = [stage.flops for stage in self.run.course.view.pooled(plan.reading).stages]
        return sum(flops[:frontier]) / sum(flops)

    def fill(self, plan: Plan, frontier: int) -> int:
        """Run what is frozen once on all rows; returns how many went through."""
        course, below, place = self.run.course, self.share(plan, frontier), f"{plan.init}/{plan.reading}"
        rows = len(course.data.val) + (len(course.data.train) if plan.start not in ("labels", "names") else 0)
        self.spent += rows * max(0.0, below - self.frozen.get(place, 0.0))
        self.frozen[place] = max(below, self.frozen.get(place, 0.0))
        return rows

    def epoch(self, plan: Plan, line: Epoch) -> None:
        """Pay for an epoch."""
        n, m = len(self.run.course.data.train), len(self.run.course.data.val)
        below = self.share(plan, plan.phases[line.phase].frontier)
        if not plan.optimizer.whole:
            self.spent += (1 - below) * (3 * n + m)
        self.plain += n * (below + 3 * (1 - below)) + m

    def bound(self) -> None:
        """Raises: Spent: all that may be spent is."""
        if self.allowed and self.spent > self.allowed:
            self.spent = self.allowed
            raise Spent

    def upto(self, name: str, plan: Plan) -> tuple[Epoch, ...]:
        """The epochs of a plan, cut where it has fewer than the recorded one."""
        curve = self.rows[name].curve
        counts = [phase.epochs for phase in plan.phases]
        seen = [sum(line.phase == one.phase for line in curve[:i]) for i, one in enumerate(curve)]
        return tuple(one for one, before in zip(curve, seen, strict=True) if before < counts[one.phase])

    def answers(self, name: str, epochs: Sequence[Epoch]) -> tuple[dict[str, str], float]:
        """What a trial answers after these epochs of its own, and its mean loss on validation; see above."""
        row, truth = self.rows[name], self.held["truth"]
        whole = {split: str(row.told["answers"][split]) for split in truth}
        if not row.curve or len(epochs) >= row.best:
            return whole, float(row.told["loss"]["val"])
        line = min(epochs, key=lambda one: one.val_loss)
        at = row.curve[row.best - 1].metric
        part = min(1.0, line.metric / at) if at else 1.0
        return {split: spoiled(made, truth[split], part, name) for split, made in whole.items()}, line.val_loss


def spoiled(answers: str, truth: str, part: float, seed: str) -> str:
    """Answers of which this part of the right ones is left."""
    right = [i for i, (a, b) in enumerate(zip(answers, truth, strict=True)) if a == b]
    gone = random.Random(seed).sample(right, round((1 - part) * len(right)))
    wrong = {i: str((int(truth[i]) + 1) % (1 + int(max(truth)))) for i in gone}
    return "".join(wrong.get(i, a) for i, a in enumerate(answers))


def table(run: Opened, held: Mapping[str, Any], allowed: float) -> Table:
    """The table of a pair, its plans as the oracle makes them."""
    plans = {fingerprint(plan): plan for _, plan in oracle.plans(run.facts, run.pair.plans)}
    rows = {
        one["label"]: Row(plans[oracle.mark_of(one)], tuple(Epoch(*line) for line in one.get("curve", ())), one)
        for one in held["trials"]
    }
    return Table(run, held, rows, allowed)


# ---------------------------------------------------------------- the race


class Told(Clock):
    """A clock that counts forward equivalents."""

    def __init__(self, folder: Folder, known: Table) -> None:
        self.known = known
        super().__init__(folder, known.allowed, 0.0)

    def now(self) -> float:
        return self.known.spent


@dataclass
class Recorded(Course):
    """A course whose trials are read off a table."""

    known: Table | None = None
    ran: dict[str, list[Epoch]] = field(default_factory=dict)
    ended: dict[str, Trial] = field(default_factory=dict)

    def trial(self, number: int, plan: Plan) -> Generator[Event]:
        if (held := self.ended.get(plan.label)) is not None:
            yield Finished(held)
            return
        assert self.known is not None
        known, done = self.known, self.ran.setdefault(plan.label, [])
        row, curve = known.rows[plan.label], known.upto(plan.label, plan)
        for frontier in dict.fromkeys(phase.frontier for phase in plan.phases):
            rows = known.fill(plan, frontier)
            yield Filled(frontier, rows, rows)
        while len(done) < len(curve):
            known.epoch(plan, curve[len(done)])
            done.append(curve[len(done)])
            yield Scored(done[-1])
        if "failed" in row.told:
            known.spent += float(row.told["equivalents"])
            raise Diverged(row.told["failed"], saw=plan.label)
        if not curve:
            known.plain += float(row.told["equivalents"])
        yield Finished(self._made(plan))

    def curve(self, number: int, plan: Plan) -> tuple[Epoch, ...]:
        return tuple(self.ran.get(plan.label, ()))

    def finished(self, number: int, plan: Plan) -> Trial | None:
        return self.ended.get(plan.label)

    def conclude(self, number: int, plan: Plan, why: str) -> Trial:
        return self.ended.get(plan.label) or self._made(plan, why)

    def stop(self, number: int, plan: Plan, why: str, seen: Trial | None = None) -> Trial:
        return self.ended.get(plan.label) or self._made(plan, why, lost=True)

    def _made(self, plan: Plan, why: str = "", lost: bool = False) -> Trial:
        """The trial with what it answers after the epochs that it ran."""
        assert self.known is not None
        curve, truth, metric = self.ran[plan.label], self.known.held["truth"], self.task.metrics[0]
        said, loss = self.known.answers(plan.label, curve)
        made = {split: outputs(said[split], truth[split], loss, len(self.known.held["labels"])) for split in said}
        path = f"{fingerprint(plan)[:16]}.safetensors"
        save_file(made, self.folder.path / path)
        value = metric.fn(self.task.decode(made["val"])[metric.takes], np.array([*map(int, truth["val"])]), None)
        low, high = share_interval(value, len(truth["val"])) if metric.proportion else (value, value)
        score = Score(metric.name, "val", value, low, high, len(truth["val"]), metric.better)
        cost = Cost(0.0, int(self.known.rows[plan.label].told["trainable"]))
        files = ("", "") if lost else (path, path)
        self.ended[plan.label] = Trial(plan, self.seed, (score,), tuple(curve), cost, *files, stopped=why)
        return self.ended[plan.label]


class Replayed(Race):
    """A race that leaves out what it would make of its leader: that is not in the table."""

    def after(self) -> Iterator[Event]:
        yield from ()


def outputs(answers: str, truth: str, loss: float, classes: int) -> torch.Tensor:
    """Outputs [N, C] that give these answers at this mean loss: equal for all right rows, and for all wrong ones."""
    wrong = sum(a != b for a, b in zip(answers, truth, strict=True)) / len(truth)
    least, most = 1e-4, 0.9 * math.log(classes)
    high = math.log(classes) + 0.01
    low = (loss - wrong * high) / (1 - wrong) if wrong < 1 else most
    if not least <= low <= most:
        low = min(max(low, least), most)
        high = max(high, (loss - (1 - wrong) * low) / wrong) if wrong else high
    sure = -math.log(math.expm1(low) / (classes - 1))
    made = torch.zeros(len(truth), classes)
    for i, (a, b) in enumerate(zip(answers, truth, strict=True)):
        made[i, int(a)] = sure if a == b else math.log(math.exp(high) - (classes - 1))
    return made


def raced(known: Table) -> dict[str, str]:
    """The race under a table's bound: the answers that it chooses."""
    run = known.run
    with tempfile.TemporaryDirectory() as place:
        machine = dataclasses.replace(run.course.machine, forward_s=1.0)
        whole = {f.name: getattr(run.course, f.name) for f in dataclasses.fields(Course) if f.init}
        course = Recorded(**(whole | {"machine": machine, "folder": Folder(Path(place)), "cached": False}), known=known)
        kinds = families([row.plan for row in known.rows.values()], 0)
        kinds.sort(key=lambda family: effort(family[0][1], run.facts))
        plans = [plan for family in kinds for _, plan in family]
        race = Replayed(course, plans, Budget(seconds=known.allowed), Told(course.folder, known), named=False)
        for _ in race.run():
            pass
        lead = race.trials[race.field().lead()]
        return known.answers(lead.plan.label, lead.curve)[0] | {"label": lead.label}


# ---------------------------------------------------------------- the other sides


def tried(known: Table, name: str, told: Callable[[int, float], bool] = lambda *_: False) -> tuple[Epoch, ...]:
    """Run a trial to its end, or until `told` of an epoch and its metric says stop; epochs known already are free.

    Raises: Spent: within an epoch.
    """
    row = known.rows[name]
    for frontier in dict.fromkeys(phase.frontier for phase in row.plan.phases):
        known.fill(row.plan, frontier)
    if not row.curve and name not in known.known:
        known.plain += float(row.told["equivalents"])
    known.known.setdefault(name, 0)
    for i, line in enumerate(row.curve):
        if i >= known.known[name]:
            known.epoch(row.plan, line)
            known.bound()
            known.known[name] = i + 1
        if told(i, line.metric):
            return row.curve[: i + 1]
    known.bound()
    return row.curve


def chosen(known: Table, ended: Sequence[str]) -> dict[str, str]:
    """Of trials that came to their ends the best; of those that were begun where none did."""
    whole = list(dict.fromkeys(ended)) or list(known.known)
    metric = known.run.course.task.metrics[0]

    def worth(name: str) -> tuple[float, float]:
        row = known.rows[name]
        said, loss = known.answers(name, row.curve[: known.known[name]])
        made = outputs(said["val"], known.held["truth"]["val"], loss, len(known.held["labels"]))
        y = np.array([*map(int, known.held["truth"]["val"])])
        return metric.fn(known.run.course.task.decode(made)[metric.takes], y, None), -loss

    name = max(whole, key=worth)
    return known.answers(name, known.rows[name].curve[: known.known[name]])[0] | {"label": name}


def searched(known: Table, seed: int) -> dict[str, str]:
    """Random search: plans and rates in random order, each to its end."""
    names = [name for name, row in known.rows.items() if "answers" in row.told]
    ended: list[str] = []
    try:
        for name in random.Random(seed).sample(names, len(names)):
            tried(known, name)
            ended.append(name)
    except Spent:
        pass
    return chosen(known, ended)


def tuned(known: Table, seed: int) -> dict[str, str]:
    """Optuna: TPE over plans and rates, with the median pruner as it comes."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plans: dict[str, list[str]] = {}
    for name, row in known.rows.items():
        if "answers" in row.told:
            plans.setdefault(row.told["name"], []).append(name)
    ended: list[str] = []

    def objective(trial: Any) -> float:
        kind = plans[trial.suggest_categorical("plan", list(plans))]
        name = kind[trial.suggest_int("rate", 0, oracle.RATES - 1) % len(kind)]

        def told(i: int, value: float) -> bool:
            trial.report(value, i)
            return bool(trial.should_prune())

        row, curve = known.rows[name], tried(known, name, told)
        if row.curve and len(curve) < len(row.curve):
            raise optuna.TrialPruned
        ended.append(name)
        truth, metric = known.held["truth"]["val"], known.run.course.task.metrics[0]
        made = outputs(row.told["answers"]["val"], truth, row.told["loss"]["val"], len(known.held["labels"]))
        return float(metric.fn(known.run.course.task.decode(made)[metric.takes], np.array([*map(int, truth)]), None))

    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.MedianPruner())
    try:
        while len(study.trials) < MOST and len({*ended}) < len(known.rows):
            study.optimize(objective, n_trials=1)
    except Spent:
        pass
    return chosen(known, ended)


# ---------------------------------------------------------------- all of it


def one(run: Opened, held: Mapping[str, Any], side: Callable[[Table], dict[str, str]], share: float) -> dict[str, Any]:
    """What a side chooses at a share of the oracle's cost, what it loses, and what it spent."""
    whole = sum(float(trial["equivalents"]) for trial in held["trials"])
    known = table(run, held, share * whole)
    answers = side(known)
    first, truth = best(held["trials"], held["truth"]), held["truth"]["test"]
    points, low, high = lost(first, {"answers": answers}, truth)
    return {
        "trial": answers["label"],
        "points": points,
        "interval": [low, high],
        "holds": points <= POINTS or low <= 0,
        "cost": round(known.spent / whole, 4),
        "without a cache": round(known.plain / whole, 4),
    }


def spread(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a side does over its seeds: medians, the middle half of what it loses, how often it holds."""
    points = sorted(float(made["points"]) for made in found)
    told = {"points": statistics.median(points), "holds": statistics.mean(made["holds"] for made in found)}
    told["quartiles"] = [round(float(np.percentile(points, at)), 2) for at in (25, 75)]
    return told | {name: statistics.median(made[name] for made in found) for name in ("cost", "without a cache")}


def row_of(pair: Pair, place: Path, seeds: int) -> dict[str, Any] | None:
    """All sides on one pair at all shares; None where the oracle is not done."""
    found = oracle.read(pair)
    if len(found.get("trials", ())) < found.get("of", 1):
        print(f"{pair.name}: the oracle is not done: python bench/oracle.py --pair {pair.name}")
        return None
    run = oracle.opened(pair, place)
    if (held := oracle.done(run)) is None:
        return None
    first = best(held["trials"], held["truth"])
    made: dict[str, Any] = {"pair": pair.name, "best": first["label"], "rows": held["rows"]}
    made["passes"] = round(sum(float(trial["equivalents"]) for trial in held["trials"]))
    others = {RANDOM: searched} | ({OPTUNA: tuned} if importlib.util.find_spec("optuna") else {})
    for share in SHARES:
        at = {SIDE: one(run, held, raced, share)}
        for name, work in others.items() if share else ():
            at[name] = spread([one(run, held, lambda known, s=seed: work(known, s), share) for seed in range(seeds)])  # noqa: B023
        made[f"{share:.0%}" if share else "no bound"] = at
    return made


def lines(row: Mapping[str, Any]) -> list[str]:
    """A pair in lines."""
    told = [f"{row['pair']}: the oracle's best is {row['best']}, {row['passes']:,} passes"]
    for share in (f"{share:.0%}" if share else "no bound" for share in SHARES):
        for name, made in row[share].items():
            over = "[{:+.1f}, {:+.1f}]".format(*made.get("interval", made.get("quartiles")))
            holds = f"holds {made['holds']:.0%}" if name != SIDE else "holds" if made["holds"] else "does not hold"
            cost = f"cost {made['cost']:.1%} ({made['without a cache']:.1%} without a cache)"
            what = f"{name}: loses {made['points']:+.1f} {over}, {holds}, {cost} {made.get('trial', '')}"
            told.append(f"  {share:>8}  {what}".rstrip())
    return told


def main() -> int:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--quick", action="store_true", help="three seeds; nothing is kept")
    parse.add_argument("--seeds", type=int, default=20, help="of Optuna and of random search")
    parse.add_argument("--pair", default="", help="this one alone; nothing is kept")
    parse.add_argument("--again", action="store_true", help="measure what is measured already")
    given = parse.parse_args()
    pairs = [pair for pair in PAIRS if given.pair in ("", pair.name)]
    if not pairs:
        parse.error(f"no pair is called {given.pair}: there are {', '.join(pair.name for pair in PAIRS)}")
    if measured(14, WORK, SIDE, ORACLE) and not (given.again or given.quick or given.pair):
        print(f"{WORK}: measured already")
        return 0
    if not importlib.util.find_spec("optuna"):
        print("without Optuna, which is absent: uv pip install optuna")
    rows = []
    for pair in pairs:
        with tempfile.TemporaryDirectory() as place:
            if row := row_of(pair, Path(place), 3 if given.quick else given.seeds):
                rows.append(row)
                print("\n".join(lines(row)), flush=True)
    if rows and not (given.quick or given.pair):
        told(rows)
    return 0


def told(rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep how the sides compare at the share of the goal."""
    at = [row[f"{SHARE:.0%}"] for row in rows]
    sides = [name for name in (SIDE, OPTUNA, RANDOM) if name in at[0]]
    held = {name: sum(float(one[name]["holds"]) for one in at) for name in sides}
    means = {name: statistics.mean(one[name]["points"] for one in at) for name in sides}
    counts = "; ".join(f"{name} {held[name]:.3g} of {len(rows)} (mean {means[name]:+.2f})" for name in sides)
    goal = {"goal": f"{HOLD} of {len(PAIRS)} at {SHARE:.0%}", "hold": held[SIDE] >= HOLD}
    equal = {"what": f"choices within {POINTS} points of the oracle's best on test, or inside the interval"}
    ratios = [1 / one[SIDE]["cost"] for one in at]
    more = {"in": UNIT, "reached": goal, "pairs": list(rows)}
    part = len(rows) < len(PAIRS)
    keep(Comparison(14, WORK, SIDE, ORACLE, ratios, 1 / SHARE, 0.0, equal | {"difference": counts}, part, more))


if __name__ == "__main__":
    sys.exit(main())
