"""Law 8, the part that is built: the forecast of trainable parameters is exact, for every strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regraft import api
from regraft.kit import shelf
from regraft.waist import Options, Reading
from tests import places


@pytest.mark.parametrize("strategy", shelf.names("strategies"))
def test_trainable_parameters_are_known_before(tmp_path: Path, strategy: str) -> None:
    course = places.course(tmp_path)
    options = Options(str(tmp_path / "data"), str(tmp_path / "model"), strategies=(strategy,))
    (told,) = api.finish(api.forecast(options))
    trial = places.finish(course, places.plan(course, strategy, epochs=1))
    assert told["trainable"] == trial.cost.trainable > 0
    assert told["frontier"] == trial.plan.trunk


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize(("of", "network"), [("class", "encoder"), ("pairs", "classifier")])
def test_trainable_parameters_of_texts_are_known_for_both_poolings(
    tmp_path: Path, of: Any, network: Any, pooling: str
) -> None:
    course = places.text_course(tmp_path, of, network)
    strategies = shelf.names("strategies")
    options = Options(
        str(tmp_path / "data"),
        str(tmp_path / "model"),
        reading=Reading(task=places.TASKS[of]),
        strategies=strategies,
        knobs=tuple(
            (f"{name}.{knob}", value) for name in strategies for knob, value in (("pooling", pooling), ("epochs", "1"))
        ),
    )
    told = api.finish(api.forecast(options))
    assert len(told) == len(strategies)
    for number, (strategy, one) in enumerate(zip(strategies, told, strict=True)):
        trial = places.finish(course, places.plan(course, strategy, epochs=1, pooling=pooling), number)
        assert one["trainable"] == trial.cost.trainable > 0, strategy
        assert (one["frontier"], one["plan"]["pooling"]) == (trial.plan.trunk, pooling)
        assert (one["cache_bytes"] > 0) == (trial.plan.trunk > 0)
