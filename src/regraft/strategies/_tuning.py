"""What strategies that take gradient steps share: their knobs, the rates of stages, the update rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Interval

from regraft.backbone.pooling import Asked, heads
from regraft.errors import UsageError
from regraft.waist import (
    Count,
    Facts,
    Loss,
    Norm,
    Optimizer,
    Passes,
    Phase,
    Plan,
    Pooled,
    Schedule,
    Settings,
    Share,
    Stage,
)

Several = Annotated[float, Interval(ge=0, lt=float("inf"))]
Amount = Annotated[float, Interval(ge=0, lt=float("inf"))]
Part = Annotated[float, Interval(ge=0, le=1)]
Sampling = Literal["rows", "root", "balanced"]
DRAWN: dict[Sampling, float] = {"rows": 0.0, "root": 0.5, "balanced": 1.0}
FEW_ROWS = 5000
FEW_IN_BATCH = 16
MOST_STEPS = 1500
FEWEST = 3


@dataclass(frozen=True, slots=True)
class Tuning:
    """lr: rate of the head; 0 takes the usual one, and several in a race.

    epochs: passes over the training rows at most, 0 for as many as suit their number. batch: rows in a step.
    warmup: share of the steps in which the rate rises. schedule: constant, linear or cosine.
    patience: epochs without a lower validation loss before it ends, 0 for a quarter of all.
    optimizer: adamw or sgd. momentum: of sgd. decay: weight decay. clip: most norm of a gradient, 0 for any.
    smoothing: share of probability spread over all classes.
    balance: how much rows of rare classes weigh more, 1 lets every class count equally; left out, --balance decides.
    focal: gamma of the focal loss. adjust: tau of logit adjustment. robust: q of generalised cross-entropy.
    reverse: weight of reverse cross-entropy beside cross-entropy. asymmetric: gamma of a no, with several labels.
    sampling: rows as they come, balanced (every class as often in an epoch), or root (half of the way).
    norm: whether trained stages update their normalisation statistics; auto keeps them where rows are few.
    pooling: native (as the architecture's own classifier), mean (over tokens), or auto: what suits the checkpoint.
    augment: how training cells are varied: for pictures flip, or crop (random resized crop and flip); none leaves them.
    views: how many variations of each row take turns and are cached; 0 for as many as help and fit into the cache.
    """

    lr: Several = 0.0
    epochs: Passes = 0
    batch: Count = 32
    warmup: Share = 0.1
    schedule: Schedule = "cosine"
    patience: Passes = 0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Share = 0.9
    decay: Amount = 0.01
    clip: Amount = 1.0
    smoothing: Share = 0.0
    balance: Amount = 0.0
    focal: Amount = 0.0
    adjust: Amount = 0.0
    robust: Part = 0.0
    reverse: Amount = 0.0
    asymmetric: Amount = 0.0
    sampling: Sampling = "rows"
    norm: Literal["auto", "keep", "update"] = "auto"
    pooling: Asked = "auto"
    augment: str = "none"
    views: Passes = 0

    def rates(self, usual: tuple[float, ...]) -> tuple[float, ...]:
        """The rate that was asked for, otherwise the usual ones, the most promising first."""
        return (self.lr,) if self.lr else usual

    def rule(self, lr: float) -> Optimizer:
        """The update rule at a rate."""
        return Optimizer(self.optimizer, lr, weight_decay=self.decay, momentum=self.momentum, clip=self.clip)

    def statistics(self, facts: Facts) -> Norm:
        """Whether trained stages update their normalisation statistics."""
        few = facts.train_rows < FEW_ROWS or self.batch < FEW_IN_BATCH
        return "update" if self.norm == "update" or (self.norm == "auto" and not few) else "keep"

    def phase(self, facts: Facts, most: int, frontier: int, rates: tuple[tuple[str, float], ...]) -> Phase:
        """A stretch of at most so many epochs above a frontier, with early stopping."""
        return Phase(
            most,
            frontier,
            rates,
            schedule=self.schedule,
            norm=self.statistics(facts),
            warmup_frac=self.warmup,
            patience_epochs=self.patience or max(5, most // 4),
        )

    def plan(self, name: str, phases: tuple[Phase, ...], lr: float, more: Settings, pooled: Pooled) -> Plan:
        """A plan of these phases at a rate."""
        return Plan(
            name,
            phases,
            self.told(lr, more),
            pooling=pooled.pooling,
            blocks=pooled.blocks,
            optimizer=self.rule(lr),
            loss=self.loss(),
            sampling=DRAWN[self.sampling],
            batch=self.batch,
            augment=self.varied(),
        )

    def told(self, lr: float, more: Settings = ()) -> Settings:
        """The knobs by which plans of one strategy are told apart and read later."""
        return (*more, ("lr", lr), ("optimizer", self.optimizer), ("batch", self.batch), *self.lossy())

    def loss(self) -> Loss:
        """The loss that was asked for."""
        shape = {"focal": self.focal, "robust": self.robust, "reverse": self.reverse, "asymmetric": self.asymmetric}
        return Loss(self.smoothing, self.balance, adjust=self.adjust, **shape)

    def varied(self) -> Settings:
        """How training cells are varied, and in how many views; nothing where they are not."""
        return (("how", self.augment), ("views", self.views)) if self.augment != "none" else ()

    def lossy(self) -> Settings:
        """What of the loss and of the sampling is not as usual, to tell plans apart by."""
        loss = self.loss()
        drawn = (("sampling", self.sampling),) if DRAWN[self.sampling] else ()
        return (*((f.name, v) for f in fields(loss) if f.name != "smoothing" and (v := getattr(loss, f.name))), *drawn)


def stages(
    pooled: Pooled, frontier: int, share: Callable[[int], float], head: float = 1.0
) -> tuple[int, tuple[tuple[str, float], ...]]:
    """The frontier and the rates of all from it on: stage i at `share(i)`, the head and what the checkpoint lacks at
    `head`.
    """
    frontier, rates = heads(pooled, frontier)
    old = [i for i in range(frontier, len(pooled.stages)) if pooled.stages[i].params and i not in pooled.new]
    glue = [("glue/*", share(0))] if pooled.glue and not frontier else []
    found = [(pattern, head) for pattern, _ in rates] + [(f"{pooled.stages[i].name}/*", share(i)) for i in old]
    return frontier, (*found, *glue)


def placed(pooled: Pooled, last: int, knob: str) -> tuple[int, ...]:
    """The last blocks (stages with weights, where there are none), 0 for all.

    Raises: UsageError: there are not that many.
    """
    old = [i for i, stage in enumerate(pooled.stages) if stage.params and i not in pooled.new]
    blocks = [i for i in pooled.row if i in old] or old
    if last > len(blocks):
        raise UsageError(
            "this backbone does not have that many blocks",
            saw=f"--{knob} {last}",
            allowed=f"0 for all, or 1 to {len(blocks)}: " + ", ".join(pooled.stages[i].name for i in blocks),
            do=f"choose at most {len(blocks)}",
        )
    return tuple(blocks[-last:])


def selected(
    pooled: Pooled, first: int, patterns: Callable[[Stage], tuple[str, ...]], ratio: float
) -> tuple[int, tuple[tuple[str, float], ...]]:
    """The frontier and the rates where some weights of each stage from `first` on train: those that `patterns` name.

    Raises: UsageError: there are none.
    """
    found = {i: patterns(s) for i, s in enumerate(pooled.stages) if i >= first and i not in pooled.new}
    lowest = min((i for i, some in found.items() if some), default=None)
    if lowest is None:
        raise UsageError(
            "this backbone has no such weights",
            saw="nothing to train in " + ", ".join(pooled.stages[i].name for i in found),
            do="choose another strategy, or more blocks",
        )
    frontier, rates = heads(pooled, lowest)
    names = [f"{pooled.stages[i].name}/{pattern}" for i, some in found.items() for pattern in some]
    return frontier, (*rates, *((name, ratio) for name in names))


def epochs(asked: int, most: int, rows: int, batch: int) -> int:
    """The epochs that were asked for; for 0 as many as fit 1,500 steps through the backbone, from 3 to `most`.

    >>> epochs(0, 20, 200, 32), epochs(0, 20, 8000, 32), epochs(0, 20, 100_000, 32), epochs(7, 20, 8000, 32)
    (20, 6, 3, 7)
    """
    return asked or max(FEWEST, min(most, MOST_STEPS * batch // max(1, rows)))
