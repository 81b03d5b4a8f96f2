"""Logistic regression over a whole grid of penalties and folds in one go: every step is one product for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from regraft.engine.ridge import Basis

MOST = 1000
FLAT = 1e-4
MEMORY = 8
NOISE = 1e-6
"""A loss in float32 that rose by less than this share of itself has not risen."""
LEAST = 1e-3
"""How much lower than the slope promises a step may go before it is too long, as Armijo's rule has it."""
COARSE = 8
"""The penalties that are solved first are so many apart; then those between them, half as far apart each time."""
NODES = 4
NEAR = 16
"""So many heads are looked at one after the other: their outputs stay in the processor's cache."""
LARGEST = 2**26
"""Numbers that heads in one go may hold, outputs and what L-BFGS remembers together: 256 MB."""
SHORTEST = 1e-6
"""A step that is this much shorter than L-BFGS proposes and still leads up: float32 sees no way down."""


class Grid(NamedTuple):
    """Heads by penalty and fold: weight [G, K, C, D], bias [G, K, C]; how many looks at a head that took, and
    whether each head reached its minimum [G, K].
    """

    weight: Tensor
    bias: Tensor
    steps: int
    ended: Tensor


def logistic(
    found: Basis, targets: Tensor, penalties: Tensor, folds: Tensor, *, flat: float = FLAT, most: int = MOST
) -> Grid:
    """Σ wᵢ CE(yᵢ, b + W xᵢ) + α/2 ‖W‖² at its minimum, for every penalty α and without each fold's rows.

    In terms of scikit-learn α is 1 / C; of two classes, which have two outputs here, 2 / C. The bias costs nothing.
    All heads share the rows: a step of L-BFGS is two products for all heads that are still on their way, on axes that
    are scaled by the curvature at zero, where the first step is Newton's. Every eighth penalty is solved from zero;
    those between start where a polynomial in log α through solved ones puts them, so that most are there at once.

    Args:
        targets: [N, C], the share of each class in a row: one-hot, or smoothed.
        penalties: [G], above 0, in ascending or descending order.
        folds: [N], the fold that leaves a row out; -1 is left out by none. K is the largest fold and one more, or 1.
        flat: A head has ended where no derivative of its mean loss by a scaled weight is steeper than this.
    Reference: Liu & Nocedal, On the limited memory BFGS method, 1989; Böhning, Multinomial logistic regression
    algorithm, 1992.
    """
    count = max(1, int(folds.max()) + 1)
    problem = _Problem(found, targets, folds, count)
    logs = penalties.double().log()
    held = torch.zeros(len(penalties), count, targets.shape[1], problem.rows.shape[1])
    ended = torch.zeros(len(penalties), count, dtype=torch.bool)
    solved: list[int] = []
    steps = 0
    at_once = max(1, LARGEST // (targets.shape[1] * (len(targets) + 2 * MEMORY * problem.rows.shape[1])))
    for places in _levels(len(penalties)):
        start = _between(held, solved, places, logs) if solved else problem.start(len(places))
        fold = torch.arange(count).repeat(len(places))
        alphas = penalties.float()[places].repeat_interleave(count)
        parts = zip(start.flatten(0, 1).split(at_once), alphas.split(at_once), fold.split(at_once), strict=True)
        made, done, taken = zip(*(problem.solve(*part, flat=flat, most=most) for part in parts), strict=True)
        held[places], ended[places] = torch.cat(made).view(start.shape), torch.cat(done).view(len(places), count)
        solved, steps = sorted(solved + places), steps + sum(taken)
    inner, offset = (held[..., :-1], held[..., -1] * problem.one) if found.centred else (held, held[..., 0] * 0)
    return Grid(*found.layer(inner, offset), steps, ended)


def _levels(count: int) -> Iterator[list[int]]:
    """Places of a path in the order in which they are solved: far apart first, then those between.

    >>> list(_levels(10))
    [[0, 8, 9], [4], [2, 6], [1, 3, 5, 7]]
    """
    seen = sorted({*range(0, count, COARSE), count - 1})
    yield seen
    apart = COARSE // 2
    while apart:
        places = [i for i in range(0, count, apart) if i not in seen]
        if places:
            yield places
        seen, apart = sorted({*seen, *places}), apart // 2


def _between(held: Tensor, solved: list[int], places: list[int], logs: Tensor) -> Tensor:
    """Where the heads at `places` should lie: polynomials in log α through the nearest ones that are solved."""
    mix = torch.zeros(len(solved), len(places), dtype=torch.double)
    where = logs[solved]
    for j, place in enumerate(places):
        near = (where - logs[place]).abs().argsort()[:NODES]
        for a in near.tolist():
            others = [b for b in near.tolist() if b != a]
            mix[a, j] = torch.prod((logs[place] - where[others]) / (where[a] - where[others]))
    return torch.einsum("skcr,sj->jkcr", held[solved], mix.float())


class _Problem:
    """Rows, targets and weights that all heads share; the last column of the rows is the bias's."""

    def __init__(self, found: Basis, targets: Tensor, folds: Tensor, count: int) -> None:
        self.rows, self.squares, self.centred = found.rows, found.squares.float(), found.centred
        self.one = float(found.weights.sum()) ** -0.5
        if self.centred:
            self.rows = torch.cat([self.rows, torch.full((len(targets), 1), self.one)], 1)
        self.turned = self.rows.T.contiguous()
        self.targets = targets.float().T.contiguous()
        mass = found.weights * (folds != torch.arange(count)[:, None])
        self.total = mass.sum(1)
        self.mass = mass / self.total[:, None]
        wide = self.mass[:, None].double() * self.targets.double()
        self.wanted = (wide.flatten(0, 1) @ self.rows.double()).view(count, -1, self.rows.shape[1]).float()
        sure = bool(((self.targets == 0) | (self.targets == 1)).all())
        self.labels = self.targets.argmax(0)[None, None] if sure else None

    def start(self, count: int) -> Tensor:
        """Heads [G, K, C, r] that know how frequent the classes are and no more."""
        made = torch.zeros(count, len(self.mass), len(self.targets), self.rows.shape[1])
        if self.centred:
            share = (self.mass @ self.targets.T).clamp(min=1e-6).log()
            made[..., -1] = (share - share.mean(1, keepdim=True)) / self.one
        return made

    def solve(
        self, start: Tensor, alphas: Tensor, fold: Tensor, *, flat: float, most: int
    ) -> tuple[Tensor, Tensor, int]:
        """The minima of heads [P, C, r] from `start`, whether each was reached, and how often one was looked at."""
        total = self.total[fold, None]
        costs = alphas[:, None] / total / self.squares
        if self.centred:
            costs = torch.cat([costs, torch.zeros(len(alphas), 1)], 1)
        scale = (costs + 1 / (len(self.targets) * total)).rsqrt()[:, None]
        costs = costs[:, None]
        final, done = start.clone(), torch.zeros(len(alphas), dtype=torch.bool)
        live = torch.arange(len(alphas))
        search, taken = _Search(start / scale), 0
        for _ in range(most):
            loss, slope = self.look(search.trial * scale, costs, fold)
            taken += len(live)
            search.saw(loss, slope.mul_(scale))
            flattened = search.slope.abs().amax((1, 2)) <= flat
            over = flattened | search.stuck
            if bool(over.any()):
                final[live[over]], done[live[over]] = search.at[over] * scale[over], flattened[over]
                keep = (~over).nonzero().flatten()
                if not len(keep):
                    return final, done, taken
                live, fold, costs, scale = live[keep], fold[keep], costs[keep], scale[keep]
                search.keep(keep)
            search.step()
        final[live] = search.at * scale
        return final, done, taken

    def look(self, heads: Tensor, costs: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
        """The objective of each head [P] and its derivative by the heads [P, C, r]."""
        losses, slopes = [], []
        for some, own in zip(heads.split(NEAR), fold.split(NEAR), strict=True):
            mass = self.mass[own]
            shares = (some.flatten(0, 1) @ self.turned).view(*some.shape[:2], -1).log_softmax(1)
            if self.labels is None:
                told = torch.einsum("pcn,cn->pn", shares, self.targets)
            else:
                told = shares.gather(1, self.labels.expand(len(some), 1, -1))[:, 0]
            losses.append((told * mass).double().sum(1))
            shares.exp_().mul_(mass[:, None])
            slopes.append((shares.flatten(0, 1) @ self.rows).view(some.shape).sub_(self.wanted[own]))
        paid = costs * heads
        return _dot(paid, heads) / 2 - torch.cat(losses), torch.cat(slopes).add_(paid)


class _Search:
    """L-BFGS on many functions at once, each with a step length of its own; `trial` is where to look next."""

    def __init__(self, start: Tensor) -> None:
        self.trial = start
        self.at = self.slope = self.move = torch.empty(0)
        self.loss = self.length = self.fall = self.gain = torch.empty(0)
        self.stuck = torch.zeros(len(start), dtype=torch.bool)
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def saw(self, loss: Tensor, slope: Tensor) -> None:
        """Take the step to `trial` where the function is low enough there, else a shorter one next time."""
        if not len(self.at):
            self.at, self.loss, self.slope = self.trial, loss, slope
            self.gain = self.length = torch.ones_like(loss)
            return
        fall = self.fall * self.length
        good = loss <= self.loss + LEAST * fall + NOISE * self.loss.abs()
        shorter = (-0.5 * fall / (loss - self.loss - fall)).nan_to_num(0.5).clamp(0.1, 0.5) * self.length
        moved, turned = self.trial - self.at, slope - self.slope
        bend = _dot(moved, turned)
        bent = good & (bend > 0)
        self.gain = torch.where(bent, bend / _dot(turned, turned).clamp(min=1e-30), self.gain)
        self.pairs = [*self.pairs[1 - MEMORY :], (moved, turned, torch.where(bent, 1 / bend.clamp(min=1e-30), 0.0))]
        wide = good[:, None, None]
        self.at, self.slope = torch.where(wide, self.trial, self.at), torch.where(wide, slope, self.slope)
        self.loss, self.length = torch.where(good, loss, self.loss), torch.where(good, 1.0, shorter)
        self.stuck = ~good & (shorter < SHORTEST)

    def step(self) -> None:
        """Choose the next places to look at."""
        move, shares = -self.slope, []
        for moved, turned, rate in reversed(self.pairs):
            shares.append(_each(rate * _dot(moved, move)))
            move.addcmul_(turned, shares[-1], value=-1)
        move *= _each(self.gain)
        for (moved, turned, rate), share in zip(self.pairs, reversed(shares), strict=True):
            move.addcmul_(moved, share - _each(rate * _dot(turned, move)))
        self.fall = _dot(move, self.slope)
        self.trial = torch.addcmul(self.at, move, _each(self.length))

    def keep(self, which: Tensor) -> None:
        """Go on with some of the functions."""
        self.at, self.slope, self.loss, self.length, self.gain, self.stuck = (
            one[which] for one in (self.at, self.slope, self.loss, self.length, self.gain, self.stuck)
        )
        self.pairs = [(moved[which], turned[which], rate[which]) for moved, turned, rate in self.pairs]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The product of each pair of heads, [P]."""
    return (a * b).sum((1, 2)).double()


def _each(one: Tensor) -> Tensor:
    """A number for each head, to multiply heads with."""
    return one.float()[:, None, None]
