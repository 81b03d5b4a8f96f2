"""What strategies that train pretrained weights share beyond `_tuning`: knobs that keep these close to their start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Interval

from regraft.errors import UsageError
from regraft.strategies._tuning import Amount, Tuning
from regraft.waist import Facts, Norm, Phase, Plan, Pooled, Settings

Kept = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True, slots=True)
class Close(Tuning):
    """l2sp: strength of a penalty on the distance from the pretrained weights, in place of their decay; 0 for none.

    delta: strength of a penalty on the distance of features from the pretrained network's own.
    bss: strength of a penalty on the smallest singular value of a batch's features.
    ema: share of itself that a moving average of the weights keeps at a step; it is scored and kept. 0 for none.
    stochnorm: whether batch normalisation in trained stages takes moving statistics in half of the channels and the
    batch's in the others, drawn in each step.
    """

    l2sp: Amount = 0.0
    delta: Amount = 0.0
    bss: Amount = 0.0
    ema: Kept = 0.0
    stochnorm: bool = False

    def statistics(self, facts: Facts) -> Norm:
        """Whether trained stages update their normalisation statistics.

        Raises: UsageError: they are to be mixed with a batch's, and the network has none, or they are to be kept.
        """
        if not self.stochnorm:
            return Tuning.statistics(self, facts)
        if self.norm == "keep" or not facts.backbone.norms:
            raise UsageError(
                "moving statistics can be mixed with a batch's only where there are some, and where they may move",
                saw=f"stochnorm with norm {self.norm} and {facts.backbone.norms} such layers in {facts.backbone.name}",
                allowed="a network with batch normalisation, and norm auto or update",
                do="leave stochnorm out",
            )
        return "mix"

    def plan(self, name: str, phases: tuple[Phase, ...], lr: float, more: Settings, pooled: Pooled) -> Plan:
        """A plan of these phases at a rate, with the regularisers that have a strength.

        Raises: UsageError: features are to stay close to those of layers that start at random.
        """
        if self.delta and pooled.new:
            lacking = ", ".join(pooled.stages[i].name for i in pooled.new)
            raise UsageError(
                "features are made by layers that the checkpoint lacks: there is nothing to stay close to",
                saw=f"--{name}.delta {self.delta:g} with {lacking} at random",
                allowed="a pooling whose features are all of the checkpoint",
                do=f"--{name}.pooling mean, or leave it out",
            )
        strengths = {"l2sp": self.l2sp, "delta": self.delta, "bss": self.bss, "ema": self.ema}
        return replace(
            Tuning.plan(self, name, phases, lr, more, pooled),
            regularise=tuple((one, strength) for one, strength in strengths.items() if strength),
        )
