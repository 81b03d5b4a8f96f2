"""From facts and knobs to plans: texts become knobs, what cannot be is refused with the nearest name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from regraft.errors import UsageError
from regraft.planner.propose import check_knobs, knobs_of, make_knobs, propose
from regraft.waist import BackboneCard, DataCard, Facts, InputSpec, MachineCard, Pooled, Stage, Target

STAGES = tuple(
    Stage(name, name, params, 100, 64) for name, params in (("stem", 9), ("one", 9), ("pool", 0), ("two", 9))
)


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


def knobs(**given: Any) -> list[tuple[str, str]]:
    return [(name.replace("__", "."), str(value)) for name, value in given.items()]


# ---------------------------------------------------------------- plans


def test_each_strategy_proposes_in_turn() -> None:
    assert [plan.strategy for plan in propose(facts(), ["scratch", "probe"], [])] == ["scratch", "probe"]


def test_knobs_reach_their_strategy_alone() -> None:
    probe, partial = propose(facts(), ["probe", "partial"], knobs(probe__lr=0.5, partial__batch=7))
    assert probe.optimizer.lr == 0.5 and probe.batch == 32
    assert partial.optimizer.lr == 1e-3 and partial.batch == 7


def test_a_strategy_of_somebody_else_is_asked_by_its_last_name() -> None:
    (plan,) = propose(facts(), ["regraft.strategies.probe"], knobs(probe__epochs=3))
    assert plan.phases[0].epochs == 3


@pytest.mark.parametrize("strategy", ["probe", "partial", "scratch"])
def test_knobs_have_types_and_defaults(strategy: str) -> None:
    found = knobs_of(strategy)
    assert found["lr"][0] is float and found["epochs"][0] is int and found["batch"] == (int, 32)
    assert make_knobs(strategy, {}).batch == 32


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("knob", "value", "allowed", "default"),
    [
        ("partial.depth", "two", "valid integer", "2"),
        ("partial.depth", "1.5", "valid integer", "2"),
        ("partial.lr", "fast", "valid number", "0.001"),
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
        ("probe.epochs", "0"),
        ("probe.lr", "nan"),
        ("probe.lr", "inf"),
        ("probe.lr", "-1"),
        ("partial.smoothing", "2"),
        ("partial.smoothing", "-0.1"),
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
        UsageError, match=r"saw: 'partial\.depth' · allowed: probe\.batch, probe\.epochs, probe\.lr, probe\.pool"
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


def test_scratch_trains_all_from_a_random_start() -> None:
    (plan,) = propose(facts(), ["scratch"], [])
    assert plan.init == "random" and plan.trunk == 0 and plan.phases[0].rates == (("*", 1.0),)


# ---------------------------------------------------------------- weights of rows, poolings


@pytest.mark.parametrize("weigh", [True, False])
def test_rows_are_weighed_in_every_plan_or_none(weigh: bool) -> None:
    plans = propose(facts(), ["probe", "partial", "scratch"], knobs(partial__smoothing=0.1), weigh)
    assert [plan.loss.balance for plan in plans] == [weigh] * 3
    assert [plan.loss.smoothing for plan in plans] == [0.0, 0.1, 0.0]
    assert [plan.loss.balance for plan in propose(facts(), ["probe"], [])] == [False]


def test_the_probe_tries_every_pooling_and_the_others_the_one_that_suits() -> None:
    both = facts(poolings=(MEAN, LACKING))
    plans = propose(both, ["probe", "partial", "scratch"], knobs(partial__depth=1))
    assert [(plan.label, plan.pooling) for plan in plans] == [
        ("probe (mean)", "mean"),
        ("probe", "native"),
        ("partial depth 1 (mean)", "mean"),
        ("scratch (mean)", "mean"),
    ]
    assert [plan.trunk for plan in plans] == [2, 3, 1, 0], "stages are counted in the plan's own pooling"


@pytest.mark.parametrize("strategy", ["probe", "partial", "scratch"])
def test_a_pooling_that_is_asked_for_is_taken(strategy: str) -> None:
    both = facts(poolings=(MEAN, LACKING))
    (plan,) = propose(both, [strategy], [(f"{strategy}.pooling", "native")])
    assert plan.pooling == "native"
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
