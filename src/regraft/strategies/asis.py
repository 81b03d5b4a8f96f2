"""As is: the pretrained network without any training, told apart by its own labels, by texts, or by class centroids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from regraft.backbone.names import matched
from regraft.backbone.pooling import Asked, chosen
from regraft.errors import UsageError
from regraft.kit import shelf
from regraft.waist import Facts, Phase, Plan, Pooled

By = Literal["labels", "names", "cosine", "centroids"]


@dataclass(frozen=True, slots=True)
class Knobs:
    """by: what sets the head: the checkpoint's own labels, the embedded names of the classes (sentence encoders), the
    cosine of a pair, the centroids of the training rows, or auto: each of these that the data allows.

    pooling: native (as the architecture's own classifier), mean (over tokens), or auto: what suits the checkpoint.
    """

    by: Literal["auto", "labels", "names", "cosine", "centroids"] = "auto"
    pooling: Asked = "auto"


def propose(facts: Facts, knobs: Knobs) -> list[Plan]:
    """A plan without an epoch for each way that applies; none where the network lacks weights or no way applies.

    Raises: UsageError: the way that was asked for does not apply.
    """
    whole = [one for one in chosen(facts.backbone, knobs.pooling, every=True) if not one.new]
    ways = [by for by in get_args(By) if whole and _applies(by, facts, whole[0])]
    if knobs.by != "auto" and knobs.by not in ways:
        raise UsageError(
            "the network cannot answer this as it is in that way",
            saw=f"--asis.by {knobs.by}",
            allowed=", ".join(ways) or f"nothing for a target of kind {facts.data.target.kind!r} here",
            do="labels needs classes that are all among the checkpoint's own, names a sentence encoder and classes of "
            "single texts, cosine pairs of texts that are averaged, centroids classes or labels",
        )
    return [
        Plan(
            "asis",
            (Phase(0, len(whole[0].stages), ()),),
            (("by", by),),
            pooling=whole[0].pooling,
            start=by,
        )
        for by in ways
        if knobs.by in ("auto", by)
    ]


def _applies(by: By, facts: Facts, pooled: Pooled) -> bool:
    """Whether a head can be set in this way under this pooling."""
    kind, own = facts.data.target.kind, pooled.pooling == facts.backbone.poolings[0].pooling
    apart = len(facts.data.columns) == 2 and pooled.pooling == "mean"
    if by == "labels":
        known = matched(facts.backbone.labels, facts.data.target.labels)
        return kind == "class" and own and not apart and known is not None
    if by == "names":
        texts = shelf.find("modalities", facts.data.modality).LITERAL and len(facts.data.columns) < 2
        return bool(kind == "class" and own and pooled.pooling == "mean" and texts)
    if by == "cosine":
        return apart and kind in ("class", "multi", "number")
    return kind in ("class", "multi")
