"""`regraft config show`: the defaults that hold, read from the records and from the strategies themselves."""

from __future__ import annotations

import pytest

from regraft.cli import config
from regraft.kit import shelf
from regraft.planner.propose import knobs_of
from regraft.waist import Options
from tests.calls import call, error_of, object_of

Captured = pytest.CaptureFixture[str]


def test_every_option_of_the_request_is_there() -> None:
    found = config.option_defaults()
    assert found["seed"] == (0, "Seeds splits, starts, order of rows, resampling.")
    assert found["balance"][0] == "auto" and found["cache"][0] is True and found["max-rows"][0] == 0
    assert set(Options.__slots__) - {"data", "model", "reading", "knobs"} <= {
        {"strategy": "strategies"}.get(name, name).replace("-", "_") for name in found
    }
    assert all(what for _, what in found.values())


def test_every_knob_of_every_strategy_is_there() -> None:
    found = config.knob_defaults()
    assert set(found) == {f"{name}.{knob}" for name in shelf.names("strategies") for knob in knobs_of(name)}
    assert found["partial.depth"] == (2, "how many of the last stages train.")


def test_the_command_shows_both(capsys: Captured) -> None:
    code, out, _ = call(["config", "show"], capsys)
    assert code == 0 and "--max-tokens" in out and "--partial.depth" in out
    told = object_of(["config", "show"], capsys, "config show")
    assert told["options"]["precision"][0] == "fp32" and told["knobs"]["partial.depth"][0] == 2


def test_a_verb_that_is_not_there_is_misuse(capsys: Captured) -> None:
    error = error_of(["config", "shwo"], capsys, "config")
    assert error["code"] == 2 and "No such command 'shwo'" in error["what"] and error["do"] == "regraft config --help"
