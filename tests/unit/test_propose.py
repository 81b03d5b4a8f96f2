"""From facts and knobs to plans: texts become knobs, what cannot be is refused with the nearest name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from regraft.errors import UsageError
from regraft.kit import shelf
from regraft.planner.propose import check_knobs, effort, knobs_of, make_knobs, propose
from regraft.waist import BackboneCard, DataCard, Facts, InputSpec, Loss, MachineCard, Plan, Pooled, Stage, Target

STAGES = tuple(
    Stage(name, name, params, 100, 64, 1, ("norm.weight",))
    for name, params in (("stem", 9), ("one", 9), ("pool", 0), ("two", 9))
)

TUNED = ("bitfit", "bottleneck", "full", "gradual", "ia3", "layerwise", "lora", "norms", "partial", "prefix")
TUNED += ("probe", "prompt", "scratch", "side")
"""Strategies that take gradient steps; asis is the one that takes none."""
MEAN = Pooled("mean", STAGES[:2], 5, 0)
LACKING = Pooled("native", STAGES, 16, 0, new=(3,))


def facts(rows: int = 100, glue: int = 0, poolings: tuple[Pooled, ...] = ()) -> Facts:
    data = DataCard("d", "image", "f", Target("label", "class", ("a", "b"), (50, 50)), (("train", rows), ("val", 9)))
    body = BackboneCard(
        "b",
        "transformers",
        "f",
        InputSpec("image", (3, 8, 8)),
        0,
        poolings or (Pooled("native", STAGES, 16, glue),),
    )
    return Facts(data, body, MachineCard("cpu", 1, 10**9, "cpu", "float32", "exact", 8))


def tuned(strategy: str, given: Facts, more: list[tuple[str, str]] | None = None) -> Plan:
    """The strategy's one plan that goes through the network: not the plain one of scratch, one way of gradual."""
    way = {"scratch": [("scratch.by", "random")], "gradual": [("gradual.by", "lpft")]}.get(strategy, [])
    (plan,) = propose(given, [strategy], list(dict([*way, *(more or [])]).items()))
    return plan


def knobs(**given: Any) -> list[tuple[str, str]]:
    return [(name.replace("__", "."), str(value)) for name, value in given.items()]


# ---------------------------------------------------------------- plans


def test_each_strategy_proposes_in_turn() -> None:
    plans = propose(facts(), ["scratch", "probe"], [])
    assert [(plan.strategy, plan.init) for plan in plans] == [
        ("scratch", "plain"),
        ("scratch", "random"),
        ("scratch", "random"),
        ("probe", "pretrained"),
    ]


def test_without_a_race_there_is_one_rate_of_each_kind() -> None:
    plans = propose(facts(), shelf.names("strategies"), [])
    told = [plan.label for plan in plans]
    assert told == [
        "asis centroids",
        "bitfit lr 0.001",
        "bottleneck houlsby lr 0.001",
        "contrast depth 2 lr 0.0003",
        "full lr 0.001",
        "gradual lpft lr 0.001",
        "gradual unfreeze lr 0.001",
        "ia3 lr 0.001",
        "layerwise lr 0.001",
        "lora rank 8 lr 0.001",
        "norms lr 0.001",
        "partial depth 2 lr 0.001",
        "prefix lr 0.001",
        "probe lr 0.001",
        "prompt deep lr 0.001",
        "prototype",
        "scratch plain c 10",
        "scratch features",
        "scratch random lr 0.002",
        "side lr 0.001",
    ]


def test_a_race_has_every_rate_and_the_cheapest_kinds_first() -> None:
    plans = propose(facts(), shelf.names("strategies"), [], raced=True)
    assert [(plan.init, plan.phases[0].epochs) for plan in plans[:3]] == [("plain", 1), ("plain", 1), ("pretrained", 0)]
    assert {plan.init for plan in plans[-2:]} == {"random"}, "random starts come last"
    efforts = [effort(plan, facts()) for plan in plans]
    assert efforts == sorted(efforts)
    once = propose(facts(), shelf.names("strategies"), [])
    assert set(once) < set(plans), "the first rate of each kind is the one that runs without a race"
    rates = {plan.optimizer.lr for plan in plans if plan.strategy == "full"}
    assert rates == {1e-3, 3e-4, 3e-3}


@pytest.mark.parametrize("strategy", TUNED)
def test_a_rate_that_is_asked_for_is_the_only_one(strategy: str) -> None:
    plans = propose(facts(), [strategy], [(f"{strategy}.lr", "0.02")], raced=True)
    assert {plan.optimizer.lr for plan in plans if not plan.optimizer.whole} == {0.02}
    kinds = propose(facts(), [strategy], [(f"{strategy}.lr", "0.02")])
    assert set(kinds) <= set(plans)


def test_knobs_reach_their_strategy_alone() -> None:
    probe, partial = propose(facts(), ["probe", "partial"], knobs(probe__lr=0.5, partial__batch=7))
    assert probe.optimizer.lr == 0.5 and probe.batch == 32
    assert partial.optimizer.lr == 1e-3 and partial.batch == 7


def test_a_strategy_of_somebody_else_is_asked_by_its_last_name() -> None:
    (plan,) = propose(facts(), ["regraft.strategies.probe"], knobs(probe__epochs=3))
    assert plan.phases[0].epochs == 3


@pytest.mark.parametrize("strategy", TUNED)
def test_knobs_have_types_and_defaults(strategy: str) -> None:
    found = knobs_of(strategy)
    assert found["lr"][0] is float and found["epochs"][0] is int and found["batch"] == (int, 32)
    assert make_knobs(strategy, {}).batch == 32


def test_what_takes_no_step_has_no_knobs_of_steps() -> None:
    assert set(knobs_of("asis")) == {"by", "pooling"}
    with pytest.raises(UsageError, match=r"saw: 'asis\.epochs' · allowed: asis\.by, asis\.pooling"):
        propose(facts(), ["asis"], knobs(asis__epochs=1))


@pytest.mark.parametrize("strategy", TUNED)
def test_steps_have_the_same_knobs_everywhere(strategy: str) -> None:
    asked = {"lr": 0.5, "epochs": 7, "batch": 5, "schedule": "linear", "patience": 3}
    asked |= {"optimizer": "sgd", "momentum": 0.5, "decay": 0.125, "clip": 0.0, "smoothing": 0.25, "warmup": 0.5}
    asked |= {"balance": 0.25, "focal": 2.0, "adjust": 0.5, "robust": 0.75, "sampling": "root"}
    asked |= {"reverse": 10.0, "asymmetric": 4.0}
    plan = tuned(strategy, facts(), [(f"{strategy}.{name}", str(value)) for name, value in asked.items()])
    assert (plan.loss, plan.sampling) == (Loss(0.25, 0.25, 2.0, 0.5, 0.75, 0.0, 10.0, 4.0), 0.5)
    assert "balance 0.25 focal 2 adjust 0.5 robust 0.75 reverse 10 asymmetric 4 sampling root" in plan.label
    rule, phase = plan.optimizer, plan.phases[-1]
    assert (rule.name, rule.lr, rule.momentum, rule.weight_decay, rule.clip) == ("sgd", 0.5, 0.5, 0.125, 0.0)
    assert (plan.batch, plan.loss.smoothing) == (5, 0.25)
    assert (phase.epochs, phase.schedule, phase.patience_epochs, phase.warmup_frac) == (7, "linear", 3, 0.5)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("knob", "value", "allowed", "default"),
    [
        ("partial.depth", "two", "valid integer", "2"),
        ("partial.depth", "1.5", "valid integer", "2"),
        ("partial.lr", "fast", "valid number", "0.0"),
        ("partial.norm", "kept", "'auto', 'keep' or 'update'", "auto"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(knob: str, value: str, allowed: str, default: str) -> None:
    with pytest.raises(UsageError) as caught:
        propose(facts(), ["partial"], [(knob, value)])
    assert caught.value.what == "a knob has a value of the wrong kind"
    assert caught.value.saw == f"--{knob} {value}" and allowed in caught.value.allowed
    assert caught.value.do == f"the default is {default}"


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("probe.batch", "0"),
        ("probe.batch", "-3"),
        ("probe.epochs", "-1"),
        ("probe.patience", "-1"),
        ("full.momentum", "1"),
        ("full.decay", "-0.1"),
        ("layerwise.fall", "0"),
        ("gradual.clip", "nan"),
        ("scratch.c", "-1"),
        ("probe.lr", "nan"),
        ("probe.lr", "inf"),
        ("probe.lr", "-1"),
        ("partial.smoothing", "2"),
        ("partial.smoothing", "-0.1"),
        ("full.robust", "1.1"),
        ("full.focal", "-1"),
        ("full.adjust", "inf"),
        ("full.sampling", "even"),
        ("partial.warmup", "-1"),
        ("partial.warmup", "1.5"),
        ("partial.ratio", "0"),
        ("partial.ratio", "-1"),
        ("partial.ratio", "nan"),
    ],
)
def test_a_value_out_of_range_is_refused_before_any_work(knob: str, value: str) -> None:
    with pytest.raises(UsageError, match=re.escape(value)):
        propose(facts(), [knob.split(".")[0]], [(knob, value)])


def test_an_unknown_knob_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        check_knobs(["probe", "partial"], [("partial.dept", "1")])
    assert caught.value.what == "there is no knob of that name" and caught.value.saw == "'partial.dept'"
    assert caught.value.do == "did you mean partial.depth?"


def test_a_knob_of_a_strategy_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"saw: 'partial\.depth' · allowed: probe\.adjust, .*, probe\.by, .*, probe\.lr, .*pool"
    ):
        check_knobs(["probe"], [("partial.depth", "1")])


# ---------------------------------------------------------------- the strategies on the shelf


def test_the_probe_trains_the_head_on_top() -> None:
    (plan,) = propose(facts(), ["probe"], [])
    assert plan.trunk == len(STAGES) and plan.phases[0].rates == (("head/*", 1.0),)


@pytest.mark.parametrize(
    ("depth", "trained"),
    [(1, {"two/*"}), (2, {"two/*"}), (3, {"one/*", "two/*"}), (4, {"stem/*", "one/*", "two/*", "glue/*"})],
)
def test_partial_trains_stages_that_have_weights(depth: int, trained: set[str]) -> None:
    (plan,) = propose(facts(glue=5), ["partial"], knobs(partial__depth=depth))
    assert plan.phases[0].frontier == len(STAGES) - depth
    assert dict(plan.phases[0].rates) == {"head/*": 1.0} | dict.fromkeys(trained, 0.1)


@pytest.mark.parametrize("depth", [0, 5, -1])
def test_a_depth_that_the_backbone_does_not_have_is_refused(depth: int) -> None:
    with pytest.raises(UsageError) as caught:
        propose(facts(), ["partial"], knobs(partial__depth=depth))
    assert caught.value.what == "this backbone does not have that many stages to train"
    assert caught.value.saw == f"--partial.depth {depth}" and caught.value.allowed == "1 to 4: stem, one, pool, two"


@pytest.mark.parametrize(
    ("rows", "batch", "norm", "wanted"),
    [(4999, 32, "auto", "keep"), (5000, 32, "auto", "update"), (9999, 15, "auto", "keep"), (9, 4, "update", "update")],
)
def test_few_rows_or_small_batches_keep_statistics(rows: int, batch: int, norm: str, wanted: str) -> None:
    (plan,) = propose(facts(rows), ["partial"], knobs(partial__batch=batch, partial__norm=norm))
    assert plan.phases[0].norm == wanted


@pytest.mark.parametrize("strategy", ["full", "layerwise", "gradual"])
def test_few_rows_keep_statistics_whatever_trains_all(strategy: str) -> None:
    assert tuned(strategy, facts(4999)).phases[-1].norm == "keep"
    assert tuned(strategy, facts(5000)).phases[-1].norm == "update"


def test_full_trains_everything_at_a_share_of_the_head_s_rate() -> None:
    plan = tuned("full", facts(glue=5))
    assert plan.trunk == 0
    assert dict(plan.phases[0].rates) == {"head/*": 1.0} | dict.fromkeys(("stem/*", "one/*", "two/*", "glue/*"), 0.1)


def test_layerwise_rates_fall_from_the_top() -> None:
    rates = dict(tuned("layerwise", facts(), knobs(layerwise__ratio=0.5, layerwise__fall=0.5)).phases[0].rates)
    assert rates == {"head/*": 1.0, "stem/*": 0.0625, "one/*": 0.125, "two/*": 0.5}


def test_gradual_goes_down_from_a_head_on_top() -> None:
    lpft, unfreeze = propose(facts(), ["gradual"], [])
    assert [phase.frontier for phase in lpft.phases] == [4, 0]
    assert [phase.frontier for phase in unfreeze.phases] == [4, 2, 1, 0]
    assert all(phase.rates == (("head/*", 1.0),) for phase in (lpft.phases[0], unfreeze.phases[0]))
    (flat,) = propose(facts(), ["gradual"], knobs(gradual__by="unfreeze", gradual__groups=99))
    assert [phase.frontier for phase in flat.phases] == [4, 3, 2, 1, 0], "no more groups than stages"


def test_asis_trains_nothing() -> None:
    (plan,) = propose(facts(), ["asis"], [])
    assert plan.phases[0].epochs == 0 and plan.trunk == len(STAGES) and plan.start == "centroids"
    with pytest.raises(UsageError, match=r"cannot answer this as it is .* saw: --asis.by names · allowed: centroids"):
        propose(facts(), ["asis"], knobs(asis__by="names"))
    assert propose(facts(poolings=(LACKING,)), ["asis"], []) == [], "weights that were never trained answer nothing"


def test_scratch_without_a_network_fits_a_head_alone() -> None:
    (plan,) = propose(facts(), ["scratch"], knobs(scratch__by="plain"))
    assert (plan.init, plan.optimizer.name, plan.trunk, len(plan.phases)) == ("plain", "lbfgs", 0, 1)
    both = propose(facts(), ["scratch"], knobs(scratch__by="plain"), raced=True)
    assert [dict(plan.knobs)["c"] for plan in both] == [10.0, 1.0]
    (asked,) = propose(facts(), ["scratch"], knobs(scratch__by="plain", scratch__c=3), raced=True)
    assert asked.label == "scratch plain c 3"


def test_scratch_trains_all_from_a_random_start() -> None:
    plan = tuned("scratch", facts())
    assert plan.init == "random" and plan.trunk == 0 and plan.phases[0].rates == (("*", 1.0),)


def test_random_features_train_a_head_alone_above_weights_that_are_not_kept() -> None:
    plan = tuned("scratch", facts(), [("scratch.by", "features")])
    assert (plan.init, plan.optimizer.name, plan.trunk, plan.frontier) == ("random", "path", 0, 4)
    assert plan.phases[0].rates == (("head/*", 1.0),)


# ---------------------------------------------------------------- weights of rows, poolings


@pytest.mark.parametrize("weigh", [True, False])
def test_rows_are_weighed_in_every_plan_or_none(weigh: bool) -> None:
    plans = propose(facts(), ["probe", "partial", "scratch"], knobs(partial__smoothing=0.1), weigh)
    assert [plan.loss.balance for plan in plans] == [weigh] * 5
    assert [(plan.label, plan.loss.smoothing) for plan in plans if plan.loss.smoothing] == [
        ("partial depth 2 lr 0.001", 0.1)
    ]
    assert {plan.loss.balance for plan in propose(facts(), shelf.names("strategies"), [], weigh)} == {weigh}
    assert [plan.loss.balance for plan in propose(facts(), ["probe"], [])] == [False]


def test_a_plan_with_its_own_way_with_rare_classes_is_not_weighed_on_top() -> None:
    asked = knobs(probe__balance=0, partial__adjust=1, full__sampling="root", layerwise__balance=0.75)
    plans = propose(facts(), ["probe", "partial", "full", "layerwise", "lora"], asked, 0.5)
    assert [plan.loss.balance for plan in plans] == [0.0, 0.0, 0.0, 0.75, 0.5]


def test_the_probe_tries_every_pooling_and_the_others_the_one_that_suits() -> None:
    both = facts(poolings=(MEAN, LACKING))
    plans = propose(both, ["probe", "partial", "scratch"], knobs(partial__depth=1))
    assert [(plan.label, plan.pooling) for plan in plans] == [
        ("probe lr 0.001 (mean)", "mean"),
        ("probe lr 0.001", "native"),
        ("partial depth 1 lr 0.001 (mean)", "mean"),
        ("scratch plain c 10", "native"),
        ("scratch features (mean)", "mean"),
        ("scratch random lr 0.002 (mean)", "mean"),
    ]
    assert [plan.trunk for plan in plans] == [2, 3, 1, 0, 0, 0], "stages are counted in the plan's own pooling"


@pytest.mark.parametrize("strategy", TUNED)
def test_a_pooling_that_is_asked_for_is_taken(strategy: str) -> None:
    both = facts(poolings=(MEAN, LACKING))
    assert tuned(strategy, both, [(f"{strategy}.pooling", "native")]).pooling == "native"
    with pytest.raises(UsageError) as caught:
        propose(facts(), [strategy], [(f"{strategy}.pooling", "mean")])
    assert caught.value.what == "there is no pooling of this backbone of that name"
    assert (caught.value.saw, caught.value.allowed) == ("'mean'", "native")
    with pytest.raises(UsageError, match=r"'auto', 'native' or 'mean'"):
        propose(both, [strategy], [(f"{strategy}.pooling", "tokens")])


@pytest.mark.parametrize(("strategy", "depth", "frontier"), [("probe", 0, 3), ("partial", 1, 3), ("partial", 2, 2)])
def test_stages_that_the_checkpoint_lacks_train_at_the_head_s_rate(strategy: str, depth: int, frontier: int) -> None:
    given = knobs(partial__depth=depth) if depth else []
    (plan,) = propose(facts(poolings=(LACKING,)), [strategy], given)
    assert plan.phases[0].frontier == frontier
    assert plan.phases[0].rates == (("head/*", 1.0), ("two/*", 1.0)), "a pattern for each parameter, once"
