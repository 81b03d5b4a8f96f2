"""`regraft adapt`: every option reaches the request; a refused result has its own exit code."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from regraft import flow
from regraft.errors import ModelError, UsageError
from regraft.waist import (
    Account,
    Budget,
    Cost,
    DataCard,
    Options,
    Phase,
    Plan,
    Reading,
    Said,
    Score,
    Target,
    Trial,
    Verdict,
)
from tests import places
from tests.calls import call, error_of

SCORES = tuple(Score("accuracy", split, 0.5, 0.4, 0.6, 9) for split in ("val", "test"))


TRIAL = Trial(Plan("probe", (Phase(1, 0, (("*", 1.0),)),)), 0, SCORES, (), Cost(1.25, 1), "", "")


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


@pytest.mark.parametrize(("decision", "code"), [("ship", 0), ("warn", 0), ("refuse", 7)])
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_a_refused_result_has_its_own_exit_code(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    decision: Any,
    code: int,
    more: list[str],
) -> None:
    made = flow.Run(
        home / "r",
        DataCard("d", "image", "f", Target("label", "class", ("a", "b"), (1, 1)), (("train", 2),)),
        (TRIAL,),
        Verdict(decision, 0, "the only plan", "nothing", (), ()),
        Account(Budget(), 1.0, 1, 1, ()),
        home / "r" / "bundle",
        home / "r" / "report.md",
    )

    def steps(*_: object, **__: object) -> Generator[Any, None, flow.Run]:
        yield Said("x")
        return made

    monkeypatch.setattr(flow, "steps", steps)
    found, out, _ = call([*ADAPT, *more], capsys)
    assert found == code and decision in out
    assert ("regraft predict" in out) == (decision != "refuse")


FLAGS: dict[str, tuple[str, Any]] = {
    "--target": ("y", {"target": "y"}),
    "--text": ("a, b", {"text": ("a", "b")}),
    "--image": ("file_name", {"image": "file_name"}),
    "--group": ("who", {"group": "who"}),
    "--sensitive": ("sex,age", {"sensitive": ("sex", "age")}),
    "--time": ("day", {"time": "day"}),
    "--task": ("ordinal", {"task": "ordinal"}),
    "--val": ("v.csv", {"val": "v.csv"}),
    "--test": ("t.csv", {"test": "t.csv"}),
    "--max-rows": ("30", {"max_rows": 30}),
    "--positive": ("yes", {"positive": "yes"}),
    "--order": ("low, mid,high", {"order": ("low", "mid", "high")}),
    "--metric": ("f1", "f1"),
    "--balance": ("classes", "classes"),
    "--long": ("windows", "windows"),
    "--max-tokens": ("64", 64),
    "--budget": ("1h30m", Budget(seconds=5400.0)),
    "--refit": ("all", "all"),
    "--arch": ("timm/resnet18", "timm/resnet18"),
    "--precision": ("auto", "auto"),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_option_reaches_the_request(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    seen: list[Options] = []

    def steps(options: Options, _out: Path, **_: Any) -> Generator[Any, None, None]:
        seen.append(options)
        raise ModelError("enough")
        yield

    monkeypatch.setattr(flow, "steps", steps)
    said, wanted = FLAGS[flag]
    assert call([*ADAPT, flag, said], capsys)[0] == 4
    usual = Options("data", "model")
    if isinstance(wanted, dict):
        assert seen == [dataclasses.replace(usual, reading=Reading(**wanted))]
    else:
        assert seen == [dataclasses.replace(usual, **{flag[2:].replace("-", "_"): wanted})]
    if flag not in ("--precision",):
        error = error_of(["adapt", "--resume", "runs/x", flag, said], capsys)
        assert error["what"] == "--resume takes its request from the run"


@pytest.mark.parametrize(("flag", "said"), [("--max-rows", "-1"), ("--max-rows", "many"), ("--max-tokens", "few")])
def test_a_number_that_is_none_is_misuse(home: Path, capsys: pytest.CaptureFixture[str], flag: str, said: str) -> None:
    assert f"'{flag}'" in error_of([*ADAPT, flag, said], capsys)["what"]


@pytest.mark.parametrize(
    ("flag", "said", "what"),
    [
        ("--budget", "soon", "this is no budget"),
        ("--budget", "-5m", "this is no budget"),
        ("--budget", "0trials", "this is no budget"),
        ("--budget", "8GB", "a budget in bytes cannot be kept yet"),
        ("--budget", "0kWh", "this is no budget"),
        ("--refit", "some", "there is no refit of that name"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], flag: str, said: str, what: str
) -> None:
    error = error_of([*ADAPT, f"{flag}={said}"], capsys)
    assert (error["code"], error["what"]) == (2, what) and error["allowed"]


def test_no_strategy_is_left_to_the_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def steps(options: Any, _out: Path, **_: Any) -> Generator[Any, None, None]:
        raise UsageError(repr(options.strategies), str(options.knobs))
        yield

    monkeypatch.setattr(flow, "steps", steps)
    error = error_of([*ADAPT, "--partial.depth", "1"], capsys)
    assert (error["what"], error["saw"]) == ("()", "(('partial.depth', '1'),)")
