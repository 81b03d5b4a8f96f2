"""Law 8, the part that is built: the forecast of trainable parameters is exact, for every strategy."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft import api
from regraft.kit import shelf
from regraft.waist import Options
from tests import places


@pytest.mark.parametrize("strategy", shelf.names("strategies"))
def test_trainable_parameters_are_known_before(tmp_path: Path, strategy: str) -> None:
    course = places.course(tmp_path)
    options = Options(str(tmp_path / "data"), str(tmp_path / "model"), "", (strategy,))
    (told,) = api.finish(api.forecast(options))
    trial = places.finish(course, places.plan(course, strategy, epochs=1))
    assert told["trainable"] == trial.cost.trainable > 0
    assert told["frontier"] == trial.plan.trunk
