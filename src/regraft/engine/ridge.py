"""Ridge heads for a whole path of penalties from one eigendecomposition, each row answered by a head without it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

FLAT = 1e-10
"""Axes along which features spread less than this share of the widest one's squares are rounding: left out."""
TINY = 1e-30
NEAR = 1 << 18
"""So many numbers of a block of rows are in the processor's own memory while they are used: a megabyte."""
ONE = 1e-6
"""A row that decides its own answer but for so little keeps this much: no penalty at all has no answer without it."""


class Basis(NamedTuple):
    """Features along the axes of their own spread: features - mean = (rows · √squares) @ axesᵀ.

    Over the weighted rows the columns of `rows` [N, r] have length 1 and are at right angles; `squares` [r] are the
    sums of squares along `axes` [D, r], the largest last. `weights` [N] are the rows'.
    """

    mean: Tensor
    axes: Tensor
    squares: Tensor
    rows: Tensor
    weights: Tensor
    centred: bool

    def layer(self, found: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [..., C, D] and biases [..., C] of what weighs `rows` by `found` [..., C, r] and adds `offset`."""
        weight = (found / self.squares.sqrt().to(found.dtype)) @ self.axes.T.to(found.dtype)
        return weight, offset - weight @ self.mean.to(found.dtype)


@dataclass
class Path:
    """Heads by penalty, made when they are asked for, and `outputs` [N, C, G] of each row by heads without it.

    `along` [r, C] is what the targets have along the axes of `basis`, of which `left` [r, G] is left over.
    """

    outputs: Tensor
    basis: Basis
    along: Tensor
    left: Tensor
    centre: Tensor

    @cached_property
    def weight(self) -> Tensor:
        """Of all heads, [G, C, D]."""
        return self._layers(self.left)[0]

    @cached_property
    def bias(self) -> Tensor:
        """Of all heads, [G, C]."""
        return self._layers(self.left)[1]

    def head(self, number: int) -> tuple[Tensor, Tensor]:
        """Weight [C, D] and bias [C] for one of the penalties."""
        weight, bias = self._layers(self.left[:, number : number + 1])
        return weight[0], bias[0]

    def _layers(self, left: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = self.basis.layer(self.along.T[None].double() * (1 - left.T[:, None].double()), self.centre)
        return weight.float(), bias.float()


def basis(features: Tensor, weights: Tensor | None = None, centred: bool = True) -> Basis:
    """The axes of features [N, D], from whichever of XᵀX and XXᵀ is smaller.

    Sums and eigenvectors are in float64: along narrow axes float32 has lost what small penalties leave in. Rows come
    out in float32, where all that is done with them is as fast as it can be.

    >>> found = basis(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
    >>> found.squares.tolist(), found.rows.shape
    ([8.0], torch.Size([3, 1]))
    """
    n = len(features)
    root = None if weights is None else weights.double().sqrt()[:, None]
    weights = torch.ones(n) if weights is None else weights.float()
    mass, mean = weights.double(), torch.zeros(features.shape[1])
    heavy = features.double()
    if centred:
        mean = (mass @ heavy / mass.sum()).float()
        features = features - mean
        heavy = heavy.copy_(features)
    if root is not None:
        heavy = heavy.mul_(root)
    if n >= features.shape[1]:
        squares, axes = _eigen(heavy, False)
        return Basis(mean, axes, squares, features @ (axes / squares.sqrt()).float(), weights, centred)
    squares, sides = _eigen(heavy, True)
    axes = heavy.T @ sides / squares.sqrt()
    return Basis(mean, axes, squares, (sides if root is None else sides / root).float(), weights, centred)


def _eigen(rows: Tensor, turned: bool) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of the rows' products but for rounding; numpy multiplies half of what torch would.

    Where nothing spreads there is one axis, of no use and no harm.
    """
    held = rows.numpy()
    squares, vectors = torch.linalg.eigh(torch.from_numpy(held @ held.T if turned else held.T @ held))
    wide = squares > max(FLAT * float(squares[-1]), TINY)
    if not bool(wide.any()):
        return torch.ones(1, dtype=torch.double), vectors[:, -1:]
    return (squares, vectors) if bool(wide.all()) else (squares[wide], vectors[:, wide])


def ridge(found: Basis, targets: Tensor, penalties: Tensor) -> Path:
    """Σ wᵢ ‖yᵢ - b - W xᵢ‖² + α ‖W‖² at its minimum for every penalty α, with exact leave-one-out outputs.

    The bias costs nothing. A row's own weight in its answer is the diagonal of the hat matrix: its error without it is
    its error over 1 less that. Both are summed from what each axis leaves over, α / (s + α), so that nothing cancels
    where rows are few and the fit is nearly perfect. Targets [N, C] are one-hot or numbers.
    Reference: Golub, Heath & Wahba, Generalized cross-validation, 1979; Rifkin & Lippert, Notes on regularized least
    squares, 2007.

    >>> found = basis(torch.tensor([[0.0], [1.0], [2.0]]))
    >>> path = ridge(found, torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([1e-4]))
    >>> [round(v, 2) for v in path.outputs.flatten().tolist()]  # the lines through the other two
    [-3.0, 2.5, 2.0]
    """
    squares, alphas = found.squares.double(), penalties.double()
    mass = found.weights[:, None]
    centre = (mass * targets).double().sum(0) / mass.double().sum() if found.centred else targets.double().sum(0) * 0
    wanted = targets.float() - centre.float()
    root, even = mass.sqrt(), bool((mass == 1).all())
    rows, heavy = (found.rows, wanted) if even else (found.rows * root, wanted * root)
    along = (heavy.T @ rows).T
    left = (alphas / (squares[:, None] + alphas)).float()
    full = len(squares) == len(rows) - found.centred
    spread = (along[:, :, None] * left[:, None, :]).flatten(1)
    spread = torch.cat([spread, along], 1)
    outputs = torch.empty(len(rows), along.shape[1], len(alphas))
    step = max(1, NEAR // max(1, spread.shape[1] + len(squares)))
    for some in (slice(at, at + step) for at in range(0, len(rows), step)):  # so many that they stay near
        made = rows[some] @ spread
        error = made[:, : -along.shape[1]].view(-1, *outputs.shape[1:])
        square = rows[some].square()
        free = square @ left
        if not full:
            error += (heavy[some] - made[:, -along.shape[1] :])[:, :, None]
            own = mass[some, 0] / mass.sum() if found.centred else 0.0
            free += (1 - own - square.sum(1)).clamp(min=0)[:, None]
        free = free.clamp_(min=ONE).mul_(root[some])[:, None, :]
        torch.addcdiv(targets[some, :, None].float(), error, free, value=-1, out=outputs[some])
    return Path(outputs, found, along, left, centre)
