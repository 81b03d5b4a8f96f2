"""Which ways of using a network as it is are proposed for which data, and what a plan of them says."""

from __future__ import annotations

import pytest

from regraft.errors import UsageError
from regraft.strategies.asis import Knobs, propose
from regraft.waist import (
    BackboneCard,
    DataCard,
    Facts,
    InputSpec,
    MachineCard,
    Phase,
    Plan,
    Pooled,
    Stage,
    Target,
    TargetKind,
)

STAGES = tuple(Stage(name, name, 9, 100, 64) for name in ("words", "one", "two", "pooler"))
MEAN, NATIVE = Pooled("mean", STAGES[:3], 8, 0), Pooled("native", STAGES, 8, 0)
LACKING = Pooled("native", STAGES, 8, 0, new=(3,))
KNOWN = ("wasp", "bee", "ant, emmet")
MACHINE = MachineCard("cpu", 1, 10**9, "cpu", "float32", "exact", 8)
TARGETS: dict[TargetKind, Target] = {
    "class": Target("y", "class", ("ants", "bees"), (5, 5)),
    "multi": Target("y", "multi", ("ants", "bees"), (5, 5)),
    "number": Target("y", "number", centre=1.0),
}


def facts(
    kind: TargetKind = "class",
    poolings: tuple[Pooled, ...] = (NATIVE,),
    labels: tuple[str, ...] = (),
    modality: str = "text",
    columns: tuple[str, ...] = ("text",),
) -> Facts:
    data = DataCard("d", modality, "f", TARGETS[kind], (("train", 10), ("val", 5)), columns=columns)
    body = BackboneCard("b", "p", "f", InputSpec(modality, (32,)), 0, poolings, labels=labels)
    return Facts(data, body, MACHINE)


def ways(of: Facts, knobs: Knobs | None = None) -> list[tuple[str, str]]:
    return [(plan.start, plan.pooling) for plan in propose(of, knobs or Knobs())]


PAIR = ("text1", "text2")
WAYS = [
    ({"modality": "image", "columns": ()}, [("centroids", "native")]),
    ({"modality": "image", "columns": (), "labels": KNOWN}, [("labels", "native"), ("centroids", "native")]),
    ({"modality": "image", "columns": (), "labels": KNOWN, "kind": "multi"}, [("centroids", "native")]),
    ({"modality": "image", "columns": (), "labels": KNOWN[:2]}, [("centroids", "native")]),
    ({"modality": "image", "columns": (), "kind": "number"}, []),
    ({"poolings": (MEAN, LACKING)}, [("names", "mean"), ("centroids", "mean")]),
    ({"poolings": (MEAN, LACKING), "columns": ()}, [("names", "mean"), ("centroids", "mean")]),
    ({"poolings": (MEAN, LACKING), "kind": "multi"}, [("centroids", "mean")]),
    ({"poolings": (MEAN, LACKING), "kind": "number"}, []),
    ({"poolings": (MEAN, LACKING), "modality": "image"}, [("centroids", "mean")]),
    ({"poolings": (NATIVE, MEAN)}, [("centroids", "native")]),
    ({"poolings": (NATIVE, MEAN), "labels": KNOWN}, [("labels", "native"), ("centroids", "native")]),
    ({"poolings": (LACKING, MEAN), "labels": KNOWN}, [("centroids", "mean")]),
    ({"poolings": (MEAN, NATIVE), "labels": KNOWN}, [("labels", "mean"), ("names", "mean"), ("centroids", "mean")]),
    ({"poolings": (LACKING,), "labels": KNOWN}, []),
    ({"poolings": (MEAN, LACKING), "columns": PAIR}, [("cosine", "mean"), ("centroids", "mean")]),
    ({"poolings": (MEAN, LACKING), "columns": PAIR, "kind": "number"}, [("cosine", "mean")]),
    ({"poolings": (MEAN, LACKING), "columns": PAIR, "labels": KNOWN}, [("cosine", "mean"), ("centroids", "mean")]),
    ({"poolings": (NATIVE, MEAN), "columns": PAIR, "labels": KNOWN}, [("labels", "native"), ("centroids", "native")]),
    ({"poolings": (NATIVE, MEAN), "columns": PAIR, "kind": "number"}, []),
]


@pytest.mark.parametrize(("given", "wanted"), WAYS, ids=str)
def test_every_way_that_applies_is_proposed(given: dict[str, object], wanted: list[tuple[str, str]]) -> None:
    assert ways(facts(**given)) == wanted  # type: ignore[arg-type]


def test_a_plan_trains_nothing() -> None:
    plan, other = propose(facts(poolings=(MEAN, LACKING)), Knobs())
    assert plan == Plan("asis", (Phase(0, 3, ()),), (("by", "names"),), pooling="mean", start="names")
    assert plan.trunk == 3 and (plan.label, other.label) == ("asis names (mean)", "asis centroids (mean)")


def test_a_pooling_that_is_asked_for_is_taken() -> None:
    both = facts(poolings=(NATIVE, MEAN), labels=KNOWN)
    assert ways(both, Knobs(pooling="mean")) == [("centroids", "mean")], "labels belong to the first pooling alone"
    assert ways(facts("number", (NATIVE, MEAN), columns=PAIR), Knobs(pooling="mean")) == [("cosine", "mean")]
    assert ways(facts(poolings=(MEAN, LACKING)), Knobs(pooling="native")) == []
    with pytest.raises(UsageError, match="no pooling of this backbone"):
        propose(facts(), Knobs(pooling="mean"))


@pytest.mark.parametrize("by", ["labels", "centroids"])
def test_a_way_that_is_asked_for_comes_alone(by: str) -> None:
    assert ways(facts(labels=KNOWN), Knobs(by=by)) == [(by, "native")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("by", "of", "allowed"),
    [
        ("labels", facts(), "centroids"),
        ("names", facts(labels=KNOWN), "labels, centroids"),
        ("cosine", facts(poolings=(MEAN, LACKING)), "names, centroids"),
        ("centroids", facts("number", (MEAN,), columns=PAIR), "cosine"),
        ("centroids", facts("number"), "nothing for a target of kind 'number' here"),
        ("centroids", facts(poolings=(LACKING,)), "nothing for a target of kind 'class' here"),
    ],
)
def test_a_way_that_does_not_apply_is_refused_with_those_that_do(by: str, of: Facts, allowed: str) -> None:
    with pytest.raises(UsageError) as caught:
        propose(of, Knobs(by=by))  # type: ignore[arg-type]
    assert caught.value.what == "the network cannot answer this as it is in that way"
    assert (caught.value.saw, caught.value.allowed) == (f"--asis.by {by}", allowed)
    assert "sentence encoder" in caught.value.do
