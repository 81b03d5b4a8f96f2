"""A strategy's knobs as options of the command line."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from regraft import ahead, flow
from regraft.cli import knobs
from regraft.errors import ModelError
from tests import places
from tests.calls import call, error_of, object_of


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


def test_knobs_reach_draws_too(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    def shots(options: Any, draws: int, out: Path) -> Generator[Any, None, None]:
        seen.append((options, draws))
        raise ModelError("enough")
        yield

    monkeypatch.setattr(ahead, "shots", shots)
    monkeypatch.setenv("REGRAFT_CONTRAST_EPOCHS", "7")
    (home / "a.toml").write_text("metric = 'accuracy'\n[shots]\ndraws = 3\n[shots.probe]\nby = 'path'\n")
    args = ["shots", "data", "--model", "model", "--strategy", "contrast,probe", "--contrast.depth=1"]
    assert call([*args, "--config", "a.toml"], capsys)[0] == 4
    ((options, draws),) = seen
    assert options.knobs == (("contrast.depth", "1"), ("contrast.epochs", "7"), ("probe.by", "path"))
    assert (options.metric, draws) == ("accuracy", 3)
    assert "--contrast.depth" in call(["shots", "--strategy", "contrast", "--help"], capsys)[1]


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


def test_a_file_the_environment_and_set_reach_the_request(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def steps(options: Any, out: Path, **_: Any) -> Generator[Any, None, None]:
        seen.append((options, out))
        raise ModelError("enough")
        yield

    monkeypatch.setattr(flow, "steps", steps)
    monkeypatch.setenv("REGRAFT_STRATEGY", "probe,partial")
    monkeypatch.setenv("REGRAFT_USE_CACHE", "no")
    (home / "etc").mkdir()
    text = "data = '../data'\nout = 'there'\nbudget = '5m'\n[probe]\nlr = 0.01\n[full]\nlr = 0.1\n"
    text += "[reading]\norder = ['a', 'b']\n"
    (home / "etc" / "a.toml").write_text(text)
    args = ["adapt", "--model", "model", "--config", "etc/a.toml", "--set", "partial.depth=1", "--seed", "3"]
    code, _, err = call(args, capsys)
    assert code == 4 and "full.lr (etc/a.toml: [full] lr) is left aside" in err
    ((options, out),) = seen
    assert (options.data, options.model, out) == ("data", "model", Path("etc/there"))
    assert options.strategies == ("probe", "partial") and options.reading.order == ("a", "b")
    assert options.knobs == (("partial.depth", "1"), ("probe.lr", "0.01"))
    assert (options.seed, options.cache, options.budget.seconds) == (3, False, 300.0)
    from regraft.deliver.words import reproduce

    said = reproduce(options).split()
    assert "--probe.lr" in said and "--config" not in said and said.count("--strategy") == 2 and "--no-cache" in said
    for name in ("REGRAFT_STRATEGY", "REGRAFT_USE_CACHE"):
        monkeypatch.delenv(name)
    assert call([*said[1:], "--out", "x"], capsys)[0] == 4 and seen[-1][0] == options


def test_a_run_goes_on_with_its_own_request(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGRAFT_BUDGET", "5m")
    monkeypatch.setenv("REGRAFT_PROBE_LR", "0.5")
    (home / "a.toml").write_text("seed = 3")
    monkeypatch.setenv("REGRAFT_CONFIG", "a.toml")
    assert error_of(["adapt", "--resume", "x"], capsys)["what"] == "there is no run in this folder"
    for more in (["--config", "a.toml"], ["--set", "seed=4"], ["--probe.lr", "1"], ["--strategy", "probe"]):
        assert error_of(["adapt", "--resume", "x", *more], capsys)["what"] == "--resume takes its request from the run"


def test_knobs_of_a_module_that_a_file_names(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "mine_zip.py").write_text("")
    (home / "mine").mkdir()
    (home / "mine" / "zip.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Knobs:\n"
        "    'lr: rate.'\n    lr: float = 0.5\ndef propose(facts, knobs): return []\n"
    )
    monkeypatch.syspath_prepend(home)
    (home / "a.toml").write_text("strategy = ['mine.zip']\n[zip]\nlr = 0.25\n")
    told = object_of(["config", "show", "--config", "a.toml"], capsys, "config show")
    assert told["knobs"]["zip.lr"]["value"] == 0.25


def test_other_verbs_take_what_means_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "a.toml").write_text("target = 'y'\nout = 'runs'\nseed = 3\n[evaluate]\nsplit = 'all'\n")
    monkeypatch.setenv("REGRAFT_TEXT", "said")
    seen: list[Any] = []

    def steps(run: Any, data: Any, reading: Any, split: str, adapter: Any) -> Generator[Any, None, None]:
        seen.append((reading, split))
        raise ModelError("enough")
        yield

    monkeypatch.setattr("regraft.deliver.evaluate.steps", steps)
    assert call(["evaluate", "run", "data", "--config", "a.toml"], capsys)[0] == 4
    ((reading, split),) = seen
    assert (reading.target, reading.text, split) == ("y", ("said",), "all")
