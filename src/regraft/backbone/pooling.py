"""Choose among the poolings of a backbone, as strategies ask for them."""

from __future__ import annotations

from typing import Literal

from regraft.errors import unknown
from regraft.waist import BackboneCard, Pooled

Asked = Literal["auto", "native", "mean"]


def chosen(card: BackboneCard, asked: Asked, every: bool = False) -> list[Pooled]:
    """The pooling that was asked for; for "auto" the one that suits the checkpoint, or all of them with `every`.

    Raises: UsageError: the backbone does not offer it.
    """
    if asked == "auto":
        return list(card.poolings if every else card.poolings[:1])
    found = [one for one in card.poolings if one.pooling == asked]
    if not found:
        raise unknown("pooling of this backbone", asked, [one.pooling for one in card.poolings])
    return found


def heads(pooled: Pooled, frontier: int) -> tuple[int, tuple[tuple[str, float], ...]]:
    """The frontier, lowered to the first stage that the checkpoint lacks, and the rates of head and such stages."""
    new = tuple((f"{pooled.stages[i].name}/*", 1.0) for i in pooled.new)
    return min((frontier, *pooled.new)), (("head/*", 1.0), *new)
