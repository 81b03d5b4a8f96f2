"""Choosing among poolings, and what a plan must train where the checkpoint lacks weights."""

from __future__ import annotations

import pytest

from regraft.backbone.pooling import chosen, heads
from regraft.errors import UsageError
from regraft.waist import BackboneCard, InputSpec, Pooled, Stage

STAGES = tuple(Stage(name, name, 9, 100, 64) for name in ("words", "one", "two", "pooler"))
MEAN, NATIVE = Pooled("mean", STAGES[:3], 8, 0), Pooled("native", STAGES, 8, 0, new=(3,))


def card(*poolings: Pooled) -> BackboneCard:
    return BackboneCard("b", "transformers", "f", InputSpec("text", (32,)), 0, poolings)


def test_left_open_the_first_is_taken_or_all() -> None:
    assert chosen(card(MEAN, NATIVE), "auto") == [MEAN] and chosen(card(NATIVE, MEAN), "auto") == [NATIVE]
    assert chosen(card(MEAN, NATIVE), "auto", every=True) == [MEAN, NATIVE]


@pytest.mark.parametrize("every", [True, False])
def test_what_is_asked_for_is_taken_alone(every: bool) -> None:
    assert chosen(card(MEAN, NATIVE), "native", every) == [NATIVE]


def test_what_the_backbone_does_not_offer_is_refused_with_what_it_does() -> None:
    with pytest.raises(UsageError) as caught:
        chosen(card(NATIVE), "mean")
    assert caught.value.saw == "'mean'" and caught.value.allowed == "native"


@pytest.mark.parametrize(
    ("pooled", "frontier", "wanted"),
    [
        (MEAN, 3, (3, (("head/*", 1.0),))),
        (MEAN, 1, (1, (("head/*", 1.0),))),
        (NATIVE, 4, (3, (("head/*", 1.0), ("pooler/*", 1.0)))),
        (NATIVE, 2, (2, (("head/*", 1.0), ("pooler/*", 1.0)))),
        (Pooled("native", STAGES, 8, 0, new=(2, 3)), 4, (2, (("head/*", 1.0), ("two/*", 1.0), ("pooler/*", 1.0)))),
    ],
)
def test_the_frontier_is_lowered_to_what_starts_at_random(
    pooled: Pooled, frontier: int, wanted: tuple[int, tuple[tuple[str, float], ...]]
) -> None:
    assert heads(pooled, frontier) == wanted
