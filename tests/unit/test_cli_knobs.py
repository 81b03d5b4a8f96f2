"""A strategy's knobs as options of the command line."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from regraft import flow
from regraft.cli import knobs
from regraft.errors import ModelError
from tests import places
from tests.calls import call


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with data and a folder that claims to be a model."""
    monkeypatch.chdir(tmp_path)
    places.pictures(tmp_path / "data", train=2, val=1, test=1)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.bin").write_bytes(b"\0\1")
    return tmp_path


ADAPT = ("adapt", "data", "--model", "model")


def test_help_shows_a_strategys_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["adapt", "--strategy", "partial", "--help"], capsys)
    assert code == 0 and "--partial.depth" in out and "how many of the last stages train. [default: 2]" in out
    assert "--probe.lr" not in out
    assert "--partial.lr" not in call(["adapt", "--help"], capsys)[1]


def test_knobs_reach_the_request(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def steps(options: Any, out: Path, **_: Any) -> Generator[Any, None, None]:
        seen.append((options, out))
        raise ModelError("enough")
        yield

    monkeypatch.setattr(flow, "steps", steps)
    args = [*ADAPT, "--strategy", "partial", "--strategy=probe", "--partial.depth=1", "--probe.lr", "0.5", "--no-cache"]
    assert call([*args, "--seed", "3", "--out", "there"], capsys)[0] == 4
    ((options, out),) = seen
    assert options.strategies == ("partial", "probe") and out == Path("there")
    assert options.knobs == (("partial.depth", "1"), ("probe.lr", "0.5"))
    assert (options.seed, options.cache, options.precision) == (3, False, "fp32")


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["adapt"], []),
        (["adapt", "--strategy"], []),
        (["--strategy", "probe", "--strategy=partial", "--strategy", "probe"], ["probe", "partial"]),
        (["--partial.depth", "2", "--scratch.lr=3"], ["partial", "scratch"]),
        (["--strategy", "prbe", "--prbe.lr", "1"], []),
        (["--strategy", "mine.zip", "--zip.lr", "1"], ["mine.zip"]),
        (["runs/a.b", "--out", "x.csv"], []),
    ],
)
def test_strategies_are_found_before_the_line_is_parsed(args: list[str], found: list[str]) -> None:
    assert knobs.asked(args, "--strategy") == found


def test_a_docstring_says_what_each_knob_is() -> None:
    class Knobs:
        """depth: how many stages: two is usual. lr: rate.

        norm: keep or update.
        """

        depth: int = 2
        lr: float = 0.1
        norm: str = "keep"
        silent: int = 0

    assert knobs.sayings(Knobs) == {"depth": "how many stages: two is usual.", "lr": "rate.", "norm": "keep or update."}
