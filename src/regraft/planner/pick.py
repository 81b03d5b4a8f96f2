"""Choose among finished trials: on validation alone, paired on the same rows, the cheapest that is not beaten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from regraft.engine.predict import over, resampled
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
        self._levels: dict[int, float] = {}
        self._preds: dict[int, np.ndarray] = {}
        for i, trial in enumerate(trials):
            if trial.whole:
                made = torch.from_numpy(load_file(folder / trial.predictions)["val"])
                self._preds[i] = task.decode(made)[self.metric.takes]
                self.losses[i] = task.loss(made, targets, Loss()).double().numpy()
                value = self.sign * self.metric.fn(self._preds[i], self.y, None)
                self.values[i] = value if math.isfinite(value) else -math.inf  # what is no number never leads

    def lead(self) -> int:
        """The trial with the best deciding metric; of equal ones that with the lowest loss, then the cheapest."""
        return max(self.values, key=lambda i: (self.values[i], -self._loss(i), *(-c for c in price(self.trials[i]))))

    def compare(self, a: int, b: int) -> Comparison:
        """How much better trial a is than trial b: in the metric and in the loss of a row.

        The intervals hold for all that is compared with a, or all that is compared with b, at once (95 %).
        """
        gain, loss = (self._seen[:, self._places[a]] - self._seen[:, self._places[b]]).tolist()
        level = 100 * min(self._level(a), self._level(b))
        with np.errstate(invalid="ignore"):  # what is no number stays none
            ends = np.percentile(self._gaps(b)[:, :, self._places[a]], [level, 100 - level], axis=0)
        (low, loss_low), (high, loss_high) = ends.tolist()
        return Comparison(
            trial=b, gain=gain, low=low, high=high, loss=loss, loss_low=loss_low, loss_high=loss_high, n=self.n
        )

    def beats(self, a: int, b: int) -> bool:
        """Whether trial a is significantly better than trial b, in the metric or in the loss."""
        gap = self.compare(a, b)
        return not (gap.low <= 0 and gap.loss_low <= 0)

    @cached_property
    def _places(self) -> dict[int, int]:
        return {i: place for place, i in enumerate(self.values)}

    @cached_property
    def _seen(self) -> np.ndarray:
        """What trials reached, [2, T]: the metric and the loss of a row, signed so that higher is better."""
        return np.array([list(self.values.values()), [-self.losses[i].mean() for i in self.values]])

    @cached_property
    def _again(self) -> np.ndarray:
        """The same in every resample in which all that reached a number reach one, [R, 2, T]."""
        made = []
        for rows in resampled(self.n, self.seed, RESAMPLES):
            values = [self.sign * over(self.metric, self._preds[i], self.y, rows) for i in self.values]
            losses = [self.losses[i][rows].mean(1) for i in self.values]
            made.append(np.array([values, losses]) * np.array([1, -1])[:, None, None])
        everything = np.concatenate(made, 2).transpose(2, 0, 1)
        kept: np.ndarray = everything[np.isfinite(everything[:, np.isfinite(self._seen)]).all(1)]
        return kept

    def _gaps(self, b: int) -> np.ndarray:
        """How far all trials are ahead of trial b in each resample, [R, 2, T]."""
        made: np.ndarray = self._again - self._again[:, :, [self._places[b]]]
        return made

    def _level(self, b: int) -> float:
        """What lies outside on each side of intervals that hold all differences of trial b from others at once, 95 %.

        In each resample the difference counts that lies the farthest out among its own resampled values; 2.5 % where
        there is one. That the leader was chosen as the best of all is covered, too.

        Reference: Mandel & Betensky, Simultaneous confidence intervals based on the percentile bootstrap approach,
        2008; Hsu, Simultaneous confidence intervals for all distances from the "best", 1981.
        """
        if b not in self._levels:
            with np.errstate(invalid="ignore"):
                gaps = self._gaps(b)
            gaps = gaps[:, np.isfinite(gaps).all(0)]
            order, least = np.sort(gaps, 0), np.ones(len(gaps))
            for some, ordered in zip(gaps.T, order.T, strict=True):
                below, above = ordered.searchsorted(some, "right"), len(some) - ordered.searchsorted(some)
                least = np.minimum(least, np.minimum(below, above) / len(some))
            self._levels[b] = min(0.025, float(np.percentile(least, 5))) if len(least) else math.nan
        return self._levels[b]

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
    significant advantage, by paired bootstraps over the same validation rows, 95 % for all comparisons at once: neither
    in the metric nor in the loss of a row. The loss tells apart what a few dozen right answers cannot. A leader that
    has no such advantage over any is no significant winner; the rule says so.
    """
    field = Field(trials, task, data, folder, seed)
    lead = field.lead()
    chosen, rule = lead, _why(field, lead)
    for i in sorted(field.values, key=lambda i: (price(trials[i]), -field.values[i])):
        if _cheaper(trials[i], trials[lead]) and not field.beats(lead, i):
            chosen, gap = i, field.compare(lead, i)
            what = "needs no network" if price(trials[i])[0] < price(trials[lead])[0] else "trains fewer weights"
            rule = (
                f"{trials[i].label} {what}, and {trials[lead].label} gains {gap.gain:+.3f} [{gap.low:+.3f}, "
                f"{gap.high:+.3f}] {field.metric.name} over it on {field.n} validation rows: "
                "not significant"
            )
            break
    if len(field.values) > 1 and not any(field.beats(lead, i) for i in field.values if i != lead):
        rule = f"no significant winner: {rule}"
    others = [i for i in field.values if i != chosen]
    return chosen, rule, tuple(field.compare(chosen, i) for i in others)


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
