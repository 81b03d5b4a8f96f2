"""Stay close to the pretrained network while it is trained: penalties beside the loss, an average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from regraft.engine.cache import Table
from regraft.engine.predict import Graft
from regraft.kit import shelf
from regraft.waist import Plan

WEIGHTS, FEATURES, CHANGE, AVERAGE = "weights", "features", "change of features", "average"


def asked(plan: Plan, acts_on: str) -> list[tuple[float, Callable[..., Any]]]:
    """(strength, function) of the plan's regularisers that act on this: weights, features, their change, an average."""
    found = [(strength, shelf.find("regularisers", name)) for name, strength in plan.regularise]
    return [(strength, item.act) for strength, item in found if acts_on == item.ACTS_ON]


@dataclass
class Near:
    """What a plan adds to the loss of `graft`.

    Args:
        start: The pretrained values of what is trained of them, by name; empty where nothing acts on weights.
        before: The pretrained network's features of the training rows, where something acts on their change.
    """

    plan: Plan
    graft: Graft
    start: Mapping[str, Tensor] = field(default_factory=dict)
    before: Table | None = None

    @staticmethod
    def of(plan: Plan, graft: Graft, held: Mapping[str, Tensor], before: Callable[[], Table] | None) -> Near:
        """The same of a graft that is not trained yet, with all that the plan may change of it."""
        start: dict[str, Tensor] = {}
        if asked(plan, WEIGHTS):
            new = graft.view.card().new
            old = {name for name, stage, _ in graft.view.named() if stage not in new}
            start = {name: t.detach().clone() for name, t in held.items() if name in old}
        table = before() if before is not None and asked(plan, CHANGE) else None
        return Near(plan, graft, start, table)

    def of_weights(self, trained: Iterable[tuple[str, Tensor]]) -> Tensor | None:
        """The penalty on the weights that are trained, None where there is none."""
        some = [(tensor, self.start[name]) for name, tensor in trained if name in self.start]
        acting = asked(self.plan, WEIGHTS) if some else []
        if not acting:
            return None
        now, start = [tensor for tensor, _ in some], [begun for _, begun in some]
        return torch.stack([strength * act(now, start) for strength, act in acting]).sum()

    def pretrained(self, index: list[int]) -> Tensor | None:
        """What the pretrained network gives for training rows at `index`, [n, D]; None where nothing asks for it."""
        if self.before is None:
            return None
        with torch.no_grad():
            return self.graft.features(self.before.batch(index), len(self.graft.view.stages))

    def of_features(self, features: Tensor, before: Tensor | None) -> Tensor | float:
        """The penalty on features [n, D], the pretrained network's own in `before`; 0 where they are not trained."""
        if not features.requires_grad:
            return 0.0
        found = [strength * act(features) for strength, act in asked(self.plan, FEATURES)]
        found += [strength * act(features, before) for strength, act in asked(self.plan, CHANGE)]
        return torch.stack(found).sum() if found else 0.0


class Average:
    """The average of some tensors over the steps of a phase, from what they are on; empty where not asked for."""

    def __init__(self, plan: Plan, held: Mapping[str, Tensor]) -> None:
        self.shares, self.held = asked(plan, AVERAGE), dict(held)
        self.mean = {name: t.detach().clone() for name, t in held.items()} if self.shares else {}

    def take(self, step: int) -> None:
        """Move the average towards what the tensors are after this step; counters are taken over."""
        for strength, share in self.shares:
            with torch.no_grad():
                for name, mean in self.mean.items():
                    now = self.held[name]
                    if mean.is_floating_point():
                        mean.lerp_(now, 1 - share(strength, step))
                    else:
                        mean.copy_(now)

    @contextlib.contextmanager
    def instead(self) -> Iterator[None]:
        """The tensors hold their average for a while."""
        now = {name: self.held[name].detach().clone() for name in self.mean}
        put(self.held, self.mean)
        try:
            yield
        finally:
            put(self.held, now)


def put(held: Mapping[str, Tensor], values: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copy values into the tensors of those names."""
    with torch.no_grad():
        for name, tensor in held.items():
            if (value := values.get(prefix + name)) is not None:
                tensor.copy_(value)
