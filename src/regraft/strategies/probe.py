"""Probe: the backbone stays as it is; a linear head is trained on its features."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from regraft.backbone.pooling import chosen, ends, heads
from regraft.errors import UsageError
from regraft.strategies._tuning import DRAWN, Tuning, epochs
from regraft.waist import Facts, Optimizer, Phase, Plan, Pooled, Schedule, Settings, Share

SHARED: tuple[tuple[str, str], ...] = ()
"""It leaves the backbone to other tasks; the knobs that it has then."""
RATES = (1e-3, 1e-2)
PASSES = 30
GRID = tuple(round(1e-3 * 10 ** (i / 4), 6) for i in range(13)), (0.0, 0.9), (0.0, 1e-4)
"""Rates, momenta and weight decays of which every combination is tried."""
OF_BOTH = ("pooling", "smoothing", "balance", "sampling", "blocks")
FEW = (("by", "path"),)
"""It also runs where few rows of each class are asked for, and cross-validation among these chooses then."""
WAYS = {
    "path": (("class", "number"), "one class or one number", ("by", *OF_BOTH, "augment", "views")),
    "grid": (
        ("class",),
        "one class",
        ("by", "lr", "momentum", "decay", "epochs", "batch", "warmup", "schedule", *OF_BOTH),
    ),
}
"""How cross-validation chooses a head: for which kinds of targets, and with which knobs."""


@dataclass(frozen=True, slots=True)
class Knobs(Tuning):
    """by: steps of gradient descent, or a head that cross-validation on the training rows chooses: path tries ridge and
    logistic heads over whole paths of penalties, and of the other knobs it has pooling, smoothing, balance, sampling
    (as weights of the rows, which it takes all at once) and blocks alone;
    grid tries heads trained by SGD at 13 rates, with momentum 0 and 0.9, weight decay 0 and 0.0001, or only the lr, and
    the momentum and decay other than their defaults, that are given.

    epochs: passes over the training rows at most, 0 for 100; of a grid exactly so many, 0 for as many as fit 1,500
    steps, from 3 to 30. patience: 0 for a quarter of these, 10 at least.

    pooling: native (as the architecture's own classifier), mean (over tokens), or auto: every one that the backbone
    offers is run, and validation decides.

    blocks: after how many of its blocks the network ends, several with commas between; each is a plan of its own and
    ships a smaller network. None for all.
    """

    warmup: Share = 0.0
    schedule: Schedule = "cosine"
    by: Literal["steps", "path", "grid"] = "steps"
    blocks: str = ""

    def grid(self) -> tuple[tuple[float, ...], ...]:
        """Rates, momenta and weight decays of a grid: what was asked for, otherwise the usual ones."""
        usual = Knobs()
        momenta = GRID[1] if self.momentum == usual.momentum else (self.momentum,)
        return self.rates(GRID[0]), momenta, GRID[2] if self.decay == usual.decay else (self.decay,)


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan per pooling and rate: everything frozen but layers that the checkpoint lacks, early stopping.

    Raises: UsageError: by path or grid, a target that has none, layers that must be trained, or knobs of other ways.
    """
    pools = [end for one in chosen(facts.backbone, knobs.pooling, every=True) for end in ends(one, knobs.blocks)]
    if knobs.by != "steps":
        return _chosen(facts, knobs, pools)
    plans = []
    most = knobs.epochs or 100
    for pooled in pools:
        frontier, rates = heads(pooled, len(pooled.stages))
        phase = Phase(
            most,
            frontier,
            rates,
            schedule=knobs.schedule,
            warmup_frac=knobs.warmup,
            patience_epochs=knobs.patience or max(10, most // 4),
        )
        plans += [knobs.plan("probe", (phase,), lr, _told(pooled), pooled) for lr in knobs.rates(RATES)]
    return plans


def _chosen(facts: Facts, knobs: Knobs, pools: list[Pooled]) -> list[Plan]:
    """A plan per pooling that needs no layer of its own trained."""
    target, way, (kinds, shape, takes) = facts.data.target, f"--probe.by {knobs.by}", WAYS[knobs.by]
    if idle := [f.name for f in fields(knobs) if f.name not in takes and getattr(knobs, f.name) != f.default]:
        raise UsageError(
            "a head that is chosen by cross-validation in this way has fewer knobs",
            saw=", ".join(f"--probe.{name}" for name in idle) + f" with {way}",
            allowed=", ".join(f"--probe.{name}" for name in takes[1:]),
            do="leave the others out, or --probe.by steps",
        )
    if target.kind not in kinds:
        raise UsageError(
            "a head cannot be chosen by cross-validation in this way for this target",
            saw=f"{way} for {target.name}, a target of kind {target.kind!r}",
            allowed=f"{shape} for each row",
            do="--probe.by steps" + (", or --probe.by path" if target.kind in WAYS["path"][0] else ""),
        )
    ready = [pooled for pooled in pools if not pooled.new]
    if not ready:
        raise UsageError(
            "the features of this backbone come from layers that its checkpoint lacks",
            saw=f"{way} with pooling {knobs.pooling}",
            allowed="features that stay as they are",
            do="--probe.by steps, or another --probe.pooling",
        )
    rule, phase = Optimizer("path"), Phase(1, 0, (("head/*", 1.0),))
    if knobs.by == "grid":
        rule = Optimizer("grid", grid=knobs.grid())
        passes = epochs(knobs.epochs, PASSES, facts.train_rows, knobs.batch)
        phase = replace(phase, epochs=passes, schedule=knobs.schedule, warmup_frac=knobs.warmup)
    return [
        Plan(
            "probe",
            (replace(phase, frontier=len(pooled.stages)),),
            (("by", knobs.by), *_told(pooled), *knobs.lossy()),
            pooling=pooled.pooling,
            blocks=pooled.blocks,
            optimizer=rule,
            loss=knobs.loss(),
            sampling=DRAWN[knobs.sampling],
            batch=knobs.batch,
            augment=knobs.varied(),
        )
        for pooled in ready
    ]


def _told(pooled: Pooled) -> Settings:
    """After how many blocks the network ends, where not after all."""
    return (("blocks", pooled.blocks),) if pooled.blocks else ()
