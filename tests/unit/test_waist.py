"""The waist on paper: can its records say the plans that are to come, and do they refuse what they should?"""

from __future__ import annotations

import dataclasses

import pytest

from regraft.kit.store import record
from regraft.waist import (
    BackboneCard,
    Budget,
    Cost,
    InputSpec,
    Insert,
    Loss,
    Opening,
    Optimizer,
    Options,
    Phase,
    Plan,
    Pooled,
    Pooling,
    Reading,
    Row,
    Settings,
    Stage,
    Target,
    Trial,
    fingerprint,
    plain,
)

TOP = 14  # a backbone with 12 blocks between embeddings and a pooler


def probe() -> Plan:
    return Plan("probe", (Phase(100, TOP, (("head/*", 1.0),), patience_epochs=25),))


def partial() -> Plan:
    rates = (("head/*", 1.0), ("layer.11/*", 0.1), ("pooler/*", 0.1))
    return Plan("partial", (Phase(20, TOP - 2, rates, norm="update", warmup_frac=0.1),), loss=Loss(0.1))


def lora_last_4() -> Plan:
    where = tuple(range(TOP - 5, TOP - 1))
    insert = Insert("lora", where, size=8, where="query,value", settings=(("alpha", 16), ("dora", False)))
    return Plan("lora", (Phase(10, TOP - 5, (("head/*", 1.0), ("insert/*", 1.0))),), inserts=(insert,))


def gradual_l2sp() -> Plan:
    phases = (
        Phase(5, TOP, (("head/*", 1.0),)),
        Phase(5, TOP - 2, (("head/*", 1.0), ("layer.11/*", 0.1), ("pooler/*", 0.1))),
        Phase(10, 0, (("head/*", 1.0), ("layer.*/*", 0.01), ("embeddings/*", 0.01), ("pooler/*", 0.1))),
    )
    return Plan("gradual", phases, regularise=(("l2sp", 0.01),), optimizer=Optimizer("sgd", 1e-2))


def tagging() -> Plan:
    return Plan("probe", (Phase(10, TOP - 1, (("head/*", 1.0),)),), pooling="tokens")


def two_tasks() -> tuple[Plan, Plan]:
    """One backbone, two heads: plans name no task, so both say how far down they may share a trunk."""
    return probe(), partial()


PLANS = [probe(), partial(), lora_last_4(), gradual_l2sp(), tagging(), *two_tasks()]


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.strategy)
def test_plan_survives_json(plan: Plan) -> None:
    again = record(Plan, plain(plan))
    assert again == plan
    assert fingerprint(again) == fingerprint(plan)


def test_trunk_is_the_lowest_thing_that_changes() -> None:
    assert probe().trunk == TOP
    assert partial().trunk == TOP - 2
    assert lora_last_4().trunk == TOP - 5
    assert gradual_l2sp().trunk == 0
    assert dataclasses.replace(probe(), init="random").trunk == 0
    varied = dataclasses.replace(probe(), augment=(("how", "flip"), ("views", 2)))
    assert (varied.trunk, varied.views, probe().views) == (TOP, 2, 1), "views of a row go through the trunk as it does"


def test_an_insert_below_the_frontier_lowers_the_trunk() -> None:
    low = dataclasses.replace(probe(), inserts=(Insert("prompt", (0,), 16),))
    assert low.trunk == 0


def test_two_tasks_share_the_deeper_of_their_trunks() -> None:
    first, second = two_tasks()
    assert min(first.trunk, second.trunk) == TOP - 2


def test_tags_are_a_target_and_a_row() -> None:
    target = Target("ner_tags", "tags", ("O", "B-PER", "I-PER"))
    row = Row("1", ("Ada", "wrote"), ("B-PER", "O"), "", "key")
    assert set(row.y) <= set(target.labels)


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        probe().batch = 3  # type: ignore[misc]


def test_fingerprint_sees_content_only() -> None:
    assert fingerprint(probe()) == fingerprint(probe())
    changed = [
        dataclasses.replace(probe(), batch=33),
        dataclasses.replace(probe(), optimizer=Optimizer(lr=2e-3)),
        dataclasses.replace(probe(), phases=(dataclasses.replace(probe().phases[0], epochs=99),)),
    ]
    assert len({fingerprint(p) for p in [probe(), *changed]}) == 4


@pytest.mark.parametrize(
    ("knobs", "pooling", "label"),
    [
        ((), "native", "partial"),
        ((("depth", 2), ("lr", 0.1)), "native", "partial depth 2 lr 0.1"),
        ((("lr", 3e-4), ("ratio", 0.1)), "native", "partial lr 0.0003"),
        ((("by", "plain"), ("c", 10.0)), "native", "partial plain c 10"),
        ((("by", "lpft"), ("ratio", 0.1), ("lr", 1e-3)), "mean", "partial lpft lr 0.001 (mean)"),
        ((("depth", 1),), "mean", "partial depth 1 (mean)"),
        ((), "tokens", "partial (tokens)"),
    ],
)
def test_a_plan_is_called_by_what_sets_it_apart(knobs: Settings, pooling: Pooling, label: str) -> None:
    plan = dataclasses.replace(partial(), knobs=knobs, pooling=pooling)
    assert plan.label == label == Trial(plan, 0, (), (), Cost(1.0, 1), "", "").label


def test_a_plan_on_validation_rows_too_says_so() -> None:
    assert dataclasses.replace(probe(), fold="all", pooling="mean").label == "probe (mean) and validation"


def test_a_backbone_is_told_under_the_pooling_that_suits_it() -> None:
    stages = (Stage("a", "a", 5, 0, 0), Stage("b", "b", 7, 0, 0))
    mean, native = Pooled("mean", stages[:1], 8, 0), Pooled("native", stages, 16, 2, new=(1,))
    card = BackboneCard("b", "p", "f", InputSpec("text", (32,)), 0, (mean, native))
    assert (card.stages, card.dim, card.params) == (stages[:1], 8, 5)
    assert record(BackboneCard, plain(card)) == card


@pytest.mark.parametrize(
    ("counts", "unequal"), [((), False), ((4,), False), ((5, 14), False), ((5, 15), True), ((0, 1), True)]
)
def test_classes_are_far_apart_from_three_times_on(counts: tuple[int, ...], unequal: bool) -> None:
    assert Target("y", "class", tuple(map(str, range(len(counts)))), counts).unequal is unequal


def test_requests_and_bundles_survive_json() -> None:
    reading = Reading("y", ("a", "b"), sensitive=("sex",), order=("low", "high"), max_rows=5)
    options = Options("d", "m", reading, ("probe",), (("probe.lr", "0.1"),), long="windows", max_tokens=64)
    assert record(Options, plain(options)) == options
    opening = Opening("sentence_transformers", "import x\n'\u2028'", "made = 1")
    assert record(Opening, plain(opening)) == opening


def test_any_text_has_a_fingerprint() -> None:
    """Half a surrogate pair stands in tables that were written carelessly."""
    found = {fingerprint(text) for text in ("\ud800", "\udfff", "", "a", ("a",), "é", "e\u0301")}
    assert len(found) == 7 and all(len(digest) == 64 for digest in found)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("30s", Budget(seconds=30)),
        ("5m", Budget(seconds=300)),
        ("1h30m", Budget(seconds=5400)),
        ("12trials", Budget(trials=12)),
        ("20epochs", Budget(epochs=20)),
        ("8GB", Budget(bytes=8 * 10**9)),
        ("0.1kWh", Budget(kwh=0.1)),
    ],
)
def test_budget_is_read(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "5", "m", "1.5trials", "0trials", "ten minutes", "0m"])
def test_budget_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a budget: .*1h30m"):
        Budget.parse(text)
