"""Law 8, the part that is built: the forecast of trainable parameters is exact, for every strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regraft import ahead, flow
from regraft.kit import shelf
from regraft.kit.store import record
from regraft.planner.course import Course
from regraft.planner.request import strategies_of
from regraft.waist import Budget, Options, Plan, Reading
from tests import places

KINDS = {
    "asis": ["asis centroids"],
    "bitfit": ["bitfit lr 0.001"],
    "bottleneck": ["bottleneck houlsby lr 0.001"],
    "contrast": ["contrast depth 2 lr 0.0003"],
    "full": ["full lr 0.001"],
    "gradual": ["gradual lpft lr 0.001", "gradual unfreeze lr 0.001"],
    "ia3": ["ia3 lr 0.001"],
    "layerwise": ["layerwise lr 0.001"],
    "lora": ["lora rank 8 lr 0.001"],
    "norms": ["norms lr 0.001"],
    "partial": ["partial depth 2 lr 0.001"],
    "prefix": ["prefix lr 0.001"],
    "probe": ["probe lr 0.001"],
    "prompt": ["prompt deep lr 0.001"],
    "prototype": ["prototype"],
    "scratch": ["scratch plain c 10", "scratch features", "scratch random lr 0.002"],
    "side": ["side lr 0.001"],
}
"""What each strategy on the shelf runs on pictures without a budget: one rate of each kind."""


def epochs(strategy: str) -> tuple[tuple[str, str], ...]:
    """One epoch, for a strategy that has any."""
    return () if strategy in ("asis", "prototype") else ((f"{strategy}.epochs", "1"),)


def kept(course: Course, told: list[dict[str, Any]]) -> None:
    """Run what was forecast: trials must train as many weights, from as deep, and be cached where it was said."""
    for number, one in enumerate(told):
        plan = record(Plan, one["plan"])
        trial = places.finish(course, plan, number)
        assert (one["label"], one["frontier"]) == (trial.label, trial.plan.trunk)
        assert one["trainable"] == trial.cost.trainable, one["label"]
        assert (one["trainable"] == 0) == (plan.strategy == "asis")
        assert (one["cache_bytes"] > 0) == (trial.plan.trunk > 0)


@pytest.mark.parametrize("strategy", [name for name in shelf.names("strategies") if name not in places.ATTENDING])
def test_trainable_parameters_are_known_before(tmp_path: Path, strategy: str) -> None:
    course = places.course(tmp_path)
    asked = Options(str(tmp_path / "data"), str(tmp_path / "model"), strategies=(strategy,), knobs=epochs(strategy))
    told = flow.finish(ahead.forecast(asked))
    assert [one["label"] for one in told] == KINDS[strategy]
    kept(course, told)


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize(("of", "network"), [("class", "encoder"), ("pairs", "classifier")])
def test_trainable_parameters_of_texts_are_known_for_both_poolings(
    tmp_path: Path, of: Any, network: Any, pooling: str
) -> None:
    course = places.text_course(tmp_path, of, network)
    strategies = tuple(one for one in shelf.names("strategies") if one not in ("contrast", "prototype"))  # of classes
    asked = Options(
        str(tmp_path / "data"),
        str(tmp_path / "model"),
        reading=Reading(task=places.TASKS[of]),
        strategies=strategies,
        knobs=tuple((f"{name}.pooling", pooling) for name in strategies)
        + tuple(knob for name in strategies for knob in epochs(name)),
    )
    told = flow.finish(ahead.forecast(asked))
    poolings = {one["plan"]["pooling"] for one in told if one["plan"]["init"] != "plain"}
    assert poolings == {pooling}
    ran = {one["plan"]["strategy"] for one in told}
    lacking = (of, pooling) in {("class", "native"), ("pairs", "native")}
    assert set(strategies) - ran <= ({"asis"} if lacking else set())
    kept(course, told)


def test_a_race_is_forecast_with_every_rate(tmp_path: Path) -> None:
    """Without a strategy all are proposed, each rate of each kind; any rate trains the same number of weights."""
    course = places.course(tmp_path)
    asked = Options(str(tmp_path / "data"), str(tmp_path / "model"))
    told = flow.finish(ahead.forecast(asked))
    labels = [one["label"] for one in told]
    assert labels[:3] == ["scratch plain c 10", "scratch plain c 1", "asis centroids"]
    usual = {one for name, some in KINDS.items() if name in strategies_of(asked) for one in some}
    assert (
        usual < set(labels)
        and len(labels) == len(set(labels))
        and not any(name in one for one in labels for name in ("lora", "bottleneck", "side"))
    )
    budgeted = Options(asked.data, asked.model, budget=Budget(trials=4))
    assert [one["label"] for one in flow.finish(ahead.forecast(budgeted))] == labels, "what is left out is seen later"
    assert not (tmp_path / "runs").exists() and not course.folder.path.exists(), "nothing is written"
    numbers: dict[str, set[int]] = {}
    for one in told:
        numbers.setdefault(one["label"].split(" lr ")[0].split(" c ")[0], set()).add(one["trainable"])
    assert {len(some) for some in numbers.values()} == {1}
