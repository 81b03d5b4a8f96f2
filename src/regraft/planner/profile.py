"""Look at a network on rows before anything is trained: features at several depths, and how far from home it is."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regraft.backbone.names import matched
from regraft.backbone.patching import patched, tap
from regraft.backbone.pooling import depths
from regraft.backbone.view import View
from regraft.data.split import thin
from regraft.engine import freeze
from regraft.engine.cache import Table
from regraft.engine.predict import joined
from regraft.errors import memory_watched
from regraft.waist import Data, Row

DEPTHS = 3
"""How many depths to look at besides the features."""
DEAD = 1e-6
"""Channels whose variance on the network's own data was less carry nothing."""
FARTHEST = 10.0
"""A channel counts as no further than so many standard deviations."""
ROWS, FEWEST = 800, 64
"""The most rows that are looked at, and the fewest, whatever a pass takes."""


class Layer(NamedTuple):
    """Features [N, d] of rows after stage `stage`: means over places or tokens, or what a head takes at the end."""

    stage: int
    name: str
    features: Tensor


class Shift(NamedTuple):
    """How far rows are from the data that a normalisation layer was trained on, in its standard deviations."""

    stage: int
    name: str
    value: float


class Look(NamedTuple):
    """What one pass of some rows showed: the last layer is the network's features."""

    layers: tuple[Layer, ...]
    shifts: tuple[Shift, ...]


def sample(data: Data, row_s: float, pass_s: float, seed: int) -> list[Row]:
    """Training rows to look at: all, or as many as go by in `pass_s` at `row_s` each, every class in its share."""
    most = min(ROWS, max(FEWEST, int(pass_s / max(row_s, 1e-6))))
    return thin(data.train, max(most, 2 * len(data.target.labels)), seed, cover=True)


def judged(targets: Tensor, groups: Sequence[str]) -> bool:
    """Whether features can be judged by these targets: one a row, which differ, and rows enough, of several groups."""
    differ = targets.ndim == 1 and len(set(targets.tolist())) > 1 and len(set(groups)) > 1
    return differ and len(groups) >= FEWEST // 2


def native(view: View, features: Tensor) -> Tensor | None:
    """Outputs [N, Z] of the checkpoint's own head for its labels, from features [N, d]; None where it has no such."""
    head = view.native
    apart = not isinstance(head, torch.nn.Linear) or head.in_features != features.shape[1]
    if apart or not view.labels or view.pooling != "native":
        return None
    with torch.no_grad():
        made: Tensor = head(features)
    return made


def as_is(view: View, features: Tensor, targets: Tensor, labels: Sequence[str]) -> float | None:
    """The share of rows that the checkpoint's own head answers rightly; None unless it knows all `labels`.

    Outputs that mean the same label are averaged, as a head that is set from the checkpoint's own labels does.
    """
    made = None if targets.is_floating_point() else native(view, features)
    places = None if made is None else matched(view.labels, labels)
    if made is None or places is None:
        return None
    answers = torch.stack([made[:, list(places[label])].mean(1) for label in labels], 1).argmax(1)
    return round(float((answers == targets).double().mean()), 4)


def look(view: View, table: Table) -> Look:
    """Features at several depths and the shifts of normalisation layers, from one pass over a table at frontier 0.

    Source of the shifts: running means and variances are the source domain's (Li et al., Adaptive batch normalisation,
    2018); a channel's is the 2-Wasserstein distance of the two Gaussians over the source's standard deviation.
    """
    assert not table.trunk.k, "cells go through the whole network"
    chosen, norms = depths(view.stages, DEPTHS), _Norms(view)
    found: dict[int, list[tuple[list[int], Tensor]]] = {}
    with memory_watched(), torch.no_grad(), freeze.mode(view, torch.nn.Identity(), None):
        for index, count in table.micro_batches():
            sides = []
            for state, windows in table.batch(index):
                norms.rows = count * windows
                with patched(view.module, norms.taps()):
                    features, *below = view.read(state.inputs, chosen)
                held = [*zip(chosen, below, strict=True), (len(view.stages) - 1, features)]
                sides.append({k: made.view(-1, windows, made.shape[-1]).mean(1) for k, made in held})
            for k in sides[0]:
                made = sides[0][k] if len(sides) == 1 else joined(*(side[k] for side in sides))
                found.setdefault(k, []).append((index[:count], made[:count]))
    layers = [Layer(k, view.stages[k].name, _ordered(parts)) for k, parts in sorted(found.items())]
    return Look(tuple(layers), norms.shifts())


def _ordered(parts: Sequence[tuple[list[int], Tensor]]) -> Tensor:
    """Features in the order of the rows."""
    order = torch.tensor([i for index, _ in parts for i in index]).argsort()
    return torch.cat([made for _, made in parts])[order].float()


class _Norms:
    """Means and variances of what normalisation layers take, against those that they carry."""

    def __init__(self, view: View) -> None:
        stages = {name.rpartition(".")[0]: k for name, k, _ in view.buffers() if name.endswith("running_mean")}
        modules = {path: view.module.get_submodule(path) for path in stages}
        self.stages = {path: stages[path] for path, module in modules.items() if module.running_mean is not None}
        self.modules, self.rows = modules, 0
        self.sums: dict[str, Tensor] = {}

    def taps(self) -> dict[str, Any]:
        return {path: tap(functools.partial(self._note, path)) for path in self.stages}

    def _note(self, path: str, taken: tuple[Any, ...], _given: Any) -> None:
        made = taken[0][: self.rows].transpose(0, 1).flatten(1).double()
        seen = torch.stack([torch.full((len(made),), float(made.shape[1])).double(), made.sum(1), made.square().sum(1)])
        self.sums[path] = self.sums[path] + seen if path in self.sums else seen

    def shifts(self) -> tuple[Shift, ...]:
        """A shift for each layer that was run, in the network's order."""
        found = []
        for path, k in self.stages.items():
            if path not in self.sums:
                continue
            count, total, square = self.sums[path]
            mean = total / count
            spread = (square / count - mean.square()).clamp(min=0).sqrt()
            own: Any = self.modules[path]
            alive = own.running_var > DEAD
            home, sigma = own.running_mean.double()[alive], own.running_var.double()[alive].sqrt()
            apart = ((mean[alive] - home).square() + (spread[alive] - sigma).square()).sqrt() / sigma
            if len(apart):
                found.append(Shift(k, path, float(apart.clamp(max=FARTHEST).mean())))
        return tuple(found)
