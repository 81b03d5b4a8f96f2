"""Choose how a backbone is read, as strategies ask for it: its pooling, where it ends, at which depths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from regraft.errors import UsageError, unknown
from regraft.waist import BackboneCard, Pooled, Stage

Asked = Literal["auto", "native", "mean"]


def ends(pooled: Pooled, asked: str) -> list[Pooled]:
    """A backbone that ends after each of these numbers of its blocks, as "2,4"; the whole one where none is asked for.

    Raises: UsageError: it cannot end after so many, or at all.
    """
    counts = [part.strip() for part in asked.split(",") if part.strip()]
    most = len(pooled.row)
    if wrong := [part for part in counts if not part.isdecimal() or not 1 <= int(part) <= most]:
        raise UsageError(
            "this backbone cannot end there",
            saw=f"blocks {wrong[0]}",
            allowed=f"1 to {most}, with commas between" if most else "no number: its blocks cannot be left out",
            do="leave it out for the whole network",
        )
    found = dict.fromkeys(int(part) for part in counts)
    return [pooled if count == most else pooled.short(count) for count in found] or [pooled]


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


def depths(stages: Sequence[Stage], count: int) -> list[int]:
    """The stages after which most evenly spread shares of the work are done; the last one is not among them.

    >>> depths([Stage(str(i), str(i), 1, 10, 4) for i in range(8)], 3)
    [1, 3, 5]
    """
    flops = [stage.flops for stage in stages]
    done = [sum(flops[: i + 1]) / max(1, sum(flops)) for i in range(len(flops) - 1)]
    shares = [(i + 1) / (count + 1) for i in range(count)]
    return sorted({min(range(len(done)), key=lambda i: abs(done[i] - share)) for share in shares}) if done else []


def heads(pooled: Pooled, frontier: int) -> tuple[int, tuple[tuple[str, float], ...]]:
    """The frontier, lowered to the first stage that the checkpoint lacks, and the rates of head and such stages."""
    new = tuple((f"{pooled.stages[i].name}/*", 1.0) for i in pooled.new)
    return min((frontier, *pooled.new)), (("head/*", 1.0), *new)
