"""Compare two finished runs: their winners paired on the test rows that both have, and what set the runs apart."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from regraft.deliver import runs
from regraft.deliver.runs import Held
from regraft.errors import UsageError
from regraft.kit import store
from regraft.planner.request import choose_task
from regraft.waist import DataCard, MachineCard, Options, Score, Target, Task, Trial, Verdict, plain

RESAMPLES = 2000
FEWEST = 10
"""Below so many common test rows, where not all are common, a paired comparison says nothing."""


@dataclass(frozen=True, slots=True)
class Paired:
    """A metric of both winners on the same n test rows; `gain` is what the second is better by, with its 95 % interval.

    `gain` is above 0 where the second is better, whichever way the metric counts.
    """

    metric: str
    n: int
    a: float
    b: float
    gain: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Side:
    """A finished run as a comparison needs it."""

    path: Path
    options: Options
    data: DataCard
    machine: MachineCard
    trials: tuple[Trial, ...]
    verdict: Verdict
    rows: tuple[Held, ...]

    @property
    def winner(self) -> Trial:
        return self.trials[self.verdict.winner]


@dataclass(frozen=True, slots=True)
class Compared:
    """Two runs side by side; `a` and `b` are their paths, `sentence` says which winner is better, or why none is.

    `scores` are the winners' (metric, first, second) on their own test splits, `paired` is None where `why` says what
    forbids it. The other fields hold (name, first, second) of what differs; costs and checks are told in any case.
    """

    a: str
    b: str
    winners: tuple[str, str]
    sentence: str
    scores: tuple[tuple[str, Score | None, Score | None], ...]
    paired: Paired | None
    why: str
    notes: tuple[str, ...]
    settings: tuple[tuple[str, str, str], ...]
    costs: tuple[tuple[str, float, float], ...]
    checks: tuple[tuple[str, str, str], ...]


def compare(a: str | Path, b: str | Path) -> Compared:
    """Compare the winners of two finished runs.

    Raises: UsageError: one is no finished run, both are the same, or what a run predicted is gone.
    """
    one, other = _side(Path(a)), _side(Path(b))
    if one.path.resolve() == other.path.resolve():
        raise UsageError("a run cannot be compared with itself", str(b), "two runs", "regraft runs ls shows which are")
    tasks = _task(one), _task(other)
    metric = tasks[0].metrics[0].name
    pairs, notes = _common(one, other)
    why = _obstacle(one, other, tasks, len(pairs))
    paired = None if why else _bootstrap((one, other), tasks, metric, pairs)
    if tasks[1].metrics[0].name != metric:
        notes.append(f"{one.path.name} was decided by {metric}, {other.path.name} by {tasks[1].metrics[0].name}")
    return Compared(
        a=str(a),
        b=str(b),
        winners=(one.winner.label, other.winner.label),
        sentence=_paired_words(one, other, paired) if paired else _apart(one, other, metric, why),
        scores=_scores(one, other),
        paired=paired,
        why=why,
        notes=tuple(notes),
        settings=_settings(one, other),
        costs=_costs(one, other),
        checks=_checks(one, other),
    )


# ---------------------------------------------------------------- the two runs


def _side(path: Path) -> Side:
    folder = store.Folder(store.existing(path))
    verdict, data = folder.load("verdict", Verdict), folder.load("data", DataCard)
    return Side(
        path=path,
        options=folder.load("options", Options),
        data=data,
        machine=folder.load("machine", MachineCard),
        trials=tuple(folder.load("trials", list[Trial])),
        verdict=verdict,
        rows=tuple(runs.rows(path, data.target)),
    )


def _task(side: Side) -> Task:
    """The task of a run; what decided comes first."""
    return choose_task(side.data.target, replace(side.options, metric=side.winner.score("test").metric))


def _common(one: Side, other: Side) -> tuple[list[tuple[int, int]], list[str]]:
    """Positions of test rows that both runs have, equal in content and truth, each row once; and what is noticed."""
    places: dict[tuple[str, Any], list[int]] = defaultdict(list)
    mine, theirs = _test(one), _test(other)
    for i, row in enumerate(theirs):
        places[row.key, row.y].append(i)
    pairs, lone = [], []
    for i, row in enumerate(mine):
        if found := places.get((row.key, row.y)):
            pairs.append((i, found.pop(0)))
        else:
            lone.append(row.key)
    known = {row.key for row in theirs}
    notes = []
    if relabelled := sum(key in known for key in lone) if one.data.target.kind == other.data.target.kind else 0:
        notes.append(f"{relabelled:,} test rows of {one.path.name} have another target in {other.path.name}: left out")
    for side, of in ((one, other), (other, one)):
        seen = {row.key for row in side.rows if row.split == "train"}
        if count := sum(row.key in seen for row in _test(of)):
            notes.append(f"{count:,} test rows of {of.path.name} are training rows of {side.path.name}")
    if pairs and (len(pairs) < len(mine) or len(pairs) < len(theirs)):
        notes.append(f"{len(pairs):,} test rows are common, of {len(mine):,} and {len(theirs):,}")
    return pairs, notes


def _test(side: Side) -> list[Held]:
    return [row for row in side.rows if row.split == "test"]


def _obstacle(one: Side, other: Side, tasks: tuple[Task, Task], common: int) -> str:
    """Why the winners cannot be paired; "" if they can."""
    first, second = one.data.target, other.data.target
    if first.kind != second.kind or tasks[0].name != tasks[1].name:
        return f"they answer different questions: {tasks[0].name} and {tasks[1].name}"
    if apart := sorted(set(first.labels) ^ set(second.labels)):
        return f"they tell different classes apart: {', '.join(apart[:5])}{' …' if len(apart) > 5 else ''} in one alone"
    if first.labels != second.labels:
        return f"their classes stand in different orders: {_some(first)}, and {_some(second)}"
    if not common:
        return "no test row of one is a test row of the other"
    if common < FEWEST and not common == len(_test(one)) == len(_test(other)):
        return f"only {common} test rows are common"
    return ""


def _some(target: Target) -> str:
    return ", ".join(target.labels[:5]) + (" …" if len(target.labels) > 5 else "")


# ---------------------------------------------------------------- the comparison


def _bootstrap(both: tuple[Side, Side], tasks: tuple[Task, Task], metric: str, pairs: list[tuple[int, int]]) -> Paired:
    """The difference in `metric` on paired rows with percentiles of a paired bootstrap, 95 %.

    Reference: Efron & Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
    """
    found = next(m for m in tasks[0].metrics if m.name == metric)
    sign = 1 if found.better == "higher" else -1
    y = tasks[0].encode([_test(both[0])[i].y for i, _ in pairs]).numpy()
    preds = []
    for side, task, index in zip(both, tasks, zip(*pairs, strict=True), strict=True):
        made = task.decode(torch.from_numpy(_predicted(side)[list(index)]))
        preds.append(made[found.takes])
    a, b = (found.fn(pred, y, None) for pred in preds)
    draw = np.random.default_rng(0)
    gaps = []
    for _ in range(RESAMPLES):
        i = draw.integers(0, len(y), len(y))
        gaps.append(sign * (found.fn(preds[1][i], y[i], None) - found.fn(preds[0][i], y[i], None)))
    low, high = np.percentile(gaps, [2.5, 97.5])
    return Paired(metric, len(y), a, b, sign * (b - a), float(low), float(high))


def _predicted(side: Side) -> np.ndarray:
    """The winner's outputs for the run's test rows, in their order.

    Raises: UsageError: the file is gone, damaged, or of other rows.
    """
    path = store.Folder(side.path).vouched(side.winner.predictions)
    try:
        made: np.ndarray = load_file(path)["test"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UsageError(
            "what this run predicted cannot be read",
            saw=f"{path}: {type(error).__name__}",
            allowed="the file as regraft wrote it",
            do="run the command that made it again, with --fresh",
        ) from error
    if len(made) != len(_test(side)):
        raise UsageError(
            "what this run predicted is of other rows than its splits.csv",
            saw=f"{path}: {len(made)} predictions for {len(_test(side))} test rows",
            allowed="the files as regraft wrote them",
            do="run the command that made it again, with --fresh",
        )
    return made


def _paired_words(one: Side, other: Side, paired: Paired) -> str:
    first, second = _names(one, other)
    rows = f"on the same {paired.n:,} test rows"
    values = f"{paired.metric} {paired.a:.3f} and {paired.b:.3f} {rows}"
    if not paired.gain and not paired.low and not paired.high:
        return f"no difference: {values}"
    if not paired.significant:
        gap = f"{paired.gain:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]"
        return f"no significant difference: {values}, {gap} for {second}"
    better, gain, low, high = second, paired.gain, paired.low, paired.high
    if gain < 0:
        better, gain, low, high = first, -gain, -high, -low
    return f"{better} is better: {values}, a gain of {gain:.3f} [{low:.3f}, {high:.3f}]"


def _apart(one: Side, other: Side, metric: str, why: str) -> str:
    """What may be said of two winners that cannot be paired."""
    first, second = _names(one, other)
    told = []
    for side, name in ((one, first), (other, second)):
        score = _on_test(side, metric) or side.winner.score("test")
        told.append(
            f"{name} has {score.metric} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}] "
            f"on its {score.n:,} test rows"
        )
    return f"not paired, for {why}; {'; '.join(told)}. These are scores on different rows: no test of which is better"


def _names(one: Side, other: Side) -> tuple[str, str]:
    """What the runs are called in a sentence: the last part of their paths, or all of it where these are equal."""
    if one.path.name == other.path.name:
        return str(one.path), str(other.path)
    return one.path.name, other.path.name


def _on_test(side: Side, metric: str) -> Score | None:
    return next((s for s in side.winner.scores if s.split == "test" and s.metric == metric), None)


def _scores(one: Side, other: Side) -> tuple[tuple[str, Score | None, Score | None], ...]:
    names = dict.fromkeys(s.metric for side in (one, other) for s in side.winner.scores if s.split == "test")
    return tuple((name, _on_test(one, name), _on_test(other, name)) for name in names)


# ---------------------------------------------------------------- what set them apart


def _settings(one: Side, other: Side) -> tuple[tuple[str, str, str], ...]:
    """Options, plans of the winners and machines, where they differ."""
    flat = [_flat({**plain(s.options), "plan": plain(s.winner.plan), "machine": _machine(s)}) for s in (one, other)]
    names = dict.fromkeys([*flat[0], *flat[1]])
    both = [(n, flat[0].get(n, ""), flat[1].get(n, "")) for n in names]
    return tuple(one for one in both if one[1] != one[2])


def _machine(side: Side) -> dict[str, Any]:
    return {n: getattr(side.machine, n) for n in ("processor", "threads", "device", "dtype", "micro_batch")}


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Nested JSON values as texts under dotted names; pairs of a name and a value count as nested.

    >>> _flat({"a": {"b": 1}, "knobs": [["lr", 0.5]], "phases": [{"epochs": 3}], "labels": ["x", "y"]})
    {'a.b': '1', 'knobs.lr': '0.5', 'phases.1.epochs': '3', 'labels': '["x", "y"]'}
    """
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{name}.{key}".strip(".")).items()}
    if (
        isinstance(value, list)
        and value
        and all(isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) for v in value)
    ):
        return _flat({str(key): inner for key, inner in value}, name)
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        return _flat({str(i + 1): inner for i, inner in enumerate(value)}, name)
    if isinstance(value, list) and not value:
        return {}
    return {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}


def _costs(one: Side, other: Side) -> tuple[tuple[str, float, float], ...]:
    told = []
    for side in (one, other):
        cost = side.winner.cost
        everything = sum(trial.cost.seconds for trial in side.trials)
        told.append((cost.trainable, cost.seconds, cost.peak_bytes or 0, everything, len(side.trials)))
    names = ("trained weights", "seconds of the winner", "peak bytes of the winner", "seconds of all trials", "trials")
    return tuple((name, float(a), float(b)) for name, a, b in zip(names, *told, strict=True))


def _checks(one: Side, other: Side) -> tuple[tuple[str, str, str], ...]:
    found: list[dict[str, str]] = [
        {"decision": s.verdict.decision} | {f.check: f.status for f in s.verdict.findings} for s in (one, other)
    ]
    names = dict.fromkeys([*found[0], *found[1]])
    return tuple((n, found[0].get(n, "not made"), found[1].get(n, "not made")) for n in names)
