"""Choose among finished trials: on validation alone, paired on the same rows, the cheapest that is not beaten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from regraft.waist import Comparison, Data, Epoch, Loss, Task, Trial

RESAMPLES = 2000
CHEAPER = 0.9
"""Of the leader's trained weights: a head without a bias is no cheaper plan."""


class Field:
    """Finished trials of one run with what they answered on the validation rows.

    Resampled rows are the same for every pair of trials, so comparisons are paired and repeat bit for bit.
    """

    def __init__(self, trials: Sequence[Trial], task: Task, data: Data, folder: Path, seed: int) -> None:
        self.trials, self.metric = trials, task.metrics[0]
        self.sign = 1 if self.metric.better == "higher" else -1
        targets = task.encode([row.y for row in data.val])
        self.y, self.n = targets.numpy(), len(targets)
        self.seed = seed
        self.losses: dict[int, np.ndarray] = {}
        self.values: dict[int, float] = {}
        self._again: dict[int, np.ndarray] = {}
        self._preds: dict[int, np.ndarray] = {}
        for i, trial in enumerate(trials):
            if trial.whole:
                made = torch.from_numpy(load_file(folder / trial.predictions)["val"])
                self._preds[i] = task.decode(made)[self.metric.takes]
                self.losses[i] = task.loss(made, targets, Loss()).double().numpy()
                value = self.sign * self.metric.fn(self._preds[i], self.y, None)
                self.values[i] = value if math.isfinite(value) else -math.inf  # what is no number never leads

    @cached_property
    def index(self) -> list[np.ndarray]:
        """Positions of the resampled rows."""
        draw = np.random.default_rng(self.seed)
        return [draw.integers(0, self.n, self.n) for _ in range(RESAMPLES)]

    def lead(self) -> int:
        """The trial with the best deciding metric; of equal ones that with the lowest loss, then the cheapest."""
        return max(self.values, key=lambda i: (self.values[i], -self._loss(i), *(-c for c in price(self.trials[i]))))

    def compare(self, a: int, b: int) -> Comparison:
        """How much better trial a is than trial b: in the metric and in the loss of a row, 95 % each."""
        gaps = self._resampled(a) - self._resampled(b)
        low, high = np.percentile(gaps, [2.5, 97.5])
        saved = self.losses[b] - self.losses[a]
        loss_low, loss_high = np.percentile([saved[j].mean() for j in self.index], [2.5, 97.5])
        return Comparison(
            trial=b,
            gain=float(self.values[a] - self.values[b]),
            low=float(low),
            high=float(high),
            loss=float(saved.mean()),
            loss_low=float(loss_low),
            loss_high=float(loss_high),
            n=self.n,
        )

    def _resampled(self, i: int) -> np.ndarray:
        if i not in self._again:
            metric, pred = self.metric, self._preds[i]
            self._again[i] = np.array([self.sign * metric.fn(pred[j], self.y[j], None) for j in self.index])
        return self._again[i]

    def _loss(self, i: int) -> float:
        loss = float(self.losses[i].mean())
        return math.inf if math.isnan(loss) else loss


def price(trial: Trial) -> tuple[int, int]:
    """What a trial's model costs its user, to order by: whether it needs the network at all, then weights trained."""
    return int(trial.plan.init != "plain"), trial.cost.trainable


def pick(
    trials: Sequence[Trial], task: Task, data: Data, folder: Path, seed: int
) -> tuple[int, str, tuple[Comparison, ...]]:
    """The best trial on validation, the rule that chose it, and how it compares; test rows are never looked at.

    The trial with the best deciding metric leads. The cheapest one is taken in its place over which it has no
    significant advantage, by paired bootstraps (95 %) over the same validation rows: neither in the metric nor in the
    loss of a row. The loss tells apart what a few dozen right answers cannot.
    """
    field = Field(trials, task, data, folder, seed)
    lead = field.lead()
    chosen, rule = lead, ""
    for i in sorted(field.values, key=lambda i: (price(trials[i]), -field.values[i])):
        if not _cheaper(trials[i], trials[lead]):
            continue
        gap = field.compare(lead, i)
        if gap.low <= 0 and gap.loss_low <= 0:
            chosen = i
            what = "needs no network" if price(trials[i])[0] < price(trials[lead])[0] else "trains fewer weights"
            rule = (
                f"{trials[i].label} {what}, and {trials[lead].label} gains {gap.gain:+.3f} [{gap.low:+.3f}, "
                f"{gap.high:+.3f}] {field.metric.name} over it on {field.n} validation rows: "
                "not significant"
            )
            break
    others = [i for i in field.values if i != chosen]
    compared = tuple(field.compare(chosen, i) for i in others)
    return chosen, rule or _why(field, lead), compared


def _cheaper(one: Trial, leader: Trial) -> bool:
    ours, theirs = price(one), price(leader)
    return ours[0] < theirs[0] or (ours[0] == theirs[0] and ours[1] <= CHEAPER * theirs[1] and ours != theirs)


def _why(field: Field, lead: int) -> str:
    """Why the leader wins, where nothing cheaper takes its place."""
    trials = field.trials
    if len(field.values) == 1:
        return "the only plan that was run"
    told = f"{trials[lead].label} has the best {field.metric.name} on {field.n} validation rows"
    equal = [i for i in field.values if i != lead and field.values[i] == field.values[lead]]
    if equal:
        names = f"{trials[equal[0]].label} and {trials[lead].label}" if len(equal) == 1 else f"{len(equal) + 1} plans"
        told = f"{names} are equal on {field.n} validation rows, and "
        told += f"{trials[lead].label} has the lowest loss of these"
    return told


def lowest(curve: Sequence[Epoch]) -> float:
    """The lowest validation loss of some epochs."""
    return min((epoch.val_loss for epoch in curve), default=math.inf)
